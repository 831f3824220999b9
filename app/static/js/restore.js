// @ts-check
// What a reload of the page keeps, for this visit: the desk's settings, the conversation, and the text of the responses. The
// server's half: app/ui/restore.py.
import * as connection from "./connection.js";
import { byId, make, remembered } from "./dom.js";
import { shownValue } from "./gradio.js";
import { chosen, deskState, toValues } from "./math/state.js";
import * as mixer from "./mixer.js";
import * as sharing from "./sharing.js";
import * as trace from "./trace.js";

/** @typedef {{path: string[], id: string, choices: [string, string][]}} Field id: of what can be seen; choices: [label, value] */

const KEY = `mixdesk-desk:${location.pathname}`; // each configuration has a desk of its own
const BEFORE = "From before the reload";
/** @type {Field[]} */
let fields = [];
/** @type {any[]} */
let values = [];
let begun = false; // what is there is this page's own
let link = ""; // the one that the page has opened

const read = () => {
  try { return JSON.parse(remembered(KEY) ?? "null"); } catch { return null; }
};
const stored = read();

/** @param {Field[]} given @param {any[]} first their values */
export const begin = (given, first) => { [fields, values] = [given, first]; };
/** @param {number} i @param {any} value */
export const note = (i, value) => { values[i] = value; };

const valueOf = ({ path, id, choices }, i) => {
  // The mixer hears of its own at once; Gradio's events come later.
  const value = path[0] === "mixture" && mixer.state() ? toValues([path.slice(1)], mixer.state())[0] : values[i];
  if (!id) return value;
  const shown = shownValue(id, value);
  return choices.length ? chosen(choices, value, shown) : shown;
};

export const save = () => {
  if (!begun || !fields.length) return;
  const state = deskState(fields.map(({ path }) => path), fields.map(valueOf));
  const responses = Object.fromEntries(trace.texts().map(({ side, text, caption }) => [side, { text, caption }]));
  remembered(KEY, JSON.stringify({ state, link, responses, back: connection.disturbed() }));
};

/** Whether there is something to restore. A link in the address is opened instead, unless the kept desk came of it. */
export const due = () => Boolean(stored) && (!sharing.arriving() || stored.link === sharing.arriving());
/** The kept settings as JSON, and whether the server was away. */
export const kept = () => [JSON.stringify(stored.state), stored.back ? "back" : ""];

/** The captions of the panels with these names, after their responses are drawn. @param {string[]} sides */
export const responses = (sides) => sides.map((side) => {
  const { text = "", caption = "" } = stored?.responses?.[side] ?? {};
  if (!text && !caption) return "";
  trace.restore(side, text);
  const said = caption.startsWith(BEFORE) ? caption : [BEFORE, caption].filter(Boolean).join(" · ");
  return make("p", { className: "made" }, said).outerHTML;
});

/** From now on the page is kept. */
export const start = () => {
  begun = true;
  link = sharing.arriving();
};

export const listen = () => {
  // The last event that a page is sure to get.
  addEventListener("pagehide", save);
  document.addEventListener("visibilitychange", () => { if (document.hidden) save(); });
  document.addEventListener("connection", save);
  addEventListener("hashchange", () => { link = sharing.arriving(); });
};
/** The button whose event restores. */
export const press = () => byId("restore").click();
