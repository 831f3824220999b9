// @ts-check
// Plotly's figures, drawn in place.
import { openTab } from "./gradio.js";
import { faderPositions, polygonCorners } from "./math/figures.js";

// Fetched meanwhile, but read only when the page can be used: to read it takes as long as a quarter of all the rest.
const fetched = Object.assign(document.createElement("link"), { rel: "preload", as: "script", href: "plotly.min.js" });
let usable;
const plotly = new Promise((resolve) => { usable = resolve; }).then(() => new Promise((resolve) => {
  const script = document.createElement("script");
  script.src = fetched.href;
  script.onload = () => resolve(window.Plotly);
  document.head.append(script);
}));

// {id: {json, figure, underlay: traces that lie under the figure's own, place, chosen, timer: of a draw that is due}}
const figures = {};
const entry = (id) => (figures[id] ??= { underlay: [] });

const STILL = 300; // ms after which a moved figure is drawn again, with its hover text

const draw = async (id) => {
  const Plotly = await plotly;
  const { figure, underlay, place, timer } = entry(id);
  clearTimeout(timer);
  if (!figure || !place || !place.isConnected) return;
  const fresh = !place.classList.contains("js-plotly-plot");
  await Plotly.react(place, [...underlay, ...figure.data], figure.layout, { displayModeBar: false });
  const told = () => document.dispatchEvent(new CustomEvent("figure-drawn", { detail: id }));
  told();
  if (!fresh) return;
  place.on("plotly_afterplot", told);
  new ResizeObserver(() => { if (place.offsetWidth) Plotly.Plots.resize(place); }).observe(place);
  place.on("plotly_click", (event) => choose(id, event.points[0]));
};

// The corners of a polygon that lies under the rest, moved where they are: plotly takes forty times as long for the
// whole figure, and text stands still meanwhile. Whether it could be.
const sketch = (place, traces) => {
  const [trace, ...others] = traces;
  const drawn = place?._fullData?.[0], polar = place?._fullLayout?.polar?._subplot;
  // What does not move.
  const look = (given) => JSON.stringify({ ...given, r: null, theta: null, text: null });
  if (others.length || !polar?.radialAxis || trace?.type !== "scatterpolar" || drawn?.name !== trace.name) return false;
  const group = [...place.querySelectorAll(".scatterlayer .trace")].find((one) => one.__data__?.[0]?.trace === drawn);
  if (!group || look(place.data[0]) !== look(trace) || String(place.data[0].theta) !== String(trace.theta)) return false;
  const { cxx, cyy, radius, radialAxis } = polar;
  const corners = polygonCorners(trace, { center: [cxx, cyy], radius, range: radialAxis.range });
  const path = `M${corners.join("L")}`;
  group.querySelectorAll("path.js-line, path.js-fill").forEach((line) => line.setAttribute("d", `${path}Z`));
  group.querySelectorAll("path.point").forEach((point, i) => point.setAttribute("transform", `translate(${corners[i]})`));
  return true;
};

// The point's weights, first among its data, as fader positions: the largest at the top.
export const choose = (id, point) => {
  const { figure, chosen } = entry(id);
  const policies = figure.layout.meta?.policies;
  if (!policies || !point.customdata) return;
  const weights = point.customdata.slice(0, policies);
  positions = faderPositions(weights);
  chosen();
  openTab("desk-tab");
};

/** @type {number[]} */
let positions = [];
/** The fader positions of the point that was chosen last. */
export const chosen = () => positions;

/** Draw a figure in its component. @param {string} id @param {any} element @param {string} json @param {() => void} onChoose */
export const figure = (id, element, json, onChoose) => {
  const place = element.querySelector(".figure");
  if (!json || (entry(id).json === json && entry(id).place === place)) return;
  figures[id] = { ...entry(id), json, figure: JSON.parse(json), place, chosen: onChoose };
  draw(id);
};

/** Draw traces under those of a figure. @param {string} id @param {any[]} traces */
export const underlay = (id, traces) => {
  const shown = entry(id);
  shown.underlay = traces;
  clearTimeout(shown.timer);
  if (sketch(shown.place, traces)) shown.timer = setTimeout(draw, STILL, id);
  else draw(id);
};

/** Fetch the library while the page loads. */
export const prefetch = () => document.head.append(fetched);
/** Begin to draw: the page can be used. */
export const begin = () => usable();
