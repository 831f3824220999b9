// @ts-check
// Requests to the server. While it cannot be reached the page says so, and each request is sent again until it is answered.
import { announce, byId, show } from "./dom.js";
import { verdictOf, waitBefore } from "./state/delivery.js";

const PATIENCE = 20_000; // ms that an answer may take
const SLOW = 700; // ms of failure after which it is shown: a server that is restarted at once is no news
const STUDY = new URL(location.pathname.replace(/\/+$/, ""), location.href);

/** The server does not do what it was asked, and says why. */
export class Refused extends Error {
  /** @param {number} status @param {string} message one line */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let wake = () => {};

/** @param {string} text shown until the server is back; "" hides it */
const tellOutage = (text) => {
  if (byId("outage-text").textContent !== text) byId("outage-text").textContent = text;
  show("outage", Boolean(text));
  document.body.toggleAttribute("data-outage", Boolean(text));
};

/** @param {string} action @param {Record<string, any>} body */
const post = async (action, body) => {
  try {
    const answer = await fetch(`${STUDY.pathname}/${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(PATIENCE),
    });
    const text = await answer.text();
    let value;
    try { value = JSON.parse(text); } catch { value = null; }
    // A proxy's page, or that of a server that is starting.
    const status = answer.ok && value === null ? 0 : answer.status;
    return { status, value, retryAfter: answer.headers.get("retry-after") };
  } catch {
    return { status: 0, value: null, retryAfter: null };
  }
};

/** Ask the server, again and again until it answers.
 * @param {string} action @param {Record<string, any>} [body]
 * @param {{waiting?: string, patient?: boolean}} [options] waiting: what the page says meanwhile; patient: whether to wait
 * where there were too many requests
 * @returns {Promise<any>} @throws {Refused} */
export const ask = async (action, body = {}, { waiting = "It is tried again.", patient = true } = {}) => {
  const began = performance.now();
  for (let failures = 1; ; failures++) {
    const { status, value, retryAfter } = await post(action, body);
    const verdict = verdictOf(status, patient);
    if (verdict !== "again" && !byId("outage").hidden) {
      tellOutage("");
      announce("The server is back.");
    }
    if (verdict === "done") return value;
    if (verdict === "refused") throw new Refused(status, value?.error ?? `The server answers with ${status}.`);
    const wait = waitBefore(failures, retryAfter);
    const what = status === 429 ? "There are too many requests." : "The server cannot be reached.";
    if (performance.now() - began + wait > SLOW) tellOutage(`${what} ${waiting}`);
    await /** @type {Promise<void>} */ (new Promise((resolve) => {
      const timer = setTimeout(resolve, wait);
      wake = () => { clearTimeout(timer); resolve(); };
    }));
  }
};

export const listen = () => {
  byId("try-now").addEventListener("click", () => wake());
  window.addEventListener("online", () => wake());
};
