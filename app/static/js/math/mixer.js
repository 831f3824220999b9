// @ts-check
// The weights of the mixture from faders, Lock, Solo and Mute, as Channels in Python computes them.

/**
 * @typedef {{solo: string[], mute: string[], lock: Record<string, number>}} Channels
 * @typedef {Channels & {names: string[], faders: number[]}} State
 */

/** @param {number[]} numbers */
export const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** The state of these policies in their order, which an object does not keep.
 * @param {string[]} names @param {Pick<import("desk-state").MixtureState, "faders" | "channels">} mixture
 * @returns {State} */
export const stateOf = (names, { faders, channels }) => {
  const { solo = [], mute = [], lock = {} } = channels;
  return { names, faders: names.map((name) => Number(faders[name])), solo, mute, lock };
};

/** Unnormalised weights: a lock keeps its weight, the others share what is left of 1.
 * @param {State} state @returns {number[]} */
export const weights = ({ names, faders, solo, mute, lock }) => {
  const heard = names.map((name) => !mute.includes(name) && (!solo.length || solo.includes(name)));
  const locked = names.map((name, i) => heard[i] && name in lock);
  if (!locked.includes(true)) return faders.map((fader, i) => (heard[i] ? fader : 0));
  const left = Math.max(0, 1 - sum(names.map((name, i) => (locked[i] ? lock[name] : 0))));
  const free = faders.map((fader, i) => (heard[i] && !locked[i] ? fader : 0));
  const total = sum(free);
  return names.map((name, i) => (locked[i] ? lock[name] : total ? (left * free[i]) / total : 0));
};

/** Each weight's share of the sum, and its text.
 * @param {any[]} raw weights, or what reads as a number */
export const shares = (raw) => {
  const total = raw.reduce((before, value) => before + Number(value), 0);
  return raw.map((value) => {
    const share = total > 0 ? value / total : 0;
    return { share, text: total > 0 ? `${Math.round(share * 100)}%` : "–" };
  });
};

/** Fader positions after a calculation set them: a locked fader stays.
 * @param {State} state @param {(number | undefined)[]} positions */
export const placed = ({ names, faders, lock }, positions) =>
  names.map((name, i) => (name in lock ? faders[i] : positions[i]));

/** Fader positions at which the free faders have the weights that they had while the i-th was locked. The others stay
 * where they are, as far as there is room above.
 * @param {string[]} names @param {number[]} faders @param {number[]} whole weights with the lock
 * @param {Record<string, number>} lock the locks that remain @param {number} i */
export const unlocked = (names, faders, whole, lock, i) => {
  const free = names.map((name) => !(name in lock));
  const others = names.map((_, j) => free[j] && j !== i);
  const moved = sum(faders.filter((_, j) => others[j]));
  const weighed = sum(whole.filter((_, j) => others[j]));
  const highest = Math.max(...whole.filter((_, j) => free[j]));
  if (!highest) return faders;
  const scale = Math.min(weighed ? moved / weighed : Infinity, 1 / highest);
  return faders.map((fader, j) => (free[j] ? Math.round(100 * scale * whole[j]) / 100 : fader));
};

/** Positions and channels after the i-th policy's Solo, Mute or Lock is pressed.
 * @param {"solo" | "mute" | "lock"} mark @param {number} i @param {State} state
 * @returns {{positions: number[], channels: Channels}} */
export const toggled = (mark, i, { names, faders, solo, mute, lock }) => {
  const name = names[i];
  const channels = { solo, mute, lock: { ...lock } };
  if (mark !== "lock") {
    const list = channels[mark];
    channels[mark] = list.includes(name) ? list.filter((other) => other !== name) : [...list, name];
    return { positions: faders, channels };
  }
  // Of all policies, heard or not: a fader may be locked before it is heard again.
  const whole = weights({ names, faders, solo: [], mute: [], lock });
  const total = sum(whole) || 1;
  if (!(name in lock)) {
    channels.lock[name] = Math.round((1e6 * whole[i]) / total) / 1e6;
    return { positions: faders, channels };
  }
  delete channels.lock[name];
  return { positions: unlocked(names, faders, whole, channels.lock, i), channels };
};
