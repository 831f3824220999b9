// @ts-check
// Dropdowns with several choices: the crosses that remove one have its name.
import { choiceCrosses } from "./gradio.js";

/** Gradio calls the crosses by number, and replaces them now and then.
 * @param {Element} element an element in the tab @param {string} tab its id @param {string} dropdown */
export const begin = (element, tab, dropdown) => {
  const name = () => {
    for (const { cross, choice } of choiceCrosses(dropdown)) {
      const label = `Remove ${choice}`;
      if (cross.ariaLabel !== label) cross.ariaLabel = cross.title = label;
    }
  };
  const around = /** @type {Element} */ (element.closest(`#${tab}`));
  new MutationObserver(name).observe(around, { childList: true, subtree: true, attributeFilter: ["title"] });
  name();
};
