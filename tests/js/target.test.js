// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { faderPositions, polygonCorners } from "../../app/static/js/math/figures.js";
import { clamp, goalOf, polarScale, samePositions } from "../../app/static/js/math/target.js";

/** @param {number[]} actual @param {number[]} expected */
const near = (actual, expected) => {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) => assert.ok(Math.abs(value - expected[i]) < 1e-9, `${actual} is not ${expected}`));
};

test("a goal stays within reach, in hundredths", () => {
  assert.equal(clamp(4, 3), 3);
  assert.equal(clamp(-4, 3), -3);
  assert.equal(goalOf(1.23456, 3), 1.23);
  assert.equal(goalOf(-7, 3), -3);
});

test("positions are the same within what a fader can show", () => {
  assert.ok(samePositions([0.5, 1], [0.505, 1]));
  assert.ok(!samePositions([0.5, 1], [0.51, 1]));
  assert.ok(!samePositions([0.5], [0.5, 1]));
});

test("standard deviations become pixels along each axis", () => {
  // 60 px from -3 to +3: 10 px each; 90° is up, where y is smaller.
  const scale = polarScale({ center: [100, 200], radius: 60, range: [-3, 3], angles: [0, 90, 180] });
  near(scale.point(0, -3), [100, 200]);
  near(scale.point(0, 0), [130, 200]);
  near(scale.point(1, 3), [100, 140]);
  near(scale.point(2, 1), [60, 200]);
  near(scale.end(1), [100, 140]);
});

test("a pixel beside an axis counts by its projection", () => {
  const scale = polarScale({ center: [100, 200], radius: 60, range: [-3, 3], angles: [0, 90] });
  assert.equal(scale.value(0, 130, 250), 0);
  near([scale.value(1, 500, 140)], [3]);
  near([scale.value(0, 90, 200)], [-4]);
});

test("points and values are each other's inverse at any angle", () => {
  const scale = polarScale({ center: [13, 47], radius: 91, range: [-3, 3], angles: [18, 162, 234, 306] });
  for (let i = 0; i < 4; i += 1) {
    for (const value of [-3, -0.4, 0, 2.7]) {
      const [x, y] = scale.point(i, value);
      near([scale.value(i, x, y)], [value]);
    }
  }
});

test("a polygon's corners are where plotly draws them", () => {
  const plot = { center: /** @type {[number, number]} */ ([50, 50]), radius: 30, range: /** @type {[number, number]} */ ([-3, 3]) };
  assert.deepEqual(polygonCorners({ r: [3, -3, 0], theta: [0, 120, 270] }, plot), ["80.00,50.00", "50.00,50.00", "50.00,65.00"]);
});

test("the largest weight of a chosen point is at the top", () => {
  assert.deepEqual(faderPositions([0.5, 0.25, 0.25, 0]), [1, 0.5, 0.5, 0]);
  assert.deepEqual(faderPositions([2 / 3, 1 / 3]), [1, 0.5]);
});
