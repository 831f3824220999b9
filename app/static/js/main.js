// @ts-check
// The page's scripts: what each of them listens to, and the object that Gradio's handlers in Python call.
import * as account from "./account.js";
import * as annotate from "./annotate.js";
import * as choices from "./choices.js";
import * as configurations from "./configurations.js";
import { compare, listen as listenOnCompare } from "./compare.js";
import * as connection from "./connection.js";
import { press, uuid } from "./dom.js";
import * as drawer from "./drawer.js";
import * as explore from "./explore.js";
import * as fetching from "./fetching.js";
import * as figures from "./figures.js";
import * as focus from "./focus.js";
import { openApiIfAsked } from "./gradio.js";
import * as help from "./help.js";
import * as marks from "./marks.js";
import * as state from "./math/state.js";
import * as mixer from "./mixer.js";
import * as offer from "./offer.js";
import * as outage from "./outage.js";
import * as panels from "./panels.js";
import * as rating from "./rating.js";
import * as restore from "./restore.js";
import { results } from "./results.js";
import * as sharing from "./sharing.js";
import * as shortcuts from "./shortcuts.js";
import * as status from "./status.js";
import { steer } from "./steer.js";
import * as target from "./target.js";
import * as text from "./text.js";
import * as tour from "./tour.js";
import * as trace from "./trace.js";
import * as turns from "./turns.js";

const mixdesk = {
  get chosen() { return figures.chosen(); },
  figure: figures.figure,
  underlay: figures.underlay,
  ready: () => {
    account.show();
    document.querySelectorAll(".chip").forEach((/** @type {any} */ chip) => { chip.title = chip.textContent.trim(); });
    panels.show("left,right");
    turns.ready();
    if (restore.due()) {
      restore.press();
    } else {
      sharing.open();
      mixdesk.filled();
    }
  },
  // What is kept from before a reload is there.
  filled: () => {
    restore.start();
    rating.resend();
    document.body.dataset.ready = "true";
    (window.requestIdleCallback ?? setTimeout)(figures.begin); // a button that is pressed at once comes first
    if (!openApiIfAsked()) tour.greet();
  },
  uuid,
  annotate, choices, compare, drawer, marks, mixer, offer, panels, rating, restore, results, sharing, state, status, steer, target, text, trace, turns,
};
Object.assign(window, { mixdesk });

const listenOnDesk = () => {
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing) return;
    if (shortcuts.matches(event, "run")) {
      event.preventDefault();
      press("generate");
    } else if (shortcuts.matches(event, "stop")) {
      press("stop", "explore-stop");
    }
  });
};

figures.prefetch();
// In this order: of two listeners to the same event, the first may keep it from the second.
for (const listen of [
  connection.listen, outage.listen, rating.listen, listenOnDesk, shortcuts.listen, listenOnCompare, configurations.listen,
  drawer.listen, explore.listen, fetching.listen, focus.listen, help.listen, marks.listen, mixer.listen, restore.listen,
  sharing.listen, target.listen, tour.listen, trace.listen,
]) listen();
