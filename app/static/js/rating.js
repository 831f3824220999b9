// @ts-check
// The rating under way. It is kept for this visit until the server has it; its id makes it safe to send it twice.
import * as connection from "./connection.js";
import { byId, remembered, uuid } from "./dom.js";
import * as status from "./status.js";
import { run } from "./text.js";

const KEY = "mixdesk-rating";
const SLOW = 3000; // ms without an answer after which the server may be away
const UNSAVED = "Not saved yet: the server cannot be reached; it will be sent again.";
const CHOICES = ["left", "right", "tie", "both_bad"];
let id = ""; // of the responses that were asked for last
let kept = remembered(KEY) ?? ""; // also where storage is forbidden
let timer = /** @type {any} */ (0);

const keep = (json) => {
  kept = json;
  remembered(KEY, json);
};

/** Responses are asked for: their rating is another. */
export const begin = () => {
  id = uuid();
  byId("stage").dataset.asked = "true";
};
export const ratingId = () => id;

/** The rating that the server may not have, as JSON; "" if there is none. */
export const unsaved = () => kept;

/** The server has it, or has said why it does not take it. */
export const answered = () => {
  clearTimeout(timer);
  keep("");
};

/** Send what is kept again. */
export const resend = () => { if (kept) byId("rate-again").click(); };

/** The status line of a rating that waits for the server. */
export const tell = () => status.say(status.message(UNSAVED, "bad"));

export const listen = () => {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    const choice = CHOICES.find((one) => button?.id === `rate-${one}`);
    if (!choice || button.disabled) return;
    keep(JSON.stringify({ id, choice, run: run() }));
    clearTimeout(timer);
    timer = setTimeout(connection.suspect, SLOW);
    // Gradio itself hears nothing then.
    if (connection.state() === "lost") tell();
  }, true);
};
