// @ts-check
// Explore's points from the keyboard: right and left go to the efficient point with more or less of a reward, up and
// down to another reward, Enter sends the point's weights to the faders.
import { choose } from "./figures.js";
import { main } from "./gradio.js";
import { signed } from "./math/format.js";

const STEPS = { ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
const states = new WeakMap(); // {figure on the page: {points, reward, at}}

const said = document.createElement("p");
said.className = "unseen";
said.setAttribute("role", "status");

// Every efficient point once, as the first panel has it. customdata: weights, rewards, share.
const read = (place) => {
  const { policies } = place.layout.meta, points = new Map();
  place.data.forEach((trace, curve) => {
    if (!trace.meta?.efficient || (trace.xaxis ?? "x") !== "x") return;
    trace.customdata.forEach((data, point) => {
      const key = data.slice(0, policies).join();
      if (!points.has(key)) points.set(key, { data, curve, point });
    });
  });
  return [...points.values()];
};

// A figure has its names escaped.
const plain = (name) => new DOMParser().parseFromString(name, "text/html").body.textContent;
const percent = (value) => `${Math.round(100 * value)}%`;

const show = (place, { points, reward, at }) => {
  const { policies, names } = place.layout.meta, { data, curve, point } = points[at];
  const values = data.slice(policies, policies + names.rewards.length);
  const weights = names.policies.map((name, i) => `${plain(name)} ${percent(data[i])}`).join(", ");
  const expected = names.rewards.map((name, i) => `${plain(name)} ${signed(values[i], 2)}σ`);
  said.textContent = `${expected[reward]}, ${at + 1} of ${points.length}. Weights: ${weights}. Expected: ${expected.join(", ")}.`;
  main().append(said);
  window.Plotly.Fx.hover(place, [{ curveNumber: curve, pointNumber: point }], place.data[curve].type === "scatterternary" ? "ternary" : "xy");
};

export const listen = () => {
  document.addEventListener("keydown", (event) => {
    const place = event.target.closest?.(".figure[role=application]");
    if (!place?.layout?.meta || event.ctrlKey || event.metaKey || event.altKey) return;
    const { policies, names } = place.layout.meta;
    let state = states.get(place);
    if (state?.data !== place.data) {
      state = { data: place.data, points: read(place), reward: 0, at: -1 };
      states.set(place, state);
    }
    const { points } = state, count = names.rewards.length;
    if (!points.length) return;
    const sort = () => {
      const now = points[state.at];
      points.sort((a, b) => a.data[policies + state.reward] - b.data[policies + state.reward]);
      state.at = now ? points.indexOf(now) : Math.floor(points.length / 2);
    };
    if (event.key === "Enter" && state.at >= 0) choose(place.closest("[id$=-figure]").id, { customdata: points[state.at].data });
    else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      state.reward = (state.reward + (event.key === "ArrowUp" ? count - 1 : 1)) % count;
      sort();
      show(place, state);
    } else if (event.key in STEPS) {
      if (state.at < 0) sort();
      else state.at = Math.max(0, Math.min(points.length - 1, state.at + STEPS[event.key]));
      show(place, state);
    } else return;
    event.preventDefault();
  });
  document.addEventListener("focusout", (event) => {
    const place = event.target.closest?.(".figure[role=application]");
    if (place && states.has(place)) window.Plotly.Fx.unhover(place);
  });
};
