// @ts-check
// The text of the responses as it is written: server-sent events of app/server/stream.py, which trace.js draws.
import { suspect } from "./connection.js";
import { steer } from "./steer.js";
import * as trace from "./trace.js";

const LOST = "The text does not come through from the server. Press Generate to try again.";
let source = null; // what is listened to
let current = "", begun = 0; // whose text, and of how many responses
let known = 0; // lines

// stage: Run.stage
export const follow = (stage) => {
  const [id, count] = (stage || " 0").split(" ");
  if (id !== current) {
    source?.close();
    [source, current, known] = [null, id, 0];
    trace.begin();
    steer.again(); // a fader may have moved since Generate was pressed
  }
  begun = Number(count);
  if (current && !source) listen();
};
const listen = () => {
  const mine = (source = new EventSource(`text/${current}?at=${known}`));
  mine.onmessage = ({ data, lastEventId }) => {
    known = Number(lastEventId);
    trace.read(JSON.parse(data));
  };
  mine.addEventListener("end", ({ data }) => {
    mine.close();
    source = null;
    if (begun > Number(data)) listen(); // one began when this had ended already
  });
  // A browser asks again by itself where a connection broke, but not where it was refused.
  mine.onerror = () => {
    if (mine.readyState === EventSource.CLOSED) trace.lost(LOST);
    suspect();
  };
};

export const run = () => current;
