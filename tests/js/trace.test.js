// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { megabytes, probability, rate, signed } from "../../app/static/js/math/format.js";
import { chartLines, strongest } from "../../app/static/js/math/trace.js";

test("a token has the colour of the policy that pushed it most, if any did", () => {
  assert.equal(strongest([0.04, -2]), null);
  assert.deepEqual(strongest([0.3, 1.5]), { policy: 1, depth: 31 }); // 6 + 49 / 2 = 30.5
  assert.deepEqual(strongest([7, 1]), { policy: 0, depth: 55 });
});

test("running sums fill their box from the left", () => {
  // From -1 to 1 over 36 px: 0 is at 20; 24 steps are the whole width.
  const { zero, lines } = chartLines([[0, 1], [0, -1]]);
  assert.equal(zero, "0,20.00 100,20.00");
  assert.deepEqual(lines, ["0.00,20.00 4.17,2.00", "0.00,20.00 4.17,38.00"]);
  assert.deepEqual(chartLines([[0, 3, 1]]).lines, ["0.00,29.00 4.17,2.00 8.33,20.00"]);
  assert.deepEqual(chartLines([]).lines, []);
});

test("numbers as text", () => {
  assert.equal(signed(-0.25), "−0.3");
  assert.equal(signed(1.234, 2), "+1.23");
  assert.deepEqual([null, 0.5, 0.0995, 0.0994, 0].map(probability), ["–", "50%", "10%", "9.9%", "0.0%"]);
  assert.deepEqual([1_234_000_000, 5_400_000].map(megabytes), ["1.23 GB", "5 MB"]);
  assert.deepEqual([0, 1_230_000, 12_300_000].map(rate), ["", ", 1.2 MB/s", ", 12 MB/s"]);
});
