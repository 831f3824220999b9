// @ts-check
// The Compare tab's table and dialog. All that people or models wrote is set as text, never as HTML.
import { byId, make, pressable } from "./dom.js";
import { inDropdown } from "./gradio.js";
import { ALL, LOWEST, barSpan, difference, nextSort, score as scoreOf, selectRows, signed } from "./math/comparison.js";
import { matches } from "./shortcuts.js";

const STEP = 50; // rows at a time
/** @type {Record<string, any>} place: of the prompt that is open */
export const compare = { place: -1 };
let value = null; // what the server says of the comparison that is shown
let chosen = () => {};
let order = []; // places as they are shown now
const view = { search: "", reward: ALL, filter: "", sort: null, down: true, limit: STEP };

const option = (given, label) => make("option", { value: given }, label);
const swatch = ({ line }) => make("span", { className: "line", style: { "border-top": line } });
const dot = (colour) => make("span", { className: "dot", style: { "--accent": colour } });

// One bar from the reference's mean, in the middle, to 3 standard deviations either way.
const bar = (reward, colour, title) => {
  const { left, width } = barSpan(reward);
  const fill = make("i", { style: { left: `${100 * left}%`, width: `${100 * width}%`, background: colour } });
  return make("span", { className: "reward-bar", title }, fill);
};

const objectives = () => value.objectives.map(({ name }) => name);
const score = (rewards) => scoreOf(rewards, objectives(), view.reward);

const gapOf = (own, first) => {
  const gap = difference(own, first);
  return gap ? make("span", { className: `gap ${gap.kind}`, title: "difference to the first mixture" }, gap.text) : "";
};

const cell = (row, i) => {
  const rewards = row.rewards[i];
  const text = row.texts[i];
  const own = score(rewards);
  if (own === null) return make("td", { className: "none" }, text ? `${text.slice(0, 60)}…` : "–");
  const shown = view.reward === ALL
    ? value.objectives.map(({ name, colour }, k) => bar(rewards[k], colour, `${name} ${signed(rewards[k])}σ`))
    : [bar(own, value.objectives.find(({ name }) => name === view.reward)?.colour ?? "currentColor", `${signed(own)}σ`)];
  const figures = make("span", { className: "figures" }, make("b", {}, signed(own)), i ? gapOf(own, score(row.rewards[0])) : "");
  return make("td", {}, make("span", { className: "bars" }, ...shown), figures);
};

const open = (place) => {
  compare.place = place;
  chosen();
};

const heading = (label, sort, parts, className) => {
  const now = view.sort === sort;
  const button = make("button", { type: "button", className: "sort" }, ...parts, make("span", { className: "arrow" }, now ? (view.down ? "▼" : "▲") : "↕"));
  button.setAttribute("aria-label", `Sort by ${label}`);
  button.dataset.key = `sort ${label}`;
  button.onclick = () => {
    Object.assign(view, nextSort(view, sort));
    draw();
  };
  return make("th", { scope: "col", className, "aria-sort": now ? (view.down ? "descending" : "ascending") : "none" }, button);
};

let parts = null; // of the table on the page
const draw = () => {
  const { head, body, count, more } = parts;
  const focused = parts.element.contains(document.activeElement) && /** @type {any} */ (document.activeElement).dataset.key;
  const rows = selectRows(value.rows, view, objectives());
  order = rows.map(({ place }) => place);
  head.replaceChildren(make("tr", {},
    heading("prompt", "prompt", ["Prompt"], "prompt"),
    ...value.mixtures.map((mixture, i) => heading(mixture.name, i, [swatch(mixture), mixture.name], "")),
  ));
  body.replaceChildren(...rows.slice(0, view.limit).map((row) => {
    const opener = make("button", { type: "button", className: "open" }, row.prompt);
    opener.dataset.key = row.place;
    const line = make("tr", {}, make("th", { scope: "row", className: "prompt" }, opener), ...value.mixtures.map((_, i) => cell(row, i)));
    line.onclick = () => open(row.place);
    return line;
  }));
  if (!rows.length) body.append(make("tr", {}, make("td", { className: "none", colSpan: value.mixtures.length + 1 }, "No prompt matches: change the search or the filter.")));
  count.textContent = `${rows.length} of ${value.rows.length} prompts`;
  more.hidden = rows.length <= view.limit;
  more.textContent = `Show ${Math.min(STEP, rows.length - view.limit)} more`;
  if (focused) parts.element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
};

