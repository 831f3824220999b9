// @ts-check
// The dialogs: the keys, the guidelines, and the comment of a flag.
import { byId, make } from "./dom.js";
import { keysFor } from "./state/keys.js";

/** Whether a dialog is open: the page's keys do nothing then. */
export const isOpen = () => Boolean(document.querySelector("dialog[open]"));

/** List the keys that a study's page has. @param {string[]} choices @param {number} questions */
export const listKeys = (choices, questions) => {
  byId("keys-list").replaceChildren(...keysFor(choices, questions).flatMap(({ shown, help }) => [
    make("dt", {}, ...shown.map((key) => make("kbd", {}, key))), make("dd", {}, help),
  ]));
};

/** @param {"keys" | "reading"} id */
export const open = (id) => {
  if (!isOpen()) byId(id).showModal();
};

let answered = /** @type {(comment: string) => void} */ (() => {});

/** Ask what is wrong with a pair.
 * @param {{comment?: string}} now the comment so far
 * @param {(comment: string) => void} answer called with the comment */
export const askComment = ({ comment = "" }, answer) => {
  if (isOpen()) return;
  answered = answer;
  byId("comment").value = comment;
  byId("flagging").showModal();
  byId("comment").focus();
};

/** @param {() => void} changed called when a dialog is opened or closed */
export const listen = (changed) => {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("close", changed);
    dialog.addEventListener("click", ({ target }) => {
      // The dialog itself is hit only beside what is in it.
      if (target === dialog && dialog.id !== "flagging") dialog.close();
      else if (target.closest("[data-close]")) dialog.close();
    });
  }
  byId("flag-form").addEventListener("submit", () => answered(byId("comment").value.trim()));
  byId("comment").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("flag-form").requestSubmit();
  });
};
