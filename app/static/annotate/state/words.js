// @ts-check
// What the page says about where the annotator is.

/** @typedef {{answered: number, total: number | null, training: {done: number, total: number, attempt: number}}} Progress */

/** The line beside the bar. @param {Progress} progress @param {boolean} training */
export const progressLine = ({ answered, total, training: { done, total: all, attempt } }, training) => {
  if (training) return `Training: ${done} of ${all}${attempt > 1 ? ", second attempt" : ""}`;
  return total === null ? `${answered} rated` : `${answered} of ${total}`;
};

/** How full the bar is: [value, max], or null for a number without an end.
 * @param {Progress} progress @param {boolean} training @returns {[number, number] | null} */
export const barOf = ({ answered, total, training: { done, total: all } }, training) => {
  if (training) return [done, Math.max(all, 1)];
  return total === null ? null : [Math.min(answered, total), Math.max(total, 1)];
};

/** The heading of a pair, as it is read out. @param {Progress} progress @param {boolean} training */
export const pairTitle = ({ answered, total, training: { done, total: all } }, training) => {
  if (training) return `Training pair ${Math.min(done + 1, all)} of ${all}`;
  return total === null ? `Pair ${answered + 1}` : `Pair ${Math.min(answered + 1, total)} of ${total}`;
};

/** What A or B, a tie, or both bad is called, in short. @param {string} choice */
export const shortChoice = (choice) => ({ left: "A", right: "B", tie: "Tie", both_bad: "Both bad" })[choice] ?? "";

/** A number of things. @param {number} number @param {string} thing */
export const count = (number, thing) => `${number} ${thing}${number === 1 ? "" : "s"}`;
