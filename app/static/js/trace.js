// @ts-check
// Responses as tokens: what is new is added to what is there. Text is text: nothing here makes HTML of it.
import { byId } from "./dom.js";
import { html, main } from "./gradio.js";
import { signed } from "./math/format.js";
import { chartLines, strongest } from "./math/trace.js";

const panels = {}; // {side: what is drawn}
let placed = []; // of each response of the run: its panel's side
const narrow = matchMedia("(max-width: 720px)"); // as in trace.css
let on = false;

// One tip for whatever is pointed at or focused, above all that scrolls.
const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "tooltip");
const point = (event) => {
  const target = event.target.closest?.(".tokens .mark, .tracing .token");
  const text = target && (target.dataset.tip || pushes(target));
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  main().append(tip);
  const at = target.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${at.top - tip.offsetHeight - 6 < 4 ? at.bottom + 6 : at.top - tip.offsetHeight - 6}px`;
};

const pushes = (span) => {
  const panel = panels[span.closest("[data-side]").dataset.side];
  const values = panel.pushes[span.dataset.place];
  return panel.accents.map(({ name }, i) => `${name} ${signed(values[i])}`).join("   ");
};

const token = (panel, text, pushes) => {
  const place = panel.pushes.push(pushes) - 1, span = document.createElement("span");
  span.className = place < panel.kept ? "token kept" : "token";
  span.dataset.place = String(place);
  span.tabIndex = -1;
  span.textContent = text;
  const push = strongest(pushes);
  if (push) {
    span.classList.add("pushed");
    span.style.setProperty("--push", panel.accents[push.policy].colour);
    span.style.setProperty("--depth", `${push.depth}%`);
  }
  panel.sums.forEach((sum, i) => sum.push(sum.at(-1) + pushes[i]));
  return span;
};

const mark = ([kind, label]) => {
  const sign = document.createElement("i");
  sign.className = `mark ${kind}`;
  sign.tabIndex = 0;
  sign.setAttribute("role", "note");
  sign.setAttribute("aria-label", label);
  sign.dataset.tip = label;
  return sign;
};

export const panel = (side, element, accents, trigger) => {
  const root = element.querySelector(".response");
  element.dataset.side = side;
  panels[side] = { root, accents, trigger };
  listenIn(root, panels[side]);
  clear(panels[side]);
};

const clear = (panel) => {
  Object.assign(panel, { kept: 0, pushes: [], sums: panel.accents.map(() => [0]), note: "", before: "", end: !narrow.matches });
  panel.root.querySelector(".tokens").replaceChildren();
  draw(panel, []);
};

// Other responses are to come.
export const begin = () => {
  placed = [];
  Object.values(panels).forEach(clear);
};

// What is new, as Run.lines has it.
export const read = (lines) => {
  const fresh = new Map(); // {panel: what it learns}
  for (const [number, said] of lines) {
    if (typeof said === "string") {
      // A response begins, maybe in the place of another, which is heard no more.
      placed = [...placed.map((side) => side === said ? null : side), said];
      fresh.delete(panels[said]);
      clear(panels[said]);
    } else if (placed[number]) {
      const panel = panels[placed[number]];
      if (!fresh.has(panel)) fresh.set(panel, []);
      fresh.get(panel).push(said);
    }
  }
  fresh.forEach((lines, panel) => draw(panel, lines));
};

// What is said where no text comes.
export const lost = (why) => {
  for (const panel of Object.values(panels)) if (!panel.pushes.length) draw(panel, [{ note: why }]);
};

// What a reload keeps: the text of each response, and its caption.
export const texts = () => Object.entries(panels).map(([side, { root }]) => ({
  side, text: root.querySelector(".tokens").textContent, caption: html(`caption-${side}`).textContent.trim(),
}));
/** Show a response of the page before this one, as text. @param {string} side @param {string} text */
export const restore = (side, text) => {
  const panel = panels[side];
  panel.before = text;
  panel.root.querySelector(".tokens").textContent = text;
  draw(panel, []);
};
// The captions of the responses that are not finished.
export const unfinished = () => (byId("panels").dataset.open ?? "").split(" ")
  .map((side) => html(`caption-${side}`)).filter((caption) => caption && !caption.textContent.trim());

const draw = (panel, lines) => {
  const { root } = panel, tokens = root.querySelector(".tokens"), fresh = document.createDocumentFragment();
  for (const said of lines) {
    if ("kept" in said) panel.kept = said.kept;
    else if ("note" in said) panel.note = said.note;
    // A character may be given up when the response ends.
    else if ("rest" in said) (fresh.lastElementChild ?? tokens.lastElementChild).textContent += said.rest;
    else {
      const [text, pushes, sign] = said;
      if (sign) fresh.append(mark(sign));
      fresh.append(token(panel, text, pushes));
    }
  }
  tokens.append(fresh);
  const empty = root.querySelector(".empty");
  empty.textContent = panel.note || "The response appears here.";
  empty.hidden = panel.pushes.length > 0 || Boolean(panel.before);
  if (on) chart(root.closest("[data-side]"), panel);
};

// The running sum of each policy's push: its implied reward so far, up to β.
const chart = (element, panel) => {
  const svg = element.querySelector(".sums svg"), list = element.querySelector(".sums ul");
  const sums = panel.sums ?? [], { zero, lines } = chartLines(sums);
  const line = (points, colour, kind) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    made.setAttribute("points", points);
    made.setAttribute("class", kind);
    if (colour) made.style.stroke = colour;
    return made;
  };
  svg.replaceChildren(
    line(zero, "", "zero"),
    ...lines.map((points, i) => line(points, panel.accents[i].colour, "sum")),
  );
  const ends = panel.accents.map(({ name, colour }, i) => ({ name, colour, value: sums[i]?.at(-1) ?? 0 }));
  svg.setAttribute("aria-label", `Running sums: ${ends.map(({ name, value }) => `${name} ${signed(value)}`).join(", ")}`);
  list.replaceChildren(
    ...ends.map(({ name, colour, value }) => {
      const item = document.createElement("li"), dot = document.createElement("i");
      dot.className = "dot";
      item.style.setProperty("--accent", colour);
      item.title = name;
      item.append(dot, signed(value));
      return item;
    }),
  );
};

// A click, or arrows and Enter.
const listenIn = (root, panel) => {
  // A reader further up stays there, until a hand goes to the end; only a hand goes up. On a narrow screen six
  // lines are seen, or none yet: there the beginning stays.
  let top = 0;
  root.addEventListener("scroll", () => {
    const end = root.scrollHeight - root.scrollTop - root.clientHeight < 40 && (root.scrollTop > 0 || !narrow.matches);
    panel.end = end || (panel.end && root.scrollTop >= top);
    top = root.scrollTop;
  });
  // When the browser has laid out the page: asked before, it would do so twice a frame.
  new ResizeObserver(() => {
    if (panel.end && panel.pushes.length) root.scrollTop = root.scrollHeight;
  }).observe(root.querySelector(".tokens"));
  const choose = (span) => {
    document.querySelectorAll(".token.chosen").forEach((other) => other.classList.remove("chosen"));
    span.classList.add("chosen");
    panel.trigger("select", { place: Number(span.dataset.place) });
  };
  root.addEventListener("click", (event) => {
    const span = event.target.closest(".token");
    if (span && !String(getSelection())) choose(span);
  });
  root.addEventListener("keydown", (event) => {
    const all = [...root.querySelectorAll(".token")].filter((span) => span.textContent.trim());
    const here = all.indexOf(document.activeElement.closest(".token"));
    const steps = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 };
    if (event.ctrlKey || event.metaKey || event.altKey || !all.length) return;
    // One token is among the tab stops: the last that was gone to.
    const go = (span) => {
      root.querySelectorAll(".token[tabindex='0']").forEach((other) => { other.tabIndex = -1; });
      span.tabIndex = 0;
      span.focus();
    };
    if (event.key === "Enter" && here >= 0 && all[here].matches(".chosen")) document.querySelector("#drawer.open .scroll")?.focus();
    else if (event.key === "Enter" && here >= 0) choose(all[here]);
    else if (event.key === "Enter" && document.activeElement === root) go(root.querySelector(".token[tabindex='0']") ?? all[0]);
    else if (event.key in steps) go(all[Math.max(0, Math.min(all.length - 1, steps[event.key]))]);
    else return;
    event.preventDefault();
  });
};

export const toggle = () => {
  on = !on;
  byId("stage").classList.toggle("tracing", on);
  byId("trace").setAttribute("aria-pressed", on);
  if (on) Object.values(panels).forEach((panel) => chart(panel.root.closest("[data-side]"), panel));
};


export const listen = () => {
  for (const kind of ["mouseover", "focusin", "focusout"]) {
    document.addEventListener(kind, (event) => (kind === "focusout" ? (tip.hidden = true) : point(event)));
  }
};
