// @ts-check
// Which panels are open.
import { byId } from "./dom.js";
import { shown } from "./shortcuts.js";

const SIDES = ["left", "right", "third", "fourth"];
const list = (open) => open.split(",").filter(Boolean);

export const show = (open) => {
  const sides = list(open);
  const panels = byId("panels");
  panels.dataset.open = sides.join(" "); // not a class: Gradio rewrites those
  panels.dataset.count = byId("stage").dataset.panels = sides.length;
  const add = byId("add-panel");
  add.disabled = sides.length === SIDES.length;
  for (const side of ["third", "fourth"]) {
    const remove = byId(`remove-${side}`);
    remove.setAttribute("aria-label", `Remove the ${side} panel`);
    remove.title = `Remove the ${side} panel (${shown("remove-third")} removes the last)`;
  }
};
const changed = (sides) => {
  const open = SIDES.filter((side) => sides.includes(side)).join(",");
  show(open);
  return open;
};
export const add = (open) => changed([...list(open), SIDES.find((side) => !list(open).includes(side))]);
export const remove = (open, gone) => {
  const rest = changed(list(open).filter((side) => side !== gone));
  byId("add-panel").focus();
  return rest;
};
