// @ts-check
// What the page shows while the server cannot be reached, and how it works again after.
import { opening } from "./configurations.js";
import * as connection from "./connection.js";
import { byId, make } from "./dom.js";
import * as rating from "./rating.js";
import * as restore from "./restore.js";
import * as status from "./status.js";
import { steer } from "./steer.js";
import * as trace from "./trace.js";

const LOST = "The server cannot be reached. What was under way was broken off; your prompt, faders and responses are kept.";
const BACK = "The server is back. Press Generate to try again.";
const BROKEN = "Broken off: the server could not be reached.";
/** @type {any[]} */
let marks = []; // the captions of the panels that were broken off

const tell = () => status.say(status.message(LOST, "bad"));

/** @param {boolean} running */
const showButtons = (running) => {
  byId("stop").disabled = !running;
  byId("generate").disabled = running;
};

const lost = () => {
  const running = !byId("stop").disabled;
  if (running) {
    marks = trace.unfinished().map((caption) => {
      const mark = make("p", { className: "made broken" }, BROKEN);
      caption.append(mark);
      return mark;
    });
    showButtons(false);
  }
  if (rating.unsaved()) rating.tell();
  // Faders or a target that were not heard have said so already.
  else if (running || !status.shows("cannot be reached")) tell();
};

const back = async () => {
  if (!(await status.say(status.message(BACK)))) {
    reload();
    return;
  }
  // The connection was only slow: what was under way goes on, unless Gradio has shown its end meanwhile.
  const goesOn = marks.length > 0 && marks.every((mark) => mark.isConnected);
  marks.forEach((mark) => mark.remove());
  marks = [];
  if (goesOn) showButtons(true);
  steer.again();
  rating.resend();
};

// The server knows nothing of this page any more, or Gradio has given up: only a new page can be answered.
const reload = async () => {
  restore.save();
  // A page that does not come would be lost, and so would a configuration that is being opened.
  for (;;) {
    const page = await fetch(location.href, { cache: "no-store" }).catch(() => null);
    if (page?.ok && !opening()) break;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  location.reload();
};

export const listen = () => {
  document.addEventListener("connection", ({ detail }) => {
    if (detail === "lost") lost();
    else if (detail === "back") back();
    else if (detail === "restarted") reload();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.id !== "generate") return;
    if (connection.state() !== "lost") {
      connection.used();
      return;
    }
    event.stopImmediatePropagation();
    connection.again();
    tell();
  }, true);
};
