// @ts-check
// The states of the connection to the server. The page checks the server only in CHECKING and LOST.

/** @typedef {"up" | "checking" | "lost" | "back" | "restarted"} State */
/** @typedef {"suspected" | "answered" | "silent" | "other" | "used"} Event a request failed; a check was
 * answered, or not, or by another start of the server; Generate was pressed */

/** @type {Record<State, Partial<Record<Event, State>>>} */
const AFTER = {
  up: { suspected: "checking" },
  checking: { answered: "up", silent: "lost", other: "restarted" },
  lost: { answered: "back", other: "restarted" },
  back: { suspected: "checking", used: "up" },
  restarted: {}, // the page is loaded again
};

/** The state after an event. @param {State} state @param {Event} event @returns {State} */
export const after = (state, event) => AFTER[state][event] ?? state;

/** Whether the server is to be checked again and again. @param {State} state */
export const checks = (state) => state === "checking" || state === "lost";

/** What a check tells. @param {State} state
 * @param {{mine: any, found: any}} ids the server's start that the page is from, and the one that answered: null where the
 * address has no desk (any more), undefined where nothing answered. @returns {Event} */
export const told = (state, { mine, found }) => {
  if (found === undefined) return "silent";
  // A desk may be closed to make room for another; configurations.js tells. After an outage the server has begun again.
  if (found === null) return state === "lost" ? "other" : "answered";
  return found === mine ? "answered" : "other";
};
