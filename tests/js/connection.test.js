// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { after, checks, told } from "../../app/static/js/math/connection.js";
import { chosen } from "../../app/static/js/math/state.js";

/** @typedef {import("../../app/static/js/math/connection.js").State} State */
/** @param {any[]} events @returns {State} */
const reached = (...events) => events.reduce(after, "up");

test("a request that fails alone is no outage", () => {
  assert.equal(reached("suspected"), "checking");
  assert.equal(reached("suspected", "answered"), "up");
  assert.equal(reached("silent"), "up"); // nobody asked
});

test("an outage lasts until the server answers", () => {
  assert.equal(reached("suspected", "silent", "silent", "suspected"), "lost");
  assert.equal(reached("suspected", "silent", "answered"), "back");
  assert.equal(reached("suspected", "silent", "answered", "used"), "up");
  assert.equal(reached("suspected", "silent", "answered", "suspected", "silent"), "lost");
});

test("another start of the server is final", () => {
  assert.equal(reached("suspected", "other", "answered", "silent", "suspected"), "restarted");
  assert.equal(reached("suspected", "silent", "other"), "restarted");
});

test("the server is asked in doubt alone", () => {
  /** @type {State[]} */
  const all = ["up", "checking", "lost", "back", "restarted"];
  assert.deepEqual(all.filter(checks), ["checking", "lost"]);
});

test("a check tells which start of the server answered", () => {
  assert.equal(told("lost", { mine: 1, found: undefined }), "silent");
  assert.equal(told("lost", { mine: 1, found: 1 }), "answered");
  assert.equal(told("checking", { mine: 1, found: 2 }), "other");
  // A desk that was closed while the server ran; one that is not loaded yet.
  assert.equal(told("checking", { mine: 1, found: null }), "answered");
  assert.equal(told("lost", { mine: 1, found: null }), "other");
});

test("a dropdown's label has a value, and where two have the same it stays", () => {
  /** @type {[string, any][]} */
  const choices = [["Faders", "faders"], ["helpful", "policy:helpful"], ["Faders", "policy:Faders"]];
  assert.equal(chosen(choices, "faders", "helpful"), "policy:helpful");
  assert.equal(chosen(choices, "policy:Faders", "Faders"), "policy:Faders");
  assert.equal(chosen(choices, "policy:helpful", "Faders"), "faders");
  assert.equal(chosen(choices, "faders", ""), "faders");
});
