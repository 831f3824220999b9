// @ts-check
// A pair on the screen, and the answers below it. What is chosen is in a Sheet; main.js sends it.
import { byId, make, show } from "./dom.js";
import { isComplete } from "./state/answers.js";
import { shortChoice } from "./state/words.js";

/** @typedef {import("./state/answers.js").Sheet} Sheet */
const ROLES = { user: "User", assistant: "Assistant", system: "Instructions" };
const SIDES = { left: "response-a", right: "response-b" };

/** Prepare the answers for a study. @param {{questions: {key: string, text: string}[], choices: string[]}} study
 * @param {(index: number) => void} goTo called with the question that is asked next */
export const prepare = ({ questions, choices }, goTo) => {
  byId("questions").replaceChildren(...questions.map(({ text }, i) => make("p", { id: `question-${i}`, dir: "auto" }, text)));
  const buttons = [...document.querySelectorAll(".choice")];
  for (const button of buttons) show(button, choices.includes(button.dataset.choice));
  byId("choices").className = choices.length === 3 ? "three" : "";
  show("sheet", questions.length > 1);
  byId("steps").replaceChildren(...questions.map(({ key }, i) => make("li", {}, make(
    "button", { type: "button", className: "step", onclick: () => goTo(i) },
    make("span", { className: "number" }, String(i + 1)), make("span", { className: "name" }, key), make("b", {}),
  ))));
};

/** @param {HTMLElement} element @param {string} text */
const write = (element, text) => {
  const empty = !text.trim();
  element.textContent = empty ? "(empty)" : text;
  element.classList.toggle("empty", empty);
};

/** Show the texts of a pair. @param {any} assignment as the server sends it @param {string} title */
export const showPair = ({ prompt, a, b }, title) => {
  byId("pair-title").textContent = title;
  const named = prompt.length > 1 || prompt[0]?.role !== "user";
  byId("turns").replaceChildren(...prompt.map(({ role, content }) => {
    const text = make("div", { className: "text", dir: "auto" });
    write(text, content);
    return make("div", { className: "turn" }, make("div", { className: "role" }, named ? ROLES[role] ?? role : "Prompt"), text);
  }));
  write(byId("text-a"), a);
  write(byId("text-b"), b);
  expand(false);
  window.scrollTo(0, 0);
  fit();
};

/** Offer to show all of a prompt that is longer than its place; of a conversation the last message is seen first. */
export const fit = () => {
  const turns = byId("turns");
  if (byId("prompt").classList.contains("expanded")) return;
  byId("prompt").classList.remove("long");
  const long = turns.scrollHeight > turns.clientHeight + 4;
  show("expand", long);
  byId("prompt").classList.toggle("long", long);
  if (long) turns.tabIndex = 0;
  else turns.removeAttribute("tabindex");
  const last = turns.lastElementChild;
  if (long && turns.children.length > 1) turns.scrollTop = last.offsetTop - turns.offsetTop;
  else turns.scrollTop = 0;
};

/** @param {boolean} open */
const expand = (open) => {
  byId("prompt").classList.toggle("expanded", open);
  byId("expand").setAttribute("aria-expanded", String(open));
  byId("expand").textContent = open ? "Show less" : "Show all";
};

/** Show what is chosen and asked. @param {Sheet} sheet */
export const showSheet = (sheet) => {
  const { keys, answers, at } = sheet;
  const now = answers[keys[at]];
  for (const button of document.querySelectorAll(".choice")) {
    button.setAttribute("aria-pressed", String(button.dataset.choice === now));
  }
  for (const [choice, id] of Object.entries(SIDES)) byId(id).classList.toggle("chosen", now === choice);
  [...byId("questions").children].forEach((line, i) => line.classList.toggle("asked", i === at));
  byId("choices").setAttribute("aria-labelledby", `question-${at}`);
  [...document.querySelectorAll(".step")].forEach((step, i) => {
    if (i === at) step.setAttribute("aria-current", "step");
    else step.removeAttribute("aria-current");
    step.querySelector("b").textContent = shortChoice(answers[keys[i]]);
  });
  // Sideways only: the page stays where it is.
  const steps = byId("steps"), step = steps.children[at];
  if (step) steps.scrollLeft = step.offsetLeft - steps.offsetLeft - (steps.clientWidth - step.clientWidth) / 2;
  byId("send").setAttribute("aria-disabled", String(!isComplete(sheet)));
};

/** Say whether an answer in the training was right; null asks for an answer again.
 * @param {{right: boolean, text: string} | null} feedback */
export const showFeedback = (feedback) => {
  show("feedback", Boolean(feedback));
  show("continue", Boolean(feedback));
  show("choices", !feedback);
  show("sheet", !feedback && byId("steps").children.length > 1);
  if (!feedback) return;
  byId("feedback").className = feedback.right ? "right" : "wrong";
  byId("feedback-title").textContent = feedback.right ? "Right" : "Not what we expect";
  byId("feedback-text").textContent = feedback.text;
  byId("feedback-title").focus({ preventScroll: true });
};

/** @param {boolean} flagged */
export const showFlag = (flagged) => {
  byId("flag").setAttribute("aria-pressed", String(flagged));
  byId("flag-label").textContent = flagged ? "Flagged" : "Flag";
};

export const listen = () => {
  byId("expand").addEventListener("click", () => {
    expand(byId("expand").getAttribute("aria-expanded") === "false");
    fit();
  });
  for (const jump of document.querySelectorAll(".jump")) {
    jump.addEventListener("click", () => byId(jump.dataset.to).scrollIntoView({ block: "start" }));
  }
  window.addEventListener("resize", fit);
};
