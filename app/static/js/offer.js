// @ts-check
// The point that Balance's sentence says is better: its button takes it to the faders.
import { placed } from "./mixer.js";

/** The faders and the status line after the offer is taken.
 * @param {string[]} names of the policies @param {any[]} values of the faders and channels */
export const take = (names, values) => {
  /** @type {any} */
  const offer = document.querySelector("#status .offer");
  const faders = values.slice(0, -1);
  if (!offer) return [...faders, document.querySelector("#status p")?.innerHTML];
  const offered = JSON.parse(offer.dataset.faders);
  return [...placed(values, names.map((name, i) => offered[name] ?? Number(faders[i]))), offer.dataset.said];
};
