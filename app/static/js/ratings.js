// @ts-check
// From ratings to the desk: a button has what it sends, and the desk takes it without asking the server.
import { openTab } from "./gradio.js";
import { placed } from "./mixer.js";

/** @type {any} */
let chosen = null;

export const click = (event, trigger) => {
  const button = event.target.closest("[data-send]");
  if (!button) return;
  chosen = JSON.parse(button.dataset.send);
  trigger("select");
  openTab("desk-tab");
};

/** The faders except the locked ones, then rule, gain, exponent, and the status line. @param {any[]} now */
export const sent = (now) => [...placed(now, chosen.positions), chosen.rule, chosen.gain, chosen.exponent, chosen.said];
