// @ts-check
// A target on the radar: handles on the expected polygon. What is dragged is asked of the server, one question at a time,
// and the faders go to its answer.
import { byId } from "./dom.js";
import * as marks from "./marks.js";
import { signed } from "./math/format.js";
import { clamp, goalOf, polarScale, samePositions } from "./math/target.js";
import * as mixer from "./mixer.js";
import * as status from "./status.js";

const SVG = "http://www.w3.org/2000/svg";
const STEP = 0.1, LEAP = 0.5; // standard deviations by key
const STILL = 3; // px that are no drag yet
const SETTLED = 250; // ms without a change after which the faders are where they are
const PATIENCE = 3000; // ms in which an answer's positions come to be the faders'
const FAILED = '<span class="message bad">The target was not solved: the server cannot be reached. Try again.</span>';
let axes = [], reach = 3, server = null, trigger = null;
let overlay = null, handles = [];
let expected = {}; // {objective: standard deviations}; empty where there is no polygon
let target = null; // {goal: {objective}, from: {objective}, mixture}: since something was dragged
let drag = null; // {axis, pointer, grip, at, moved, saved: the target before, faders: those before}
/** @type {import("./math/state.js").MixtureState} */
let now = null; // the state of the page
/** @type {Record<string, number> | null} */
let positions = null; // the faders that the newest answer moves
let wanted = 0, cancelled = 0, busy = false, arriving = false, timer = /** @type {any} */ (0), due = 0;

const made = (kind, attributes, parent) => {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent.append(element);
  return element;
};
export const clamped = (value) => clamp(value, reach);
const others = (mixture) => JSON.stringify({ ...mixture, faders: {} }); // what of a mixture is not its faders

// ------------------------------------------------------------------------------------------------- where it is
let corner = null; // the plot's, in the overlay; kept, since to ask makes the browser lay out the page
// Standard deviations to pixels of the overlay and back, by plotly's own layout; null while there is no plot.
export const scale = () => {
  const plot = document.querySelector("#radar .figure"), layout = plot?._fullLayout;
  if (!layout || !axes.length) return null;
  if (!corner) {
    // What lies over the radar fills it, within its border.
    const radar = byId("radar");
    const box = plot.getBoundingClientRect(), origin = radar.getBoundingClientRect();
    corner = [box.left - origin.left - radar.clientLeft, box.top - origin.top - radar.clientTop];
  }
  const [left, top] = corner;
  const polar = layout.polar?._subplot;
  if (polar?.radialAxis) {
    const { radius, radialAxis, cx, cy } = polar;
    return { count: axes.length, ...polarScale({ center: [left + cx, top + cy], radius, range: radialAxis.range, angles: axes.map(({ angle }) => angle) }) };
  }
  const { xaxis, yaxis } = layout;
  if (!xaxis?.c2p || !yaxis?.c2p) return null;
  const at = (i, value) => [left + xaxis._offset + xaxis.c2p(i), top + yaxis._offset + yaxis.c2p(value)];
  return { count: axes.length, point: at, value: (_, px, py) => yaxis.p2c(py - top - yaxis._offset), end: (i) => at(i, reach) };
};

const of = (name) => clamped(target && name in target.goal ? target.goal[name] : (target?.from ?? expected)[name]);
const told = (name) => {
  const there = `expected ${signed(expected[name])}σ`;
  return target && name in target.goal ? `asked ${signed(target.goal[name])}σ, ${there}` : there;
};

