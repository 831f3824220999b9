// @ts-check
// The page's scripts: what each of them listens to, and the object that Gradio's handlers in Python call.
import * as configurations from "./configurations.js";
import { compare, listen as listenOnCompare } from "./compare.js";
import { byId, press, uuid } from "./dom.js";
import * as drawer from "./drawer.js";
import * as explore from "./explore.js";
import * as fetching from "./fetching.js";
import * as figures from "./figures.js";
import * as focus from "./focus.js";
import * as help from "./help.js";
import * as marks from "./marks.js";
import * as state from "./math/state.js";
import * as mixer from "./mixer.js";
import * as offer from "./offer.js";
import * as panels from "./panels.js";
import * as ratings from "./ratings.js";
import * as sharing from "./sharing.js";
import * as shortcuts from "./shortcuts.js";
import { steer } from "./steer.js";
import * as target from "./target.js";
import * as text from "./text.js";
import * as tour from "./tour.js";
import * as trace from "./trace.js";
import * as turns from "./turns.js";

const mixdesk = {
  ratingId: "", // of the responses that are generated next
  get chosen() { return figures.chosen(); },
  figure: figures.figure,
  underlay: figures.underlay,
  newRating: () => { mixdesk.ratingId = uuid(); byId("stage").dataset.asked = "true"; },
  ready: () => {
    document.querySelectorAll(".chip").forEach((/** @type {any} */ chip) => { chip.title = chip.textContent.trim(); });
    panels.show("left,right");
    turns.ready();
    sharing.open();
    document.body.dataset.ready = "true";
    (window.requestIdleCallback ?? setTimeout)(figures.begin); // a button that is pressed at once comes first
    tour.greet();
  },
  uuid,
  compare, drawer, marks, mixer, offer, panels, ratings, sharing, state, steer, target, text, trace, turns,
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
  listenOnDesk, shortcuts.listen, listenOnCompare, configurations.listen, drawer.listen, explore.listen, fetching.listen,
  focus.listen, help.listen, marks.listen, mixer.listen, sharing.listen, target.listen, tour.listen, trace.listen,
]) listen();
