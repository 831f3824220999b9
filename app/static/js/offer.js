// @ts-check
// The point that Balance's sentence says is better: its button takes it to the faders.
import { placed } from "./mixer.js";

/** The faders and the status line after the offer is taken. @param {any[]} now */
export const take = (now) => {
  /** @type {any} */
  const offer = document.querySelector("#status .offer");
  const faders = now.slice(0, -1);
  if (!offer) return [...faders, document.querySelector("#status p")?.innerHTML];
  const positions = JSON.parse(offer.dataset.positions).map((position, i) => position ?? Number(faders[i]));
  return [...placed(now, positions), offer.dataset.said];
};
