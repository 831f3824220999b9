// @ts-check
// The annotators' page, apart from the page: answers, keys, the clock, what is sent again, and what it says.
import assert from "node:assert/strict";
import { test } from "node:test";

import { choose, goTo, isComplete, newSheet } from "../../app/static/annotate/state/answers.js";
import { Clock } from "../../app/static/annotate/state/clock.js";
import { verdictOf, waitBefore } from "../../app/static/annotate/state/delivery.js";
import { actionOf, KEYS, keysFor } from "../../app/static/annotate/state/keys.js";
import { Outbox } from "../../app/static/annotate/state/outbox.js";
import { barOf, count, pairTitle, progressLine } from "../../app/static/annotate/state/words.js";

test("one question is complete with one answer", () => {
  const sheet = newSheet(["overall"]);
  assert.equal(isComplete(sheet), false);
  assert.deepEqual(choose(sheet, "tie"), { keys: ["overall"], answers: { overall: "tie" }, at: 0 });
  assert.equal(isComplete(choose(sheet, "tie")), true);
});

test("after an answer the next question without one is asked", () => {
  let sheet = newSheet(["overall", "kind", "short"]);
  sheet = choose(goTo(sheet, 1), "right");
  assert.equal(sheet.at, 2);
  sheet = choose(sheet, "left");
  assert.equal(sheet.at, 0); // around the end
  assert.equal(isComplete(sheet), false);
  sheet = choose(sheet, "both_bad");
  assert.equal(sheet.at, 0); // nothing is open: it stays, so that another key corrects it
  assert.deepEqual(sheet.answers, { kind: "right", short: "left", overall: "both_bad" });
  assert.equal(choose(sheet, "left").answers.overall, "left");
});

test("a sheet is not changed in place, and no question is beyond its ends", () => {
  const sheet = newSheet(["overall", "kind"]);
  choose(sheet, "left");
  assert.deepEqual(sheet.answers, {});
  assert.deepEqual([goTo(sheet, -1).at, goTo(sheet, 7).at], [0, 1]);
});

test("answers that were undone are there again, but only to this study's questions", () => {
  const sheet = newSheet(["overall", "toString"], /** @type {any} */ ({ overall: "left", gone: "tie" }));
  assert.deepEqual(sheet.answers, { overall: "left" });
  assert.equal(isComplete(sheet), false);
});

test("each key does one thing, once, and none together with Ctrl", () => {
  const all = KEYS.flatMap(({ keys }) => keys);
  assert.equal(new Set(all).size, all.length);
  const actions = ["ArrowLeft", "1", "ArrowRight", "2", "ArrowUp", "3", "ArrowDown", "4", "S", "f", "u", "Enter", "?"]
    .map((key) => actionOf({ key }));
  assert.deepEqual(actions, ["left", "left", "right", "right", "tie", "tie", "both_bad", "both_bad", "skip", "flag", "undo", "send", "keys"]);
  assert.equal(actionOf({ key: "x" }), "");
  for (const held of ["repeat", "isComposing", "ctrlKey", "metaKey", "altKey"]) {
    assert.equal(actionOf({ key: "1", [held]: true }), "", held);
  }
});

test("the list of keys has no choice that the study does not allow", () => {
  const actions = (...given) => /** @type {any} */ (keysFor)(...given).map(({ action }) => action);
  assert.ok(!actions(["left", "right"], 1).some((action) => ["tie", "both_bad", "send", "back"].includes(action)));
  assert.deepEqual(actions(["left", "right", "tie", "both_bad"], 2), KEYS.map(({ action }) => action));
});

test("the clock counts only while it runs", () => {
  let now = 50_000;
  const clock = new Clock(() => now);
  clock.begin();
  now += 1000;
  assert.equal(clock.seconds, 0);
  clock.run();
  now += 1500;
  clock.run(); // it runs already
  now += 500;
  assert.equal(clock.seconds, 2);
  clock.stop();
  now += 60_000; // hidden
  clock.stop();
  assert.equal(clock.seconds, 2);
  clock.run();
  now += 250;
  assert.equal(clock.seconds, 2.25);
  clock.begin(3.5); // another pair, looked at before a reload
  now += 100;
  assert.equal(clock.seconds, 3.5);
});

