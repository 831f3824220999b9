// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { placed, shares, stateOf, toggled, unlocked, weights } from "../../app/static/js/math/mixer.js";

const NAMES = ["a", "b", "c"];
/** @param {number[]} faders @param {object} [channels] */
const state = (faders, channels = {}) => ({ names: NAMES, faders, solo: [], mute: [], lock: {}, ...channels });

test("a mixture's state is of the policies in their order", () => {
  const faders = /** @type {any} */ ({ c: 0, a: "0.5", b: 1 });
  const channels = { solo: ["b"], lock: { a: 0.25 } };
  assert.deepEqual(stateOf(NAMES, { faders, channels }), state([0.5, 1, 0], { solo: ["b"], lock: { a: 0.25 } }));
  assert.deepEqual(stateOf(NAMES, { faders: { a: 1, b: 1, c: 1 }, channels: {} }), state([1, 1, 1]));
});

test("without channels the weights are the faders", () => {
  assert.deepEqual(weights(state([0.2, 0.4, 0])), [0.2, 0.4, 0]);
});

test("mute and solo silence, and mute wins over solo", () => {
  assert.deepEqual(weights(state([0.2, 0.4, 0.6], { mute: ["b"] })), [0.2, 0, 0.6]);
  assert.deepEqual(weights(state([0.2, 0.4, 0.6], { solo: ["b"] })), [0, 0.4, 0]);
  assert.deepEqual(weights(state([0.2, 0.4, 0.6], { solo: ["a", "b"], mute: ["b"] })), [0.2, 0, 0]);
});

test("a lock keeps its weight and the others share the rest", () => {
  // 1 - 0.5 is shared 1 : 3.
  assert.deepEqual(weights(state([0.9, 0.25, 0.75], { lock: { a: 0.5 } })), [0.5, 0.125, 0.375]);
  assert.deepEqual(weights(state([0.9, 0.25, 0.75], { lock: { a: 0.5 }, mute: ["a"] })), [0, 0.25, 0.75]);
  assert.deepEqual(weights(state([0.9, 0, 0], { lock: { a: 0.5 } })), [0.5, 0, 0]);
  // Locks above 1 together leave nothing.
  assert.deepEqual(weights(state([1, 1, 0.5], { lock: { a: 0.75, b: 0.5 } })), [0.75, 0.5, 0]);
});

test("shares are of the sum, and a sum of 0 has none", () => {
  assert.deepEqual(shares([1, 3]), [{ share: 0.25, text: "25%" }, { share: 0.75, text: "75%" }]);
  assert.deepEqual(shares([0, 0]), [{ share: 0, text: "–" }, { share: 0, text: "–" }]);
});

test("a calculation moves no locked fader", () => {
  assert.deepEqual(placed(state([0.9, 0.2, 0.2], { lock: { a: 0.5 } }), [0.1, 0.3, 0.4]), [0.9, 0.3, 0.4]);
});

test("solo and mute toggle", () => {
  const on = toggled("solo", 1, state([1, 1, 1], { solo: ["a"] }));
  assert.deepEqual(on, { positions: [1, 1, 1], channels: { solo: ["a", "b"], mute: [], lock: {} } });
  assert.deepEqual(toggled("solo", 0, state([1, 1, 1], { solo: ["a", "b"] })).channels.solo, ["b"]);
});

test("locking keeps the share that the fader has", () => {
  const { positions, channels } = toggled("lock", 2, state([0.2, 0.2, 0.4]));
  assert.deepEqual(positions, [0.2, 0.2, 0.4]);
  assert.deepEqual(channels.lock, { c: 0.5 });
});

test("unlocking changes no weight", () => {
  // a has 0.5; b and c share the rest 1 : 3 and stay at 0.2 and 0.6, so a goes to their sum.
  const { positions, channels } = toggled("lock", 0, state([0.1, 0.2, 0.6], { lock: { a: 0.5 } }));
  assert.deepEqual(channels.lock, {});
  assert.deepEqual(positions, [0.8, 0.2, 0.6]);
});

test("unlocking shrinks the others where there is no room above", () => {
  // a would have to go to 3 × (0.5 + 0.5): all are scaled until it is at 1.
  assert.deepEqual(unlocked(NAMES, [0, 0.5, 0.5], [0.75, 0.125, 0.125], {}, 0), [1, 0.17, 0.17]);
  assert.deepEqual(unlocked(NAMES, [0.3, 0, 0], [0, 0, 0], {}, 0), [0.3, 0, 0]);
});
