// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { cellText, matrixOf, nextCell } from "../../app/static/js/math/matrix.js";

const CELLS = matrixOf(4, [[0, 1, 3, 1, 2], [1, 3, 0, 2, 0]]);

test("a cell below the diagonal is the one above it from the other side", () => {
  assert.deepEqual(CELLS[0][1], { wins: 3, ties: 1, losses: 2 });
  assert.deepEqual(CELLS[1][0], { wins: 2, ties: 1, losses: 3 });
  assert.equal(CELLS[0][2], null);
  assert.equal(CELLS[2][2], null);
});

test("a tie is half a win", () => {
  const { rate, met, label } = cellText(["Ada", "Bo"], 0, 1, { wins: 3, ties: 1, losses: 0 });
  assert.equal(rate, 3.5 / 4);
  assert.equal(met, 4);
  assert.equal(label, "Ada against Bo: 88%, 3 wins, 1 tie, 0 losses");
});

test("arrows go to the next cell that has votes", () => {
  assert.deepEqual(nextCell(CELLS, [1, 0], "ArrowRight"), [1, 3]);
  assert.deepEqual(nextCell(CELLS, [1, 3], "ArrowLeft"), [1, 0]);
  assert.deepEqual(nextCell(CELLS, [0, 1], "ArrowDown"), [3, 1]);
  assert.equal(nextCell(CELLS, [0, 1], "ArrowUp"), null);
  assert.equal(nextCell(CELLS, [0, 1], "ArrowRight"), null);
  assert.equal(nextCell(CELLS, [0, 1], "Enter"), null);
});

test("Home and End go to the ends of the row", () => {
  assert.deepEqual(nextCell(CELLS, [1, 3], "Home"), [1, 0]);
  assert.deepEqual(nextCell(CELLS, [1, 0], "End"), [1, 3]);
});