const place = () => {
  if (!overlay) return;
  if (!overlay.isConnected) byId("radar")?.append(overlay);
  overlay.hidden = !axes.length || !axes.every(({ name }) => name in expected);
  const to = overlay.hidden ? null : scale();
  overlay.hidden = !to;
  if (!to) return;
  overlay.classList.toggle("asked", Boolean(target));
  overlay.classList.toggle("dragging", Boolean(drag));
  overlay.querySelector(".clear").hidden = !target || Boolean(drag);
  const corners = axes.map(({ name }, i) => to.point(i, of(name)));
  const outline = overlay.querySelector("polygon");
  outline.setAttribute("points", target && axes.length > 2 ? corners.map((xy) => xy.join(",")).join(" ") : "");
  axes.forEach(({ name }, i) => {
    const { handle, gap, rail } = handles[i];
    const [x, y] = corners[i], [ex, ey] = to.point(i, clamped(expected[name])), [fx, fy] = to.end(i);
    handle.setAttribute("transform", `translate(${x} ${y})`);
    handle.setAttribute("aria-valuenow", of(name).toFixed(2));
    handle.setAttribute("aria-valuetext", told(name));
    handle.querySelector("title").textContent = `${name}: ${told(name)}. Drag it, or press an arrow key.`;
    handle.classList.toggle("set", Boolean(target && name in target.goal));
    for (const [line, ends] of [[gap, target && name in target.goal ? [x, y, ex, ey] : [x, y, x, y]], [rail, [...to.point(i, -reach), fx, fy]]]) {
      ["x1", "y1", "x2", "y2"].forEach((key, k) => line.setAttribute(key, ends[k]));
    }
  });
};

// ------------------------------------------------------------------------------------------------- what it asks
const move = (where) => {
  positions = where;
  arriving = !stands();
  trigger("select");
};
const solve = async () => {
  clearTimeout(timer); // an earlier answer's: the faders are on their way to the next one
  wanted += 1;
  mixer.hold(true);
  if (busy) return;
  busy = true;
  for (let asked = 0; target && asked !== wanted; ) {
    asked = wanted;
    const mine = cancelled, quick = Boolean(drag);
    let answer;
    try {
      answer = await server.aim({ mixture: target.mixture, goal: target.goal, quick });
    } catch { /* the server cannot be reached */ }
    answer ??= { faders: null, said: FAILED }; // nor where Gradio has no answer
    if (mine !== cancelled || !target) continue;
    if (answer.faders) move(answer.faders);
    if (!quick && asked === wanted) status.say(answer.said);
  }
  busy = false;
  settled();
};
const aim = (i, value) => {
  const { name } = axes[i];
  target ??= { goal: {}, from: { ...expected }, mixture: now };
  target.goal[name] = goalOf(value, reach);
  place();
  solve();
};

// Whether the faders are where the newest answer has them; before any, where they were.
const stands = () => {
  const have = now.faders, there = { ...have, ...(positions ?? target?.mixture.faders) };
  return samePositions(Object.values(have), Object.keys(have).map((name) => there[name]));
};
const settled = () => {
  clearTimeout(timer);
  if (drag || busy) return;
  arriving &&= !stands();
  if (!arriving) mixer.hold(false);
  timer = setTimeout(() => {
    arriving = false;
    mixer.hold(false);
    // Moved by something else: the target no longer holds.
    if (target && (!stands() || others(now) !== others(target.mixture))) clear();
  }, arriving ? PATIENCE : SETTLED);
};
const clear = () => {
  target = positions = null;
  cancelled += 1;
  place();
};

// ------------------------------------------------------------------------------------------------- by hand
const grab = (event, i) => {
  if (!event.isPrimary || event.button !== 0 || drag || !now) return;
  corner = null;
  const to = scale(), box = overlay.getBoundingClientRect(), value = of(axes[i].name);
  const grip = value - to.value(i, event.clientX - box.left, event.clientY - box.top);
  const saved = target && { ...target, goal: { ...target.goal } };
  drag = { i, grip, at: [event.clientX, event.clientY], moved: false, saved, faders: now.faders, positions };
  handles[i].handle.setPointerCapture(event.pointerId);
  handles[i].handle.focus({ preventScroll: true });
  event.preventDefault();
  place();
};
const follow = (event, i) => {
  if (drag?.i !== i) return;
  drag.moved ||= Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) >= STILL;
  if (!drag.moved) return;
  const box = overlay.getBoundingClientRect();
  aim(i, scale().value(i, event.clientX - box.left, event.clientY - box.top) + drag.grip);
};
const end = (i) => {
  if (drag?.i !== i) return;
  const { moved } = drag;
  drag = null;
  place();
  if (moved) solve();
};
const cancel = () => {
  const { saved, moved, faders: before, positions: answer } = drag;
  drag = null;
  cancelled += 1;
  target = saved;
  if (moved) move(saved ? answer : before);
  place();
  settled();
};

