// @ts-check
// What else could have been said: a table of probabilities, redrawn in place as the faders move.
import { byId, make, press } from "./dom.js";
import { probability } from "./math/format.js";
import { matches } from "./shortcuts.js";

const HEADS = { was: "As it was", now: "Now" };
let shown = null;

// A space before a word is part of its token, and a token may be nothing else.
const visible = (text) => text.replace(/^ (?=\S)/, "").replaceAll(" ", "␣").replaceAll("\n", "↵") || "(nothing)";

const cell = (column, value) => {
  const style = { "--accent": column.colour ?? "", "--share": `${Math.round(100 * (value ?? 0))}%` };
  return make("td", { className: column.name in HEADS ? column.name : "policy", style }, probability(value));
};

const row = (head, columns, values, className) =>
  make("tr", { className }, make("th", { scope: "row" }, head), ...columns.map((column, i) => cell(column, values[i])));

export const draw = (element, given) => {
  const value = given?.columns ? given : null; // a value of None comes as something else
  const drawer = byId("drawer"), place = element.querySelector(".drawer");
  const opening = value && (!shown || shown.title !== value.title);
  if (!value && shown) {
    const chosen = document.querySelector(".token.chosen");
    if (drawer.contains(document.activeElement)) chosen?.focus({ preventScroll: true });
    chosen?.classList.remove("chosen");
  }
  shown = value;
  drawer.classList.toggle("open", Boolean(value));
  if (!value) return;
  const { columns, tokens } = value;
  const drawn = tokens.find((token) => token.drawn);
  const title = make("h2", {}, `${value.title}: `, make("q", {}, visible(drawn.text)));
  const heads = columns.map(({ name, colour, hint }) =>
    make("th", { scope: "col", title: hint ?? name, style: { "--accent": colour ?? "" } },
      ...(colour ? [make("i", { className: "dot" })] : []), make("span", {}, HEADS[name] ?? name)));
  const rows = tokens.map((token, i) =>
    row(visible(token.text), columns, columns.map((column) => column.values[i]), token.drawn ? "drawn" : ""));
  const rest = row("all others", columns, columns.map((column) => column.rest), "rest");
  const table = make("table", { style: { "min-width": `${86 + 64 * columns.length}px` } },
    make("thead", {}, make("tr", {}, make("th", {}, "Token"), ...heads)), make("tbody", {}, ...rows, rest));
  const scroll = make("div", { className: "scroll", tabIndex: 0 }, table);
  const notes = columns.filter(({ name }) => name in HEADS)
    .map(({ name, hint }) => make("p", { className: "weights" }, `${HEADS[name]}: ${hint}`));
  const before = place.querySelector(".scroll")?.scrollTop ?? 0;
  place.replaceChildren(title, scroll, ...notes, make("p", { className: "hint" }, value.hint));
  scroll.scrollTop = opening ? 0 : before;
};


export const listen = () => {
  // Escape stops what is under way; with nothing under way it closes the drawer.
  document.addEventListener("keydown", (event) => {
    if (matches(event, "stop") && shown && byId("stop").disabled) press("close-drawer");
  });
};
