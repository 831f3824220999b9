// @ts-check
// From ratings to the desk: a button has what it sends, and the desk takes it without asking the server.
import { openTab } from "./gradio.js";
import { fromValues, toValues } from "./math/state.js";

/** @type {any} */
let chosen = null;

export const click = (event, trigger) => {
  const button = event.target.closest("[data-send]");
  if (!button) return;
  chosen = JSON.parse(button.dataset.send);
  trigger("select");
  openTab("desk-tab");
};

/** The values of the mixture's components, in which a locked fader stays, and the status line.
 * @param {import("./math/state.js").Path[]} paths @param {any[]} values */
export const sent = (paths, values) => {
  const { rule, gain, exponent, said } = chosen, { faders, channels } = fromValues(paths, values);
  const { lock = {} } = channels;
  const unlocked = Object.entries(chosen.faders).filter(([name]) => !(name in lock));
  return [...toValues(paths, { faders: { ...faders, ...Object.fromEntries(unlocked) }, channels, rule, gain, exponent }), said];
};
