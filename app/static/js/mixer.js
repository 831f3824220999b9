// @ts-check
// Around the faders: Lock, Solo and Mute, and Undo and Redo over all that makes the mixture.
import { byId, press, typing } from "./dom.js";
import { fader, faderOf } from "./gradio.js";
import { placed as placedIn, shares, stateOf, toggled, weights } from "./math/mixer.js";
import { fromValues, toValues, withValue } from "./math/state.js";
import { matches, shown } from "./shortcuts.js";
import { steer } from "./steer.js";
import * as target from "./target.js";

/** @typedef {import("./math/state.js").MixtureState} MixtureState */

const MARKS = {
  solo: ["Solo", shown("solo"), "only what is soloed is heard"],
  mute: ["Mute", shown("mute"), "silent, wherever its fader is"],
  lock: ["Lock", shown("lock"), "its weight stays, the others share the rest"],
};
const policies = () => [...document.querySelectorAll("[data-share]")].map((output) => output.dataset.policy);
/** The state of the faders and channels, which Gradio's events hand over in this order. @param {any[]} values */
const read = (values) => {
  const names = policies();
  return stateOf(names, fromValues([...names.map((name) => ["faders", name]), ["channels"]], values));
};

const showShares = (raw) => {
  shares(raw).forEach(({ share, text }, i) => {
    /** @type {any} */
    const output = document.querySelector(`[data-share="${i}"]`), segment = document.querySelector(`[data-segment="${i}"]`);
    if (output) {
      if (output.textContent !== text) output.textContent = text;
      output.dataset.exact = share;
    }
    if (segment) /** @type {any} */ (segment).style.flexGrow = share;
  });
};

let marked = ""; // what the buttons show
/** @param {MixtureState} mixture */
export const show = (mixture) => {
  const state = stateOf(policies(), mixture);
  const { names, solo, mute, lock } = state;
  target.heard(mixture);
  showShares(weights(state));
  const marks = JSON.stringify([solo, mute, lock]);
  if (marks === marked) return;
  marked = marks;
  names.forEach((name, i) => {
    const pressed = { solo: solo.includes(name), mute: mute.includes(name), lock: name in lock };
    for (const [mark, [word, key, what]] of Object.entries(MARKS)) {
      const button = byId(`${mark}-${i}`);
      button.ariaPressed = pressed[mark];
      button.ariaLabel = `${word} ${name}`;
      button.title = `${word} ${name}: ${what} (${key} on its fader)`;
    }
    const { around, inputs } = fader(i);
    around.classList.toggle("silent", pressed.mute || (solo.length > 0 && !pressed.solo));
    inputs.forEach((input) => { input.disabled = pressed.lock; });
  });
};

/** Fader positions after a calculation set them: a locked fader stays. @param {any[]} values @param {any[]} positions */
export const placed = (values, positions) => placedIn(read(values), positions);
export const even = (values) => placed(values, policies().map(() => 0.5));

export const toggle = (mark, i, values) => {
  const { positions, channels } = toggled(mark, i, read(values));
  return [...positions, JSON.stringify(channels)];
};

// ------------------------------------------------------------------------------------------- Undo and Redo
const LONGEST = 200; // steps
const PAUSE = 400; // ms without a change that end a gesture, when no pointer is held down
/** @type {MixtureState[]} */
let steps = [];
let at = 0, latest = null, timer = /** @type {any} */ (0), held = false, waiting = false;
/** @type {import("./math/state.js").Path[]} */
let paths = []; // of the mixture's components
/** @type {MixtureState} */
let now = null; // the state of the page
let asking = false, due = false; // whether it is to be sent, and to be shown
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

const mark = () => {
  byId("undo").ariaDisabled = at === 0;
  byId("redo").ariaDisabled = at >= steps.length - 1;
};
const commit = (state) => {
  clearTimeout(timer);
  latest = null;
  if (!steps.length || !state || same(state, steps[at])) return;
  steps = [...steps.slice(0, at + 1), state].slice(-LONGEST);
  at = steps.length - 1;
  mark();
};
const settle = () => {
  clearTimeout(timer);
  timer = setTimeout(() => { if (!held && !waiting) commit(latest); }, PAUSE);
};
/** A value of the mixture changed. Changes of one moment are sent together, without waiting for the screen, and are shown
 * once, when the screen is drawn anyway. @param {import("./math/state.js").Path} path @param {any} value */
export const moved = (path, value, send = soon) => {
  if (!now) return;
  const changed = withValue(now, path, value);
  if (same(changed, now)) return; // as the page begins, or known already
  now = latest = changed;
  send();
  if (due) return;
  due = true;
  if (document.hidden) setTimeout(note);
  else requestAnimationFrame(note);
};
const ask = () => {
  asking = false;
  steer.note(now);
};
const soon = () => {
  if (!asking) setTimeout(ask);
  asking = true;
};
const note = () => {
  due = false;
  show(now);
  target.note(now);
  settle();
};
/** The mixture as the page has it; null before it is filled in. */
export const state = () => now;

// A gesture that the server answers lasts until the answer is there.
export const hold = (value) => {
  waiting = value;
  settle();
};
/** @param {import("./math/state.js").Path[]} named @param {any[]} values */
export const begin = (named, values) => {
  paths = named;
  now = fromValues(paths, values);
  steps = [now];
  at = 0;
  ask();
  note();
  mark();
};
/** @param {number} by @param {any[]} values */
export const step = (by, values) => {
  commit(fromValues(paths, values));
  at = Math.min(Math.max(at + by, 0), steps.length - 1);
  mark();
  return toValues(paths, steps[at]);
};


export const listen = () => {
  // A hand moves one fader. Gradio tells of it, but only when the screen has been drawn.
  document.addEventListener("input", ({ target }) => {
    const i = faderOf(target);
    if (i !== undefined) moved(["faders", policies()[i]], Number(/** @type {any} */ (target).value), ask);
  }, true);
  // A new gesture ends the one before, however short the pause was.
  document.addEventListener("pointerdown", () => { commit(latest); held = true; }, true);
  // A button that a key presses has no pointer.
  document.addEventListener("click", () => { if (!waiting) commit(latest); }, true);
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, () => { held = false; settle(); }, true);
  }
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || typing(event.target)) return;
    const [undo, redo] = [matches(event, "undo"), matches(event, "redo") || matches(event, "redo-too")];
    if (undo || redo) {
      event.preventDefault();
      press(redo ? "redo" : "undo");
      return;
    }
    /** @type {any} */
    const around = /** @type {any} */ (event.target).closest(".fader");
    const pressed = Object.keys(MARKS).find((name) => matches(event, name));
    if (!around || !pressed || event.repeat) return;
    event.preventDefault();
    around.querySelector(`.mark-${pressed}`).click();
  });
};
