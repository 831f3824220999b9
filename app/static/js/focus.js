// @ts-check
// Focus is never lost: where what had it is disabled, hidden or gone, it moves on to what a person does next.
import { byId } from "./dom.js";
import { isDropdownField, isTabPanel, openTabButton } from "./gradio.js";

const PAUSE = 80; // ms: buttons that change together may not do so at once
// By id; otherwise the nearest that can have it.
const NEXT = {
  generate: ["stop"], balance: ["stop"], stop: ["generate"], continue: ["stop"],
  "rate-left": ["generate"], "rate-right": ["generate"], "rate-tie": ["generate"], "rate-both_bad": ["generate"],
  "remove-third": ["add-panel"], "remove-fourth": ["add-panel"],
  replace: ["save"], remove: ["save"], cancel: ["save"],
  sample: ["explore-stop"], "explore-stop": ["sample"],
  "compare-stop": ["compare-resume", "compare-delete"], "compare-resume": ["compare-stop"],
  "compare-sure": ["compare-start"], "compare-keep": ["compare-delete"],
  "study-create": ["study-stop", "study-open"], "study-edit": ["study-create"], "study-cancel": ["study-new"],
  "study-stop": ["study-resume", "study-open"], "study-resume": ["study-stop", "study-open"],
  "study-open": ["study-pause"], "study-pause": ["study-open"],
  "study-sure-close": ["study-duplicate"], "study-sure-delete": ["study-new", "study-create"], "study-keep": ["study-delete"],
};
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex='0']";

let last = null; // {element, path}: what has the focus, or had it
let lent = null; // {from, to}: whose focus is where meanwhile
let pointer = false; // the last thing that was used: who points sees where they are

const usable = (element) =>
  Boolean(element?.isConnected && !element.disabled && element.checkVisibility({ visibilityProperty: true }));

const following = ({ element, path }) => {
  const after = (other) => element.compareDocumentPosition(other) & Node.DOCUMENT_POSITION_FOLLOWING;
  for (const part of path.slice(1)) {
    if (!usable(part)) continue;
    const all = [...part.querySelectorAll(FOCUSABLE)].filter(usable);
    if (all.length) return (element.isConnected && (all.find(after) ?? all.at(-1))) || all[0];
  }
  return null;
};

const successor = (lost) => {
  const { element, path } = lost;
  const again = element.id && byId(element.id);
  if (usable(again)) return again; // replaced
  if (lent?.to === element && usable(lent.from)) return lent.from;
  const named = (NEXT[element.id] ?? []).map((id) => byId(id)).find(usable);
  if (named) return named;
  const panel = path.find((part) => isTabPanel(part));
  if (panel && !usable(panel)) return openTabButton();
  return following(lost);
};

const check = () => {
  const now = document.activeElement;
  if (pointer || !last || usable(last.element)) return;
  if (now && now !== document.body && now !== last.element) return;
  const from = last.element, to = successor(last);
  if (!to) return;
  to.focus();
  lent = { from, to };
};

let timer = /** @type {any} */ (0);
const later = () => { timer ||= setTimeout(() => { timer = 0; check(); }, PAUSE); };

export const listen = () => {
  document.addEventListener("focusin", ({ target }) => {
    const path = [];
    for (let part = target; part && part !== document.documentElement; part = part.parentElement) path.push(part);
    last = { element: target, path };
    if (lent?.to !== target) lent = null;
  });
  document.addEventListener("pointerdown", () => { pointer = true; }, true);
  document.addEventListener("keydown", (event) => {
    pointer = false;
    // Gradio's dropdown opens its list at any key, later than the same key has taken the focus elsewhere: it would stay
    // open, and break the page when its choices are fewer.
    if (event.key === "Tab" && isDropdownField(event.target)) event.stopPropagation();
  }, true);
  new MutationObserver(later).observe(document, {
    subtree: true, childList: true, attributes: true, attributeFilter: ["disabled", "hidden", "class", "style", "open"],
  });
};
