// @ts-check
// The Results tab: its views, the matrix of wins with the pairs behind each cell, and the buttons that send a mixture to
// the desk without asking the server. All that people or models wrote is set as text, never as HTML.
import { byId, make } from "./dom.js";
import { openTab } from "./gradio.js";
import { cellText, matrixOf, nextCell } from "./math/matrix.js";
import { fromValues, toValues } from "./math/state.js";

/** @type {any} */
let chosen = null;
/** cell: of the matrix, the two systems whose pairs are open, as "first,second" */
/** @type {Record<string, any>} */
export const results = { cell: "" };

results.click = (event, trigger) => {
  const button = event.target.closest("[data-send]");
  if (!button) return;
  chosen = JSON.parse(button.dataset.send);
  trigger("select");
  openTab("desk-tab");
};

/** The values of the mixture's components, in which a locked fader stays, and the status line.
 * @param {import("./math/state.js").Path[]} paths @param {any[]} values */
results.sent = (paths, values) => {
  const { rule, gain, exponent, said } = chosen, { faders, channels } = fromValues(paths, values);
  const { lock = {} } = channels;
  const unlocked = Object.entries(chosen.faders).filter(([name]) => !(name in lock));
  return [...toValues(paths, { faders: { ...faders, ...Object.fromEntries(unlocked) }, channels, rule, gain, exponent }), said];
};

/** Show one of the views. @param {string} name */
results.view = (name) => { byId("results").dataset.view = name; };

// --------------------------------------------------------------------------------------------------- the matrix of wins

const focusCell = (table, row, column) => {
  for (const button of table.querySelectorAll("button[tabindex='0']")) button.tabIndex = -1;
  const button = table.querySelector(`button[data-place="${row},${column}"]`);
  button.tabIndex = 0;
  button.focus();
};

const keys = (table, cells) => (event) => {
  const at = event.target.dataset.place?.split(",").map(Number);
  const next = at && nextCell(cells, at, event.key);
  if (!next) return;
  event.preventDefault();
  focusCell(table, ...next);
};

const cellOf = (value, cells, row, column, open) => {
  const cell = cells[row][column];
  if (!cell) return make("td", { className: row === column ? "same" : "none" }, row === column ? "" : "·");
  const { rate, met, label } = cellText(value.names, row, column, cell);
  const few = value.names.length <= value.roomy;
  const button = make("button", { type: "button", tabIndex: -1, "aria-label": label, title: label },
    `${Math.round(100 * rate)}${few ? "%" : ""}`, ...(few ? [make("small", {}, `of ${met}`)] : []));
  button.dataset.place = `${row},${column}`;
  if (value.opens) button.onclick = () => open(value.systems[row], value.systems[column]);
  else button.setAttribute("aria-disabled", "true");
  const colour = rate > 0.5 ? value.colours[0] : value.colours[1];
  const shade = `color-mix(in srgb, ${colour} ${Math.round(110 * Math.abs(rate - 0.5))}%, transparent)`;
  return make("td", { style: { background: shade } }, button);
};

results.matrix = (element, value, choose) => {
  const place = element.querySelector(".win-matrix");
  if (!place) return;
  if (!value) return place.replaceChildren();
  const cells = matrixOf(value.names.length, value.cells);
  const open = (first, second) => {
    results.cell = `${first},${second}`;
    choose();
  };
  const heads = value.names.map((name, i) => make("th", { scope: "col", title: name }, make("span", { className: "unseen" }, `${name}, `), `${i + 1}`));
  const rows = value.names.map((name, row) => make("tr", {},
    make("th", { scope: "row" }, make("span", { className: "number" }, `${row + 1}`), name),
    ...value.names.map((_, column) => cellOf(value, cells, row, column, open))));
  const table = make("table", { className: value.names.length <= value.roomy ? "roomy" : "dense" },
    make("caption", { className: "unseen" }, "How often the row’s system won against the column’s"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Wins of … against"), ...heads)), make("tbody", {}, ...rows));
  table.onkeydown = keys(table, cells);
  const first = table.querySelector("button");
  if (first) first.tabIndex = 0;
  place.replaceChildren(make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Wins against each other" }, table));
};

// ------------------------------------------------------------------------------------------------------ pairs of a cell

const card = (name, text) => make("article", {}, make("h4", {}, name), make("p", { className: "text" }, text));
const vote = ({ who, verdict, comment, flagged, at }) => make("li", {},
  make("b", {}, verdict), ` · ${who}${at ? ` · ${at}` : ""}${flagged ? " · flagged" : ""}`, ...(comment ? [make("q", {}, comment)] : []));

results.pairs = (element, given) => {
  const dialog = element.querySelector("dialog");
  if (!dialog || !given) return;
  const close = make("button", { type: "button", className: "close" }, "Close (Esc)");
  close.onclick = () => dialog.close();
  const items = given.items.map((item, i) => make("details", { open: i === 0 },
    make("summary", {}, make("span", { className: "prompt" }, item.prompt), make("span", { className: "tally" }, item.tally)),
    ...(item.prompt.length > 120 ? [make("p", { className: "asked" }, item.prompt)] : []),
    item.first === null
      ? make("p", { className: "hint" }, "These votes were imported without the responses.")
      : make("div", { className: "cards", style: { "--columns": 2 } }, card(given.first, item.first), card(given.second, item.second)),
    make("ul", { className: "votes" }, ...item.votes.map(vote))));
  dialog.replaceChildren(
    make("header", {}, make("h2", {}, given.title), close),
    make("p", { className: "hint" }, given.about), ...items);
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  if (!dialog.open) dialog.showModal();
  close.focus();
};
