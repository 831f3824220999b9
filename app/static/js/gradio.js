// @ts-check
// Everything that is known of the elements that Gradio makes: its class names, its ids, what lies in what. A new version
// of Gradio may change any of it, and only this module then.
import { byId } from "./dom.js";

/** Selector of the button of a tab. @param {string} id the tab's elem_id */
export const tabButton = (id) => `#${id}-button`;

/** @param {string} id the tab's elem_id */
export const openTab = (id) => byId(`${id}-button`).click();

/** Press the link Use via API, which the page's style hides: its view lists the endpoints. */
export const openApi = () => /** @type {any} */ (document.querySelector("footer .show-api"))?.click();

/** Show the view Use via API if the address asks for it, and return whether it does. Gradio itself does not fetch the
 * view then; the first press takes it out of the address. */
export const openApiIfAsked = () => {
  const asked = new URLSearchParams(location.search).get("view") === "api";
  if (asked) {
    openApi();
    openApi();
  }
  return asked;
};

/** The button of the tab that is open. @returns {any} */
export const openTabButton = () => document.querySelector("#tabs [role=tab][aria-selected=true]");

/** Whether this element holds the contents of a tab. @param {Element} element */
export const isTabPanel = (element) => element.matches("[role=tabpanel]");

/** Selector of the button that opens an accordion. @param {string} id */
export const accordionButton = (id) => `#${id} > button`;

/** The field of a text box or a dropdown. @param {string} id @returns {any} */
export const field = (id) => document.querySelector(`#${id} textarea, #${id} input`);

/** The element that a component of HTML draws its value in. @param {string} id @returns {any} */
export const html = (id) => document.querySelector(`#${id} [id^="html-"]`) ?? byId(id);

/** The element that all of the page is in. @returns {any} */
export const main = () => document.querySelector("main");

/** Gradio rewrites @media rules so that they hold only in here. @returns {any} */
export const container = () => document.querySelector(".gradio-container .contain");

/** The i-th fader, its inputs, and the element around it with its buttons. @param {number} i */
export const fader = (i) => {
  const element = byId(`fader-${i}`);
  return { around: element.closest(".fader"), inputs: element.querySelectorAll("input") };
};

/** The number of the fader whose slider this element is; undefined for any other. @param {any} element */
export const faderOf = (element) => {
  const [, i] = (element.type === "range" && element.closest(".fader [id^='fader-']")?.id.match(/^fader-(\d+)$/)) || [];
  return i === undefined ? undefined : Number(i);
};

/** The crosses that remove a choice from a dropdown with several, each with the name of its choice.
 * @param {string} id @returns {{cross: any, choice: string}[]} */
export const choiceCrosses = (id) =>
  [...document.querySelectorAll(`#${id} .token .token-remove`)].map((cross) => ({
    cross, choice: (cross.parentElement?.textContent ?? "").trim(),
  }));

/** Whether this element is of a dropdown, or its list of choices. @param {any} element */
export const inDropdown = (element) => Boolean(element.closest("[role=listbox], .multiselect"));

/** Whether this element is the field of a dropdown. @param {any} element */
export const isDropdownField = (element) => element.matches("[role=combobox]");

/** Selector of a dropdown whose list is open. */
export const OPEN_DROPDOWN = "[role=combobox][aria-expanded=true]";

/** A handler's answer that changes a component's properties. @param {Record<string, any>} properties */
export const update = (properties) => ({ __type__: "update", ...properties });

// ---------------------------------------------------------------------------------------------------- the connection

/** The start of the server that this page is from. @returns {any} */
export const pageServer = () => /** @type {any} */ (window).gradio_config?.app_id;

/** The start of the server that is there now; null where it has no desk at this address. @param {AbortSignal} signal */
export const askServer = async (signal) => {
  const answer = await fetch("gradio_api/app_id", { cache: "no-store", signal });
  if (answer.status >= 500) throw new Error(answer.statusText); // a proxy's, whose server is away
  return answer.ok ? (await answer.json()).app_id : null;
};

/** Call a function whenever a request finds no server. Gradio only shows a toast then, and hears no event any more until it
 * has loaded the page again. @param {() => void} failed */
export const onFailedRequest = (failed) => {
  const ask = window.fetch;
  window.fetch = async (...request) => {
    try {
      const answer = await ask(...request);
      if (answer.status >= 502) failed();
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") failed();
      throw error;
    }
  };
};

/** What a component shows, in place of the value that its events told last: while the server is away they tell nothing.
 * @param {string} id @param {any} value its type is the component's */
export const shownValue = (id, value) => {
  const inputs = /** @type {any} */ (byId(id))?.querySelectorAll("textarea, input") ?? [];
  const find = (type) => [...inputs].find((input) => input.type === type);
  if (typeof value === "number") return Number(find("range")?.value ?? value);
  if (typeof value === "boolean") return find("checkbox")?.checked ?? value;
  return inputs[0]?.value ?? value;
};
