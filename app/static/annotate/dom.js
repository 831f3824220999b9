// @ts-check
// What the other modules need of the browser.

/** The element with this id. @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/** An element; children that are strings stay text.
 * @param {string} tag @param {Record<string, any>} [properties] @param {...(Node | string)} children @returns {any} */
export const make = (tag, properties = {}, ...children) => {
  /** @type {any} */
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};

/** Show an element or hide it. @param {any} target an element or its id @param {boolean} shown */
export const show = (target, shown) => { (typeof target === "string" ? byId(target) : target).hidden = !shown; };

/** Whether this element takes text. @param {any} target */
export const isTyping = (target) => target instanceof Element && target.matches("textarea, input, select");

/** A storage of the browser; null where it is forbidden. @param {"localStorage" | "sessionStorage"} name */
export const storageOf = (name) => {
  try { return window[name]; } catch { return null; }
};

/** Have a line read out. @param {string} line */
export const announce = (line) => {
  const announcer = byId("announcer");
  // The same line twice is read out twice.
  announcer.textContent = announcer.textContent === line ? `${line} ` : line;
};
