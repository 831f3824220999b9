// @ts-check
// The answers to one pair: which question is asked now, and what has been chosen.

/** @typedef {"left" | "right" | "tie" | "both_bad"} Choice */
/** @typedef {{keys: string[], answers: Record<string, Choice>, at: number}} Sheet
 * keys: of the questions; at: the index of the one that is asked now */

/** A sheet for these questions.
 * @param {string[]} keys
 * @param {Record<string, Choice>} [previous] answers that were undone; those to other questions are left out
 * @returns {Sheet} */
export const newSheet = (keys, previous = {}) => ({
  keys,
  answers: Object.fromEntries(keys.filter((key) => Object.hasOwn(previous, key)).map((key) => [key, previous[key]])),
  at: 0,
});

/** Whether every question has an answer. @param {Sheet} sheet */
export const isComplete = ({ keys, answers }) => keys.every((key) => Object.hasOwn(answers, key));

/** The sheet with an answer to the question that is asked now; the next one without an answer is asked then.
 * @param {Sheet} sheet @param {Choice} choice @returns {Sheet} */
export const choose = ({ keys, answers, at }, choice) => {
  const more = { ...answers, [keys[at]]: choice };
  const order = [...keys.keys()].map((i) => (at + 1 + i) % keys.length);
  return { keys, answers: more, at: order.find((i) => !Object.hasOwn(more, keys[i])) ?? at };
};

/** The sheet at another question. @param {Sheet} sheet @param {number} index @returns {Sheet} */
export const goTo = (sheet, index) => ({ ...sheet, at: Math.min(Math.max(index, 0), sheet.keys.length - 1) });
