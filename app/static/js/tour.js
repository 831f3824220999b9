// @ts-check
// The tour: a few steps beside what they explain, once. The page stays as it is: all of it can be used meanwhile.
import { byId, make } from "./dom.js";
import { OPEN_DROPDOWN, container } from "./gradio.js";
import { matches } from "./shortcuts.js";

const SEEN = "mixdesk-tour", GAP = 8; // px
const STEPS = [
  { at: "#mix :is(.mixture-bar, .fader)", title: "Mix the policies",
    text: "Each fader is a policy with one objective. Raise those that you want more of; the bar shows the mixture." },
  { at: "#generate", title: "Generate",
    text: "Both responses are written at once: unless you choose otherwise, the left one follows the faders, the right one is the reference." },
  { at: "#trace", title: "Steer and trace",
    text: "Move a fader while a response is written, and the next token follows. Trace colours each token by the policy that pushed it; click a token to see what else could have been said." },
  { at: "#radar", title: "Read the rewards",
    text: "Outward is better. The dotted shape is what the faders are expected to get: it moves as you drag them." },
  { at: "#ratings", title: "Say which is better",
    text: "A rating keeps both responses with all that is needed to generate them again." },
];
let at = -1, dialog = null, ring = null, from = null;


// Storage may be forbidden, in a frame of another site: then it cannot be remembered that it was seen.
const isNew = () => {
  try {
    const seen = localStorage.getItem(SEEN);
    localStorage.setItem(SEEN, "true");
    return !seen && localStorage.getItem(SEEN) === "true";
  } catch { return false; }
};

const build = () => {
  const button = (label, name, action) => make("button", { type: "button", className: name, textContent: label, onclick: action });
  const title = make("h2", { id: "tour-title" }), text = make("p", { id: "tour-text" }), count = make("small");
  const words = make("div", { "aria-live": "polite" }, title, text);
  const buttons = make("div", { className: "buttons" }, count,
    button("← Back", "back", () => go(at - 1)), button("Next →", "next", () => go(at + 1)));
  const names = { role: "dialog", "aria-labelledby": title.id, "aria-describedby": text.id };
  dialog = make("div", { id: "tour", tabIndex: -1, ...names }, button("Skip (Esc)", "skip", close), words, buttons);
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && at + by >= 0 && at + by < STEPS.length) go(at + by);
  });
  ring = make("div", { id: "tour-ring", "aria-hidden": "true" });
  // There, since what Gradio makes of @media rules holds for nothing outside.
  container().append(ring, dialog);
};

// Around all that the step speaks of, in the window's px; nothing where that is not seen.
const target = () => {
  const boxes = [...document.querySelectorAll(STEPS[at].at)].filter((found) => found.checkVisibility()).map((found) => found.getBoundingClientRect());
  if (!boxes.length) return null;
  const [left, top] = ["left", "top"].map((side) => Math.min(...boxes.map((box) => box[side])));
  const [right, bottom] = ["right", "bottom"].map((side) => Math.max(...boxes.map((box) => box[side])));
  return { left, top, right, bottom };
};

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// Beside what it explains, and never over that, the title, nor Generate; nor over the prompt, if there is room elsewhere.
const place = () => {
  if (at < 0) return;
  const box = target();
  dialog.hidden = ring.hidden = !box;
  if (!box) return;
  const { offsetWidth: width, offsetHeight: height } = dialog, wide = document.documentElement.clientWidth;
  const clamp = (value, most) => Math.max(8, Math.min(value, most - 8));
  const x = clamp(box.left, wide - width), y = clamp(box.top, innerHeight - height);
  const below = [x, box.bottom + GAP], title = document.querySelector("#top h1").getBoundingClientRect();
  const spots = [
    [box.right + GAP, y], [box.right + GAP, box.bottom - height], [box.left - GAP - width, y], below,
    [x, box.top - GAP - height], [x, title.bottom + GAP],
  ];
  const free = (...ids) => {
    const taken = [box, title, ...ids.map((id) => byId(id).getBoundingClientRect())];
    return spots.find(([left, top]) => {
      const spot = { left, top, right: left + width, bottom: top + height };
      return left >= 8 && spot.right <= wide - 8 && top >= 8 && spot.bottom <= innerHeight - 8 && !taken.some((other) => overlap(spot, other));
    });
  };
  const [left, top] = free("ask") ?? free("generate") ?? below;
  const origin = dialog.offsetParent.getBoundingClientRect();
  Object.assign(dialog.style, { left: `${left - origin.left}px`, top: `${top - origin.top}px` });
  Object.assign(ring.style, {
    left: `${box.left - origin.left - 5}px`, top: `${box.top - origin.top - 5}px`,
    width: `${box.right - box.left + 10}px`, height: `${box.bottom - box.top + 10}px`,
  });
};

const go = (step) => {
  if (step >= STEPS.length) return close();
  at = step;
  const { title, text } = STEPS[at];
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("p").textContent = text;
  dialog.querySelector("small").textContent = `${at + 1} of ${STEPS.length}`;
  const [back, next] = dialog.querySelectorAll(".back, .next");
  next.textContent = at === STEPS.length - 1 ? "Done" : "Next →";
  back.disabled = at === 0;
  if (document.activeElement === back && back.disabled) next.focus({ preventScroll: true });
  bring();
};

// Scroll what the step explains into the window, and the dialog beside it.
const bring = () => {
  const box = target();
  if (box && (box.top < 0 || box.bottom > innerHeight)) scrollBy({ top: (box.top + box.bottom - innerHeight) / 2, behavior: "instant" });
  place();
  dialog.scrollIntoView({ block: "nearest" });
  scrolledTo = scrollY;
};

const close = () => {
  const inside = dialog.contains(document.activeElement);
  at = -1;
  watcher.disconnect();
  dialog.remove();
  ring.remove();
  if (inside) (from?.isConnected && from !== document.body ? from : byId("generate")).focus({ preventScroll: true });
};

// It is notified of what it observes at once, and again when the desk comes back from behind another tab.
let begun = false, scrolledTo = -1; // scrolledTo: where the tour last left the page
const watcher = new ResizeObserver(() => {
  place();
  if (at < 0 || dialog.hidden) return;
  if (begun) {
    // A line that arrives above moves the target: follow it, unless the page has been scrolled since.
    if (scrollY === scrolledTo) bring();
    return;
  }
  begun = true;
  go(at);
  dialog.focus({ preventScroll: true });
});
export const start = () => {
  if (at >= 0) close();
  [from, begun] = [document.activeElement, false];
  build();
  go(0);
  for (const selector of ["body", "#desk"]) watcher.observe(document.querySelector(selector));
};

export const greet = () => { if (isNew()) start(); };

export const listen = () => {
  window.addEventListener("resize", place);
  // Escape stops what is under way and closes what else is open; with nothing of that it closes the tour.
  document.addEventListener("keydown", (event) => {
    if (!matches(event, "stop") || at < 0 || !byId("stop").disabled) return;
    if (document.querySelector("dialog[open], #configurations[open], #drawer.open, " + OPEN_DROPDOWN)) return;
    close();
  });
};
