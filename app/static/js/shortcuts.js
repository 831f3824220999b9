// @ts-check
// The keyboard shortcuts: read from shortcuts.json, which also feeds the labels of the buttons and the list in Help.
import { byId, plain, press, pressable, typing } from "./dom.js";
import { accordionButton, tabButton } from "./gradio.js";

/**
 * @typedef {object} Shortcut
 * @property {string} shown the keys, as labels and Help have them
 * @property {string} [help] its line in Help
 * @property {string} [key] KeyboardEvent.key in lower case; a row without one is only listed
 * @property {boolean | "any"} [ctrl] with Ctrl or Meta
 * @property {boolean | "any"} [shift]
 * @property {string[]} [press] ids of the buttons that it presses, the first that is seen
 * @property {boolean} [focus] the button gets the focus too: Tab continues from there
 * @property {string} [id] its name in the module that handles it, where `press` does not say all
 * @property {string[]} [buttons] ids of the buttons that show it, where they are not those of `press`
 */

/** @type {Shortcut[]} */
const ALL = Object.values(JSON.parse(byId("mixdesk-shortcuts").textContent)).flat();

/** @param {string} name an id of a shortcut, or of a button */
const find = (name) => {
  const shortcut = ALL.find(({ id, press, buttons }) => id === name || press?.includes(name) || buttons?.includes(name));
  if (!shortcut) throw new Error(`shortcuts.json has nothing for ${name}`);
  return shortcut;
};

/** The keys as they are shown. @param {string} name an id of a shortcut, or of a button */
export const shown = (name) => find(name).shown;

/** @param {boolean | "any" | undefined} wanted @param {boolean} held */
const held = (wanted, held) => wanted === "any" || Boolean(wanted) === held;

/** @param {KeyboardEvent} event @param {Shortcut} shortcut */
const hits = (event, { key, ctrl, shift }) =>
  key === event.key.toLowerCase() && held(ctrl, event.ctrlKey || event.metaKey) && held(shift, event.shiftKey);

/** Whether these keys are pressed. @param {KeyboardEvent} event @param {string} name as in `shown` */
export const matches = (event, name) => hits(event, find(name));

/** The button with this id, where Gradio puts it. @param {string} id @returns {any} */
const buttonOf = (id) =>
  [`button#${id}`, tabButton(id), accordionButton(id), `#${id}`]
    .map((selector) => document.querySelector(selector)).find(Boolean);

/** Press a button that is seen, and give it the focus; whether there is one. @param {...string} ids */
export const go = (...ids) => {
  const button = ids.map(buttonOf).find(pressable);
  button?.focus();
  button?.click();
  return Boolean(button);
};

/** Whether a button can be gone to. @param {string} id */
export const reachable = (id) => pressable(buttonOf(id));

export const listen = () => {
  document.addEventListener("keydown", (event) => {
    for (const shortcut of ALL) {
      const { ctrl, focus, press: ids } = shortcut;
      if (!ids || !hits(event, shortcut)) continue;
      if (!focus) {
        if (!plain(event)) continue;
        event.preventDefault();
        press(...ids);
      } else {
        // An open dialog keeps its keys.
        if (event.repeat || event.isComposing || event.altKey || document.querySelector("dialog[open]")) continue;
        if (ctrl ? !ids.some(reachable) : typing(event.target)) continue;
        go(...ids);
        event.preventDefault();
      }
    }
  });
};
