// @ts-check
// What the other modules need of the browser: elements, ids, keys, storage.

/** A random UUID. */
export const uuid = () => {
  // Pages served over plain http from another machine have no randomUUID, whatever the types say.
  if ("randomUUID" in crypto) return crypto.randomUUID();
  const bytes = /** @type {Crypto} */ (crypto).getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
};

/** The element with this id. An id is known at the place of call, and so is its kind.
 * @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

/** An element. A property that it does not have becomes an attribute; children that are strings stay text.
 * @param {string} tag @param {Record<string, any>} [properties] @param {...(Node | string)} children @returns {any} */
export const make = (tag, properties = {}, ...children) => {
  /** @type {any} */
  const element = document.createElement(tag);
  const { style, ...rest } = properties;
  for (const [name, given] of Object.entries(rest)) {
    if (name in element) element[name] = given;
    else element.setAttribute(name, given);
  }
  for (const [name, given] of Object.entries(style ?? {})) element.style.setProperty(name, given);
  element.append(...children);
  return element;
};

/** Whether an element can be seen and pressed. @param {any} element */
export const pressable = (element) => Boolean(element && element.offsetParent && !element.disabled);

/** Press the visible one of these buttons: a person rates only what they see. @param {...string} ids */
export const press = (...ids) => {
  const button = ids.map(byId).find((element) => element && element.offsetParent);
  if (button && !button.disabled) button.click();
};

/** Whether this element takes text. @param {any} target */
export const typing = (target) =>
  target.isContentEditable || target.matches("textarea:read-write, input:read-write, select");

/** A key by itself, or with Shift, pressed once where nothing is typed. @param {KeyboardEvent} event */
export const plain = (event) =>
  !(event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || typing(event.target));

/** Keep a value for this visit, or read it; null where storage is forbidden, as in a frame of another site.
 * @param {string} key @param {string} [value] */
export const remembered = (key, value) => {
  try {
    if (value !== undefined) sessionStorage.setItem(key, value);
    return sessionStorage.getItem(key);
  } catch { return null; }
};
