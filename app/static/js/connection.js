// @ts-check
// Whether the server can be reached. Requests that fail report it here; then the server is asked until it answers. Each change
// is an event "connection" of the document; outage.js shows it.
import { askServer, onFailedRequest, pageServer } from "./gradio.js";
import { after, checks, told } from "./math/connection.js";

const EVERY = 1000; // ms from one check to the next
const PATIENCE = 10_000; // ms a check may take: a busy server answers late
/** @type {import("./math/connection.js").State} */
let now = "up";
let timer = /** @type {any} */ (0);

export const state = () => now;

/** Whether something that was under way when the connection broke may be broken off. */
export const disturbed = () => now === "lost" || now === "back" || now === "restarted";

/** @param {import("./math/connection.js").Event} event */
const change = (event) => {
  const before = now;
  now = after(before, event);
  if (now !== before) document.dispatchEvent(new CustomEvent("connection", { detail: now }));
};

const check = async () => {
  clearTimeout(timer);
  const found = await askServer(AbortSignal.timeout(PATIENCE)).catch(() => undefined);
  if (!checks(now)) return;
  change(told(now, { mine: pageServer(), found }));
  if (checks(now)) timer = setTimeout(check, EVERY);
};

/** A request failed, or has no answer for long: look whether the server is there. */
export const suspect = () => {
  if (checks(now)) return;
  change("suspected");
  if (checks(now)) check();
};

/** Generate was pressed: what was broken off is past. */
export const used = () => change("used");

/** Look again at once. */
export const again = () => { if (now === "lost") check(); };

export const listen = () => {
  onFailedRequest(suspect);
};
