// @ts-check
// The conversation above the prompt. Text is text: nothing here makes HTML of it.
import { byId, make } from "./dom.js";
import { field } from "./gradio.js";
import { shown } from "./shortcuts.js";

const REPLIES = ["reply-left", "reply-right", "reply-third", "reply-fourth"];

const block = ({ role, content, made }) =>
  make("div", { className: `turn ${role === "user" ? "user" : "assistant"}` },
    make("b", {}, role === "user" ? "You" : made || "Response"), make("p", {}, content));

// The newest turn from its beginning, or all of it where it is short; again when its room changes.
const FADE = 9; // pixels at the top, as in turns.css
const newest = () => {
  const place = byId("transcript"), last = place.lastElementChild;
  place.scrollTop = last ? last.offsetTop - FADE : 0;
};
const watched = new ResizeObserver(newest);

export const show = (json) => {
  const turns = JSON.parse(json || "[]"), place = byId("transcript");
  const stage = byId("stage");
  if (turns.length) stage.dataset.turns = turns.length;
  else delete stage.dataset.turns;
  const count = turns.length / 2;
  byId("turn-count").textContent = ` · ${count} ${count === 1 ? "turn" : "turns"} so far`;
  place.replaceChildren(...turns.map(block));
  watched.observe(place);
  newest();
};
export const ready = () => {
  for (const id of REPLIES) {
    // Its visible text first: voice control uses what is seen.
    byId(id).setAttribute("aria-label", `Reply (${shown(id)}) to the ${id.replace("reply-", "")} response`);
  }
};

export const write = () => field("prompt").focus();
