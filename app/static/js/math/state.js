// @ts-check
// The desk's state by name, from the values of the page's components in their order, and back. Python knows the same
// state as app/schemas/desk_state.py, whose schema these types are generated from.

/**
 * @typedef {import("desk-state").DeskState} DeskState
 * @typedef {import("desk-state").MixtureState} MixtureState
 * @typedef {string[]} Path of a value in the state: ["mixture", "faders", "helpful"]
 */

// Values that a component holds as the text of their JSON, and what an empty text stands for.
const EMPTY = { channels: "{}", turns: "[]" };
/** @param {Path} path */
const isText = (path) => path[path.length - 1] in EMPTY && path[path.length - 2] !== "faders"; // policies have any name
/** @param {Path} path @param {any} value */
const parsed = (path, value) => (isText(path) ? JSON.parse(value || EMPTY[path[path.length - 1]]) : value);

/** The state of components with these values. @param {Path[]} paths @param {any[]} values @returns {any} */
export const fromValues = (paths, values) => {
  const state = new Map();
  paths.forEach((path, i) => {
    let place = state;
    for (const key of path.slice(0, -1)) {
      if (!place.has(key)) place.set(key, new Map());
      place = place.get(key);
    }
    place.set(path[path.length - 1], parsed(path, values[i]));
  });
  return plain(state);
};

// Object.fromEntries: a policy may be called __proto__.
const plain = (map) =>
  Object.fromEntries([...map].map(([key, value]) => [key, value instanceof Map ? plain(value) : value]));

/** What Generate sends: the state of the desk's components, without the choices of closed panels.
 * @param {Path[]} paths @param {any[]} values @returns {DeskState} */
export const deskState = (paths, values) => {
  const { open, prompt, stop, seed, panels, ...state } = fromValues(paths, values);
  const choices = Object.entries(panels).filter(([side]) => open.split(",").includes(side));
  return { ...state, prompt: prompt ?? "", stop: stop ?? "", seed: seed ?? "", panels: Object.fromEntries(choices) };
};

/** The value of the choice that a dropdown shows; `value` where labels do not tell. @param {[string, any][]} choices
 * labels and values @param {any} value the one that is known @param {string} label the one that is shown */
export const chosen = (choices, value, label) => {
  const same = choices.filter(([name]) => name === label).map(([, one]) => one);
  return same.includes(value) || !same.length ? value : same[0];
};

/** The values of components with this state. @param {Path[]} paths @param {any} state @returns {any[]} */
export const toValues = (paths, state) =>
  paths.map((path) => {
    const value = path.reduce((place, key) => place[key], state);
    return isText(path) ? JSON.stringify(value) : value;
  });

/** A state with one value changed. @template T @param {T} state @param {Path} path @param {any} value @returns {T} */
export const withValue = (state, path, value) => changed(state, path, parsed(path, value));
/** @param {any} state @param {Path} path @param {any} value @returns {any} */
const changed = (state, path, value) =>
  Object.fromEntries(Object.entries(state).map(([name, old]) => [
    name, name !== path[0] ? old : path.length > 1 ? changed(old, path.slice(1), value) : value,
  ]));
