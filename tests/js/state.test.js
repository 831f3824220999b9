// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { deskState, fromValues, toValues, withValue } from "../../app/static/js/math/state.js";

// "2" comes before "b" among an object's keys, and a policy may have the name of a field, or of an object's prototype.
const FADERS = ["b", "2", "channels", "__proto__"].map((name) => ["faders", name]);
const PATHS = [...FADERS, ["channels"], ["rule"], ["gain"], ["exponent"]];
const VALUES = [0.5, 1, 0.25, 0, '{"solo":["b"]}', "power", 1, -0.5];

test("the components' values become a state, and the state the values", () => {
  const state = fromValues(PATHS, VALUES);
  assert.deepEqual(state.channels, { solo: ["b"] });
  assert.deepEqual(Object.entries(state.faders).sort(), [["2", 1], ["__proto__", 0], ["b", 0.5], ["channels", 0.25]]);
  assert.deepEqual(toValues(PATHS, state), VALUES);
  assert.equal(JSON.stringify(fromValues(PATHS, toValues(PATHS, state))), JSON.stringify(state));
});

test("an empty text of channels or turns is none", () => {
  assert.deepEqual(fromValues([["channels"], ["turns"]], ["", null]), { channels: {}, turns: [] });
});

test("one value changes and the rest stays", () => {
  const state = fromValues(PATHS, VALUES);
  const louder = withValue(state, ["faders", "channels"], 1);
  assert.deepEqual(toValues(PATHS, louder), [0.5, 1, 1, ...VALUES.slice(3)]);
  assert.deepEqual(withValue(state, ["channels"], '{"mute":["2"]}').channels, { mute: ["2"] });
  assert.equal(state.faders.channels, 0.25);
});

test("the desk's state has the open panels alone", () => {
  const paths = [["prompt"], ["turns"], ["mixture", "gain"], ["panels", "left"], ["panels", "right"], ["panels", "third"], ["open"], ["seed"], ["new_seed"]];
  const values = [null, '[{"role":"user","content":"a"}]', 2, "faders", "reference", "exact", "left,third", "7", true];
  assert.deepEqual(deskState(paths, values), {
    prompt: "", turns: [{ role: "user", content: "a" }], mixture: { gain: 2 }, panels: { left: "faders", third: "exact" },
    stop: "", seed: "7", new_seed: true,
  });
});
