// @ts-check
// The annotator's page: asks the server for the phase and for one pair at a time, and sends each answer before the next.
import * as dialogs from "./dialogs.js";
import { announce, byId, isTyping, show, storageOf } from "./dom.js";
import * as joining from "./joining.js";
import * as pair from "./pair.js";
import { fillGuidelines, showGuidelines, showJoin, showNotice, showScreen } from "./screens.js";
import * as server from "./server.js";
import { choose, goTo, isComplete, newSheet } from "./state/answers.js";
import { Clock } from "./state/clock.js";
import { actionOf } from "./state/keys.js";
import { Outbox } from "./state/outbox.js";
import { barOf, pairTitle, progressLine } from "./state/words.js";
import { flash, showSaved } from "./status.js";

/** @typedef {import("./state/answers.js").Choice} Choice */
const KEY = `mixdesk-annotate:${location.pathname.replace(/\/+$/, "")}`;
const GUARD = 350; // ms after a new pair in which no answer is taken: the second half of a double press
const LOOK_AGAIN = 30_000; // ms
const KEPT = "Your answer is kept in this browser, and is sent again until it is saved.";
const KEPT_COMMENT = "Your comment is sent again until it is saved.";
const RELEASED = "Your answers are saved. The page goes on when it is back.";

const outbox = new Outbox(storageOf("localStorage"), KEY);
const clock = new Clock(() => performance.now());
const state = {
  study: /** @type {any} */ (null),
  progress: /** @type {any} */ (null),
  assignment: /** @type {any} */ (null),
  sheet: newSheet([]),
  busy: false,
  feedback: false,
  shownAt: 0,
  go: () => {}, // what comes after the feedback
};
let look = 0; // the timer that looks whether a paused study goes on

/** The clock runs only while a pair can be looked at and answered. */
const tick = () => {
  const looking = document.visibilityState === "visible" && document.body.dataset.screen === "pair";
  if (looking && state.assignment && !state.busy && !state.feedback && !dialogs.isOpen()) clock.run();
  else clock.stop();
};

/** What is chosen so far, for a reload. */
const keepDraft = () => {
  if (!state.assignment) return;
  const draft = { id: state.assignment.id, seconds: clock.seconds, sheet: state.sheet };
  try { storageOf("sessionStorage")?.setItem(KEY, JSON.stringify(draft)); } catch { /* full: a reload forgets it */ }
};

const readDraft = () => {
  try { return JSON.parse(storageOf("sessionStorage")?.getItem(KEY) ?? "null"); } catch { return null; }
};

/** Run one step at a time; the page has `data-ready` while it takes an answer. @param {() => Promise<void>} step */
const busily = async (step) => {
  if (state.busy) return;
  state.busy = true;
  document.body.toggleAttribute("data-busy", true);
  delete document.body.dataset.ready;
  tick();
  try {
    await step();
  } catch (error) {
    if (!(error instanceof server.Refused)) throw error;
    showNotice({
      title: error.status === 429 ? "Too many attempts" : "This did not work",
      text: error.message,
      primary: ["Try again", begin],
    });
  } finally {
    state.busy = false;
    document.body.toggleAttribute("data-busy", false);
    setTimeout(() => { if (open()) document.body.dataset.ready = "true"; }, Math.max(0, state.shownAt + GUARD - performance.now()) + 1);
    tick();
  }
};

/** @param {any} progress @param {boolean} training */
const showProgress = (progress, training) => {
  state.progress = progress;
  byId("count").textContent = progressLine(progress, training);
  const bar = barOf(progress, training);
  show("bar", Boolean(bar));
  if (bar) [byId("bar").value, byId("bar").max] = [bar[0], bar[1]];
};