const KEYS = { ArrowUp: STEP, ArrowRight: STEP, ArrowDown: -STEP, ArrowLeft: -STEP, PageUp: LEAP, PageDown: -LEAP };
const press = (event, i) => {
  if (event.ctrlKey || event.metaKey || event.altKey || drag || !now) return;
  const value = of(axes[i].name);
  if (event.key in KEYS) aim(i, value + KEYS[event.key]);
  else if (event.key === "Home") aim(i, -reach);
  else if (event.key === "End") aim(i, reach);
  else if (event.key === "Delete" || event.key === "Backspace") clear();
  else return;
  event.preventDefault();
};

const build = () => {
  overlay?.remove();
  overlay = document.createElement("div");
  overlay.id = "radar-target";
  overlay.setAttribute("role", "group");
  overlay.setAttribute("aria-label", "Target: expected rewards to ask for; the faders follow");
  const drawing = made("svg", {}, overlay);
  const lines = made("g", { "aria-hidden": "true" }, drawing);
  made("polygon", {}, lines);
  handles = axes.map(({ name, colour }, i) => {
    const rail = made("line", { class: "rail", style: `--accent:${colour}` }, lines);
    const gap = made("line", { class: "gap", style: `--accent:${colour}` }, lines);
    const handle = made("g", {
      class: "handle", style: `--accent:${colour}`, tabindex: 0, role: "slider", "aria-label": `Target for ${name}`,
      "aria-valuemin": -reach, "aria-valuemax": reach, "aria-orientation": "vertical",
    }, drawing);
    made("title", {}, handle);
    made("circle", { class: "hit", r: 15 }, handle);
    made("circle", { class: "knob", r: 6 }, handle);
    handle.addEventListener("pointerdown", (event) => grab(event, i));
    // What touch-action says of a shape within a drawing is not heard: else the page scrolls, and the drag is lost.
    handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    handle.addEventListener("pointermove", (event) => follow(event, i));
    handle.addEventListener("pointerup", () => end(i));
    handle.addEventListener("pointercancel", () => drag && cancel());
    handle.addEventListener("keydown", (event) => press(event, i));
    handle.addEventListener("pointerenter", () => rail.classList.add("shown"));
    handle.addEventListener("pointerleave", () => rail.classList.remove("shown"));
    handle.addEventListener("focus", () => rail.classList.add("shown"));
    handle.addEventListener("blur", () => rail.classList.remove("shown"));
    return { handle, gap, rail };
  });
  const button = document.createElement("button");
  button.className = "clear";
  button.type = "button";
  button.textContent = "Clear target";
  button.addEventListener("click", () => {
    clear();
    handles[0].handle.focus({ preventScroll: true });
  });
  overlay.append(button);
  place();
};

export const begin = (given, furthest, asked, fire) => {
  [axes, reach, server, trigger] = [given, furthest, asked, fire];
  build();
  marks.place();
};
export const expect = (standard) => {
  expected = standard ?? {};
  if (!Object.keys(expected).length) target = null;
  cancelAnimationFrame(due); // once a frame
  due = requestAnimationFrame(place);
};
/** @param {import("./math/state.js").MixtureState} mixture */
export const note = (mixture) => {
  now = mixture;
  settled();
};
/** The mixture as it is shown: a lock holds from then on, not only when `note` comes.
 * @param {import("./math/state.js").MixtureState} mixture */
export const heard = (mixture) => { now &&= mixture; };
/** The faders' values after the newest answer.
 * @param {string[]} names of the policies @param {any[]} values of the faders and channels */
export const placed = (names, values) => mixer.placed(values, names.map((name, i) => positions?.[name] ?? values[i]));

export const listen = () => {
  document.addEventListener("figure-drawn", (event) => {
    if (event.detail !== "radar") return;
    corner = null;
    place();
  });
  // Before what else Escape does: it stops responses.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !drag) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    cancel();
  }, true);
};