test("an answer is sent again where the server is away, not where it refuses", () => {
  for (const status of [0, 408, 425, 429, 500, 502, 503, 504]) assert.equal(verdictOf(status), "again", `${status}`);
  for (const status of [400, 401, 403, 404, 409, 413, 422]) assert.equal(verdictOf(status), "refused", `${status}`);
  assert.equal(verdictOf(200), "done");
  assert.equal(verdictOf(429, false), "refused");
});

test("waits grow to an end, and heed what the server asks", () => {
  assert.deepEqual([1, 2, 3, 4, 5, 6, 99].map((failures) => waitBefore(failures)), [1000, 2000, 4000, 8000, 15000, 15000, 15000]);
  assert.equal(waitBefore(1, "5"), 5000);
  assert.equal(waitBefore(1, "60"), 15_000);
  assert.equal(waitBefore(1, "Fri, 27 Nov 2026 12:00:00 GMT"), 1000);
});

/** @param {Record<string, string>} kept */
const storage = (kept = {}) => ({
  getItem: (key) => kept[key] ?? null,
  setItem: (key, value) => { kept[key] = value; },
  removeItem: (key) => { delete kept[key]; },
});
const ANSWER = { assignment: "a1", answers: { overall: "left" }, seconds: 2 };

test("an answer outlives the page until it is stored", () => {
  const kept = storage();
  new Outbox(kept, "study").put(ANSWER);
  assert.equal(new Outbox(kept, "other").get(), null);
  const outbox = new Outbox(kept, "study");
  assert.deepEqual(outbox.get(), ANSWER);
  outbox.clear();
  assert.equal(outbox.get(), null);
  assert.equal(new Outbox(kept, "study").get(), null);
});

test("without a storage, or with a full one, an answer is kept while the page is open", () => {
  const full = { ...storage(), setItem: () => { throw new Error("full"); } };
  for (const outbox of [new Outbox(null, "study"), new Outbox(full, "study")]) {
    outbox.put(ANSWER);
    assert.deepEqual(outbox.get(), ANSWER);
    outbox.clear();
    assert.equal(outbox.get(), null);
  }
});

test("what is no answer is not sent", () => {
  for (const text of ["{", "1", "null", "{}", '{"assignment": 1, "answers": {}}']) {
    assert.equal(new Outbox(storage({ study: text }), "study").get(), null, text);
  }
});

const TRAINING = { done: 2, total: 5, attempt: 1 };

test("the progress, as it is shown and read out", () => {
  const progress = { answered: 12, total: 60, training: TRAINING };
  assert.equal(progressLine(progress, false), "12 of 60");
  assert.equal(pairTitle(progress, false), "Pair 13 of 60");
  assert.deepEqual(barOf(progress, false), [12, 60]);
  assert.equal(progressLine(progress, true), "Training: 2 of 5");
  assert.equal(progressLine({ ...progress, training: { ...TRAINING, attempt: 2 } }, true), "Training: 2 of 5, second attempt");
  assert.equal(pairTitle(progress, true), "Training pair 3 of 5");
  assert.deepEqual(barOf(progress, true), [2, 5]);
});

test("a study without an end has no bar", () => {
  const progress = { answered: 12, total: null, training: TRAINING };
  assert.equal(progressLine(progress, false), "12 rated");
  assert.equal(pairTitle(progress, false), "Pair 13");
  assert.equal(barOf(progress, false), null);
});

test("nothing is beyond its end, as after an undo", () => {
  const progress = { answered: 60, total: 60, training: { done: 5, total: 5, attempt: 1 } };
  assert.equal(pairTitle(progress, false), "Pair 60 of 60");
  assert.equal(pairTitle(progress, true), "Training pair 5 of 5");
  assert.deepEqual(barOf({ ...progress, total: 0 }, false), [0, 1]);
  assert.deepEqual([count(1, "pair"), count(2, "pair")], ["1 pair", "2 pairs"]);
});
