// @ts-check
// Marks on the radar's axes: the even mixture, the soup, and Balance, each by a shape of its own. They lie under the target's
// handles and take no clicks; what they are stands in the legend below.
import { byId } from "./dom.js";
import * as target from "./target.js";

const SVG = "http://www.w3.org/2000/svg";
let marks = [], drawing = null;

export const place = () => {
  const radar = byId("radar");
  if (!radar) return;
  if (!drawing) {
    drawing = document.createElementNS(SVG, "svg");
    drawing.id = "radar-marks";
    drawing.setAttribute("aria-hidden", "true");
  }
  // Before the handles, so that these are on top.
  if (drawing.parentElement !== radar) radar.insertBefore(drawing, byId("radar-target"));
  const to = target.scale();
  const drawn = to ? marks.filter(({ rewards }) => rewards.length === to.count) : [];
  const paths = drawn.flatMap(({ name, path, rewards }) => rewards.flatMap((value, i) => {
    if (value === null) return [];
    const shape = document.createElementNS(SVG, "path");
    const [x, y] = to.point(i, target.clamped(value));
    shape.setAttribute("class", `mark-${name}`);
    shape.setAttribute("d", path);
    shape.setAttribute("transform", `translate(${x} ${y})`);
    return [shape];
  }));
  drawing.replaceChildren(...paths);
};
/** @param {any[]} given */
export const show = (given) => { marks = given ?? []; place(); };

export const listen = () => {
  document.addEventListener("figure-drawn", (event) => {
    if (event.detail === "radar") place();
  });
};