/** Show what a state of the server asks for. @param {any} answer */
const enter = async (answer) => {
  const { phase, study, progress, annotator } = answer;
  clearTimeout(look);
  state.study = study;
  state.assignment = null;
  byId("study").textContent = study.name;
  byId("study").title = annotator?.name ? `${study.name}, as ${annotator.name}` : study.name;
  pair.prepare(study, goToQuestion);
  fillGuidelines(study);
  dialogs.listKeys(study.choices, study.questions.length);
  showProgress(progress, phase === "training");
  const working = phase === "training" || phase === "work";
  show("standing", working || (phase === "done" && progress.answered > 0));
  for (const id of ["open-guidelines", "open-keys", "pause"]) show(id, working);
  if (phase === "join") return showJoin(answer, Boolean(joining.secret()));
  if (phase === "guidelines") return showGuidelines(answer);
  if (working) return receive(await server.ask("next", {}, { waiting: RELEASED }));
  return showEnd(phase);
};

/** The study has no pair for this person, now or for good. @param {string} phase */
const showEnd = (phase) => {
  const { answered } = state.progress;
  show("pause", false);
  if (phase === "done") {
    showNotice({
      title: "Thank you, that was all.",
      text: "Every answer is saved. You can close this page.",
      secondary: answered ? ["Change my last answer", undo] : undefined,
      other: ["Look for more pairs", begin],
    });
  } else if (phase === "failed") {
    showNotice({ title: "The training was not passed", text: "Thank you for your time. There are no pairs for you in this study." });
  } else if (phase === "paused") {
    showNotice({
      title: "The study is paused",
      text: "Your place is kept. This page goes on by itself when the study is open again.",
      primary: ["Look again", begin],
    });
    look = window.setTimeout(begin, LOOK_AGAIN);
  } else {
    showNotice({ title: "The study is closed", text: "Thank you for taking part. Your answers are saved." });
  }
};

/** Take what `next`, `skip`, `flag` and `undo` answer. @param {{phase: string, progress: any, assignment: any}} answer */
const receive = async ({ phase, progress, assignment }) => {
  if (!assignment) {
    if (phase === "training" || phase === "work") return showEnd("done");
    return enter(await server.ask("state", {}, { waiting: RELEASED }));
  }
  const { training } = assignment;
  showProgress(progress, training);
  for (const id of ["standing", "open-guidelines", "open-keys", "pause"]) show(id, true);
  const draft = readDraft();
  const kept = draft?.id === assignment.id && JSON.stringify(draft.sheet.keys) === JSON.stringify(keysOf());
  const undone = Object.keys(assignment.answers ?? {}).length > 0;
  state.assignment = assignment;
  state.sheet = kept && !undone ? draft.sheet : newSheet(keysOf(), assignment.answers ?? {});
  clock.begin(kept && !undone ? draft.seconds : 0);
  setFeedback(null);
  // No tools in the training: its pairs are the same for everybody.
  for (const id of ["undo", "skip", "flag"]) byId(id).disabled = training;
  pair.showSheet(state.sheet);
  pair.showFlag(assignment.flagged);
  showScreen("pair");
  pair.showPair(assignment, pairTitle(progress, training));
  state.shownAt = performance.now();
  keepDraft();
};

const keysOf = () => state.study.questions.map(({ key }) => key);

/** @param {any} feedback */
const setFeedback = (feedback) => {
  state.feedback = Boolean(feedback);
  pair.showFeedback(feedback);
};

/** Whether the pair can be answered now. */
const open = () =>
  document.body.dataset.screen === "pair" && !state.busy && !state.feedback && performance.now() - state.shownAt >= GUARD;

/** @param {Choice} choice */
const answer = (choice) => {
  if (!open() || !state.study.choices.includes(choice)) return;
  state.sheet = choose(state.sheet, choice);
  pair.showSheet(state.sheet);
  keepDraft();
  if (state.sheet.keys.length === 1) send();
  else announce(isComplete(state.sheet) ? "All questions are answered. Enter sends." : state.study.questions[state.sheet.at].text);
};

