// @ts-check
// What follows the faders: the text still to come, the expected rewards, the drawer. app/server/steer.py answers, of what is
// asked always the newest; not as an event of Gradio's, whose page copies the state of its components at each.
import { suspect } from "./connection.js";
import * as status from "./status.js";
import { run } from "./text.js";

const FAILED = '<span class="message bad">The faders were not heard: the server cannot be reached. Move one again.</span>';
const GAP = 30; // ms from one question to the next: of a fader that is dragged every second frame of the screen
const PATIENCE = 15_000; // ms that an answer may take
const UNDERWAY = 3; // questions at most: who waits for each answer steers no faster than the network and the page
let begun = false, last = null, newest = null;
let turn = 0, drawn = 0, underway = 0, asked = -Infinity, timer = /** @type {any} */ (0);

/** @param {import("./math/state.js").MixtureState} mixture */
const note = (mixture) => {
  last = newest = mixture;
  ask();
};
const put = async (question) => {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("steer", {
    method: "POST", headers, body: JSON.stringify(question), signal: AbortSignal.timeout(PATIENCE),
  });
  if (!response.ok) throw new Error(response.statusText);
  return response.json();
};
const ask = async () => {
  clearTimeout(timer);
  if (!newest || !begun || underway >= UNDERWAY) return;
  const early = asked + GAP - performance.now();
  if (early > 0) {
    timer = setTimeout(ask, early);
    return;
  }
  const mine = (turn += 1), mixture = newest;
  [newest, asked] = [null, performance.now()];
  underway += 1;
  try {
    const answer = await put({ run: run(), turn: mine, mixture }).catch(() => {
      suspect();
      return { said: FAILED };
    });
    if (mine > drawn) show(mine, answer);
  } finally {
    underway -= 1;
    ask();
  }
};
const show = (mine, { expected, drawer, said }) => {
  drawn = mine;
  if (expected) steer.expected(expected);
  if (drawer !== undefined) steer.drawer(drawer);
  if (said) status.say(said);
};

// expected and drawer: handed in by what shows them
/** @type {Record<string, any>} */
export const steer = {
  begin: () => {
    begun = true;
    ask();
  },
  note,
  again: () => { if (last) note(last); },
};