// The tools are made once a comparison: a search is not lost while responses come in.
const build = (place) => {
  Object.assign(view, { search: "", reward: ALL, filter: "", sort: null, down: true, limit: STEP });
  const search = make("input", { type: "search", placeholder: "Search prompts and responses", "aria-label": "Search prompts and responses" });
  search.oninput = () => { Object.assign(view, { search: search.value, limit: STEP }); draw(); };
  const reward = make("select", { "aria-label": "Reward that is shown" },
    option(ALL, "All, sorted by the lowest"), option(LOWEST, "Lowest reward"),
    ...value.objectives.map(({ name }) => option(name, name)));
  reward.onchange = () => { view.reward = reward.value; draw(); };
  const filter = make("select", { "aria-label": "Prompts that are shown" }, option("", "All prompts"));
  const [first, ...others] = value.mixtures;
  others.forEach(({ name }, i) => {
    filter.append(option(`${i + 1}>0`, `${name} beats ${first.name}`), option(`0>${i + 1}`, `${first.name} beats ${name}`));
  });
  filter.onchange = () => { Object.assign(view, { filter: filter.value, limit: STEP }); draw(); };
  const count = make("span", { className: "count", role: "status" });
  const head = make("thead"), body = make("tbody");
  const more = make("button", { type: "button", className: "more" });
  more.onclick = () => { view.limit += STEP; draw(); };
  const legend = make("p", { className: "legend" }, ...value.objectives.map(({ name, colour }) => make("span", {}, dot(colour), name)),
    make("span", {}, "Bars go from the reference’s mean to ±3σ; ▲▼ is the difference to the first mixture."));
  const box = make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Responses" }, make("table", { className: "prompts" }, head, body));
  place.replaceChildren(make("div", { className: "tools" }, search, reward, filter, count), legend, box, more);
  parts = { element: place, head, body, count, more, comparison: value.comparison };
};

compare.table = (element, given, choose) => {
  const place = element.querySelector(".compare-table");
  if (!place || !given) return;
  [value, chosen] = [given, choose];
  const fresh = !parts || parts.element !== place || parts.comparison !== given.comparison;
  if (!fresh) return draw();
  // Written again by the page, with the same comparison: as it was.
  const kept = parts && parts.comparison === given.comparison ? { ...view } : null;
  build(place);
  if (kept) {
    Object.assign(view, kept);
    const [search, reward, filter] = place.querySelectorAll("input, select");
    [search.value, reward.value, filter.value] = [view.search, view.reward, view.filter];
  }
  return draw();
};

compare.prompt = (element, given) => {
  const dialog = element.querySelector("dialog");
  if (!dialog || !given) return;
  const stepped = /** @type {any} */ (document.activeElement).dataset.step;
  const step = (by, label) => {
    const next = order[order.indexOf(compare.place) + by];
    const button = make("button", { type: "button", disabled: next === undefined }, label);
    button.dataset.step = by;
    button.onclick = () => open(next);
    return button;
  };
  const close = make("button", { type: "button", className: "close" }, "Close (Esc)");
  close.onclick = () => dialog.close();
  const first = given.responses[0];
  const cards = given.responses.map((response) => {
    const rows = given.objectives.flatMap(({ name, colour }, i) => {
      const reward = response.rewards[i];
      const why = response.missing[name];
      if (!reward) {
        return why ? [make("tr", {}, make("th", { scope: "row" }, dot(colour), name), make("td", { className: "why", colSpan: 3 }, `no reward: ${why}`))] : [];
      }
      const gap = response === first || !first.rewards[i] ? "" : gapOf(reward[1], first.rewards[i][1]);
      return [make("tr", {},
        make("th", { scope: "row" }, dot(colour), name),
        make("td", {}, bar(reward[1], colour, `${signed(reward[1])}σ`)),
        make("td", { title: `raw reward ${reward[0].toFixed(3)}` }, `${signed(reward[1])}σ`),
        make("td", {}, gap))];
    });
    return make("article", {},
      make("h3", {}, swatch(response), response.name),
      make("p", { className: "text" }, response.text || "(an empty response)"),
      make("table", { className: "card-rewards" }, make("tbody", {}, ...rows)),
      make("p", { className: "made" }, response.made));
  });
  const nothing = make("p", { className: "hint" }, "No responses yet: this prompt’s turn is still to come.");
  dialog.replaceChildren(
    make("header", {}, make("h2", {}, given.title), step(-1, "← Previous"), step(1, "Next →"), close),
    make("p", { className: "asked" }, given.prompt),
    make("div", { className: "cards", style: { "--columns": cards.length < 5 ? cards.length || 1 : 3 } }, ...(cards.length ? cards : [nothing])));
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  dialog.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && !event.altKey) dialog.querySelector(`[data-step="${by}"]`).click();
  };
  if (!dialog.open) dialog.showModal();
  (stepped ? dialog.querySelector(`[data-step="${stepped}"]:enabled`) ?? close : close).focus();
};


export const listen = () => {
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing) return;
    // An open dialog keeps its keys: Escape closes it, and stops nothing behind it.
    if (document.querySelector("dialog[open]")) return;
    const press = (id) => { if (pressable(byId(id))) byId(id).click(); };
    /** @type {any} */
    const target = event.target;
    if (matches(event, "run")) ["compare-start", "study-create"].forEach(press);
    else if (matches(event, "stop") && !inDropdown(target) && !target.closest("#compare-mixtures, #study-mixtures, input[type=search]")) ["compare-stop", "study-stop"].forEach(press);
  });
};