/** @param {number} index of a question */
const goToQuestion = (index) => {
  if (!open()) return;
  state.sheet = goTo(state.sheet, index);
  pair.showSheet(state.sheet);
  announce(state.study.questions[state.sheet.at].text);
};

/** Send the answers; the next pair comes when they are stored. */
const send = () => {
  if (!open()) return;
  if (!isComplete(state.sheet)) {
    if (state.sheet.keys.length > 1) flash("Answer every question first.");
    return;
  }
  clock.stop();
  const { assignment, sheet } = state;
  outbox.put({ assignment: assignment.id, answers: sheet.answers, seconds: clock.seconds });
  busily(async () => {
    const before = state.progress.training.attempt;
    const stored = await deliver();
    if (!stored) return receive(await server.ask("next", {}, { waiting: RELEASED }));
    showProgress(assignment.training ? duringFeedback(stored, before) : stored.progress, assignment.training);
    const go = () => proceed(stored, assignment.training, before);
    if (!stored.feedback) return go();
    setFeedback(stored.feedback);
    state.shownAt = performance.now();
    state.go = () => { if (performance.now() - state.shownAt >= GUARD) busily(go); };
  });
};

/** The progress of a training whose last answer was just given: the next attempt begins after its feedback.
 * @param {any} stored @param {number} attempt */
const duringFeedback = ({ phase, progress }, attempt) => {
  const over = phase !== "training" || progress.training.attempt > attempt;
  return over ? { ...progress, training: { ...progress.training, done: progress.training.total, attempt } } : progress;
};

/** Go on after an answer. @param {any} stored what the server says @param {boolean} training @param {number} attempt */
const proceed = async ({ phase, progress }, training, attempt) => {
  const next = async () => receive(await server.ask("next", {}, { waiting: RELEASED }));
  const resume = /** @type {import("./screens.js").Button} */ (["Go on", () => busily(next)]);
  if (training && phase === "work") {
    state.assignment = null;
    showProgress(progress, false);
    return showNotice({ title: "Training passed", text: "Now the pairs of the study follow. From here on you are not told whether an answer is right.", primary: resume });
  }
  if (phase === "training" && progress.training.attempt > attempt) {
    state.assignment = null;
    showProgress(progress, true);
    return showNotice({
      title: "Once more",
      text: "Too few answers of the training were right. Read the guidelines again, then try a second time: it is the last attempt.",
      primary: resume,
      secondary: ["Read the guidelines", () => dialogs.open("reading")],
    });
  }
  if (phase === "training" || phase === "work") return next();
  return enter(await server.ask("state", {}, { waiting: RELEASED }));
};

/** Send what the outbox holds until it is stored; null if the server refuses it. */
const deliver = async () => {
  try {
    const stored = await server.ask("answer", outbox.get(), { waiting: KEPT });
    outbox.clear();
    showSaved();
    return stored;
  } catch (error) {
    if (!(error instanceof server.Refused)) throw error;
    outbox.clear();
    // Without a seat in the study nothing else will work either.
    if (error.status === 401 || error.status === 403) throw error;
    flash(error.message);
    return null;
  }
};

const undo = () => busily(async () => {
  if (state.assignment?.training) return;
  try {
    keepDraft();
    await receive(await server.ask("undo", {}, { waiting: RELEASED }));
  } catch (error) {
    if (!(error instanceof server.Refused) || error.status === 401 || error.status === 403) throw error;
    flash(error.message);
  }
});

const skip = () => {
  if (!open() || state.assignment.training) return;
  busily(async () => {
    const reply = await server.ask("skip", { assignment: state.assignment.id }, { waiting: RELEASED });
    flash("Skipped.");
    await receive(reply);
  });
};

