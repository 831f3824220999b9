// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { ALL, LOWEST, barSpan, difference, nextSort, score, selectRows, signed } from "../../app/static/js/math/comparison.js";

const OBJECTIVES = ["kind", "short"];
const ROWS = [
  { place: 0, prompt: "Boil an egg", texts: ["In water.", "Ask a cook."], rewards: [[1, -1], [0.5, 2]] },
  { place: 1, prompt: "apple pie", texts: ["Bake it.", "With Cinnamon."], rewards: [[0.2, 0.4], [2, 0.3]] },
  { place: 2, prompt: "Cold tea", texts: ["Wait.", ""], rewards: [[3, 3], null] },
];
const VIEW = { search: "", reward: ALL, filter: "", sort: /** @type {number | string | null} */ (null), down: true, limit: 50 };
/** @param {object} changes */
const places = (changes) => selectRows(ROWS, { ...VIEW, ...changes }, OBJECTIVES).map(({ place }) => place);

test("a cell's score is the chosen reward, otherwise the lowest", () => {
  assert.equal(score([1, -1], OBJECTIVES, ALL), -1);
  assert.equal(score([1, -1], OBJECTIVES, LOWEST), -1);
  assert.equal(score([1, -1], OBJECTIVES, "kind"), 1);
  assert.equal(score([1, null], OBJECTIVES, "kind"), 1);
  assert.equal(score([1, null], OBJECTIVES, ALL), null);
  assert.equal(score(null, OBJECTIVES, ALL), null);
  assert.equal(score([], OBJECTIVES, ALL), null);
});

test("a difference below a hundredth's half is none", () => {
  assert.deepEqual(difference(1.5, 1), { kind: "up", text: "▲ +0.50" });
  assert.deepEqual(difference(0, 1.25), { kind: "down", text: "▼ −1.25" });
  assert.deepEqual(difference(1.004, 1), { kind: "same", text: "= +0.00" });
  assert.deepEqual(difference(0.996, 1), { kind: "same", text: "= +0.00" });
  assert.equal(difference(null, 1), null);
  assert.equal(signed(-0.004), "+0.00");
  assert.equal(signed(-0.006), "−0.01");
});

test("bars go from the middle to 3 standard deviations", () => {
  assert.deepEqual(barSpan(1.5), { left: 0.5, width: 0.25 });
  assert.deepEqual(barSpan(-3), { left: 0, width: 0.5 });
  assert.deepEqual(barSpan(-9), { left: 0, width: 0.5 });
});

test("the search looks into prompts and responses, whatever their case", () => {
  assert.deepEqual(places({ search: " EGG " }), [0]);
  assert.deepEqual(places({ search: "cinnamon" }), [1]);
  assert.deepEqual(places({ search: "nothing" }), []);
});

test("the filter keeps the prompts where one mixture beats another", () => {
  assert.deepEqual(places({ filter: "1>0" }), [0, 1]); // by the lowest: 0.5 > -1, 0.3 > 0.2
  assert.deepEqual(places({ filter: "0>1", reward: "short" }), [1]); // 0.4 > 0.3
});

test("rows are sorted by a column, those without a number last", () => {
  assert.deepEqual(places({ sort: 0 }), [2, 1, 0]);
  assert.deepEqual(places({ sort: 0, down: false }), [0, 1, 2]);
  assert.deepEqual(places({ sort: 1 }), [0, 1, 2]);
  assert.deepEqual(places({ sort: 1, down: false }), [1, 0, 2]);
  assert.deepEqual(places({ sort: "prompt", down: false }), [1, 0, 2]);
});

test("a column is sorted down, up, and not", () => {
  let view = { sort: /** @type {number | string | null} */ (null), down: true };
  view = nextSort(view, 0);
  assert.deepEqual(view, { sort: 0, down: true });
  view = nextSort(view, 0);
  assert.deepEqual(view, { sort: 0, down: false });
  assert.equal(nextSort(view, 0).sort, null);
  assert.deepEqual(nextSort(view, "prompt"), { sort: "prompt", down: false });
});
