// @ts-check
// What an answer of the server means for a request, and when one that failed is sent again.

/** @typedef {"done" | "again" | "refused"} Verdict again: the server is away, or too busy */

const FIRST = 1000, LONGEST = 15_000; // ms

/** What a status means. 0 is no answer at all.
 * @param {number} status
 * @param {boolean} patient whether to wait where there were too many requests, rather than say so
 * @returns {Verdict} */
export const verdictOf = (status, patient = true) => {
  if (status >= 200 && status < 300) return "done";
  if (status === 429) return patient ? "again" : "refused";
  return status === 0 || status === 408 || status === 425 || status >= 500 ? "again" : "refused";
};

/** How long to wait before the next attempt, in ms: twice as long each time, or as long as the server asks.
 * @param {number} failures how many attempts have failed; 1 or more
 * @param {string | null} [retryAfter] seconds, as a header has them */
export const waitBefore = (failures, retryAfter = null) => {
  const asked = Number(retryAfter) * 1000;
  return Math.min(Math.max(FIRST * 2 ** (failures - 1), asked > 0 ? asked : 0), LONGEST);
};