const flag = () => {
  if (!open() || state.assignment.training) return;
  dialogs.askComment(state.assignment, (comment) => busily(async () => {
    const { id } = state.assignment;
    const reply = await server.ask("flag", { assignment: id, comment }, { waiting: KEPT_COMMENT });
    // The pair stays as it is, with what is chosen, unless its lease has ended meanwhile.
    if (reply.assignment?.id !== id) return receive(reply);
    state.assignment = reply.assignment;
    pair.showFlag(true);
    showSaved();
  }));
  tick();
};

/** Stop for a while: the pair stays the annotator's as long as its lease lasts. */
const pause = () => {
  if (document.body.dataset.screen !== "pair" || state.busy) return;
  if (state.feedback) return;
  delete document.body.dataset.ready;
  keepDraft();
  show("pause", false);
  showNotice({
    title: "Paused",
    text: "Your place is kept. You can close this page and come back by the same link.",
    primary: ["Go on", () => busily(async () => receive(await server.ask("next", {}, { waiting: RELEASED })))],
  });
  tick();
};

/** @type {Record<string, () => void>} */
const ACTIONS = {
  ...Object.fromEntries(/** @type {Choice[]} */ (["left", "right", "tie", "both_bad"]).map((choice) => [choice, () => answer(choice)])),
  send,
  back: () => goToQuestion(state.sheet.at - 1),
  undo: () => { if (open()) undo(); },
  skip,
  flag,
  pause,
  guidelines: () => { if (!byId("open-guidelines").hidden) { dialogs.open("reading"); tick(); } },
  keys: () => { if (!byId("open-keys").hidden) { dialogs.open("keys"); tick(); } },
};

/** @param {KeyboardEvent} event */
const onKey = (event) => {
  const action = actionOf(event);
  const target = /** @type {any} */ (event.target);
  if (!action || dialogs.isOpen() || isTyping(target)) return;
  // A button or a link that has the focus is pressed by Enter itself.
  if (action === "send" && target.closest("button, a[href]")) return;
  if (document.body.dataset.screen === "pair") {
    event.preventDefault();
    if (state.feedback && action === "send") state.go();
    else ACTIONS[action]();
  } else if (document.body.dataset.screen === "notice") {
    if (action === "send" && !byId("notice-primary").hidden) byId("notice-primary").click();
    if (action === "guidelines" || action === "keys") ACTIONS[action]();
  }
};

/** Ask where the annotator is, after what was not sent yet. */
const begin = () => busily(async () => {
  clearTimeout(look);
  if (outbox.get()) await deliver();
  const known = await server.ask("state");
  if (!known.annotator || !joining.secret()) return enter(known);
  try {
    return enter(await joining.takeUp());
  } catch (error) {
    if (!(error instanceof server.Refused) || error.status === 429) throw error;
    return showNotice({ title: "This invitation does not work", text: error.message, primary: ["Go on without it", begin] });
  }
});

const listen = () => {
  server.listen();
  pair.listen();
  dialogs.listen(tick);
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", () => { tick(); keepDraft(); });
  window.addEventListener("pagehide", () => { clock.stop(); keepDraft(); });
  window.addEventListener("pageshow", tick);
  window.addEventListener("hashchange", () => { if (["join", "notice"].includes(document.body.dataset.screen)) location.reload(); });
  joining.listen((join) => busily(async () => {
    const answer = await join();
    if (answer) await enter(answer);
  }));
  byId("begin-button").addEventListener("click", () => busily(async () => enter(await server.ask("read"))));
  byId("continue").addEventListener("click", () => state.go());
  byId("send").addEventListener("click", send);
  for (const button of document.querySelectorAll(".choice")) button.addEventListener("click", () => answer(button.dataset.choice));
  for (const id of ["undo", "skip", "flag", "pause"]) byId(id).addEventListener("click", () => ACTIONS[id]());
  byId("open-guidelines").addEventListener("click", ACTIONS.guidelines);
  byId("open-keys").addEventListener("click", ACTIONS.keys);
};

listen();
begin();
