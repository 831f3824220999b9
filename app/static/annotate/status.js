// @ts-check
// What is said in passing: that an answer is saved, or a line over the text.
import { announce, byId, show } from "./dom.js";

const SAVED = 1800, FLASH = 5000; // ms
const timers = { saved: 0, flash: 0 };

/** Show a line over the text for a while. @param {string} line */
export const flash = (line) => {
  byId("flash").textContent = line;
  show("flash", true);
  clearTimeout(timers.flash);
  timers.flash = window.setTimeout(() => show("flash", false), FLASH);
  announce(line);
};

/** Show for a moment that the server has stored what it got. */
export const showSaved = () => {
  byId("saved").textContent = "Saved ✓";
  byId("saved").classList.add("shown");
  clearTimeout(timers.saved);
  timers.saved = window.setTimeout(() => byId("saved").classList.remove("shown"), SAVED);
  announce("Saved.");
};
