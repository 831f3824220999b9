// @ts-check
// What each key does on the page, and what the list of keys says of it.

/** @typedef {{shown: string[], keys: string[], action: string, help: string, needs?: string}} Row
 * keys: KeyboardEvent.key in lower case; needs: the choice, or "several" questions, that the row is for */

/** @type {Row[]} */
export const KEYS = [
  { shown: ["←", "1"], keys: ["arrowleft", "1"], action: "left", help: "A is better", needs: "left" },
  { shown: ["→", "2"], keys: ["arrowright", "2"], action: "right", help: "B is better", needs: "right" },
  { shown: ["↑", "3"], keys: ["arrowup", "3"], action: "tie", help: "Tie", needs: "tie" },
  { shown: ["↓", "4"], keys: ["arrowdown", "4"], action: "both_bad", help: "Both are bad", needs: "both_bad" },
  { shown: ["Enter"], keys: ["enter"], action: "send", help: "Send the answers", needs: "several" },
  { shown: ["⌫"], keys: ["backspace"], action: "back", help: "Back to the question before", needs: "several" },
  { shown: ["Space"], keys: [], action: "", help: "Scroll down; with Shift, up" },
  { shown: ["U"], keys: ["u"], action: "undo", help: "Undo the last answer" },
  { shown: ["S"], keys: ["s"], action: "skip", help: "Skip this pair" },
  { shown: ["F"], keys: ["f"], action: "flag", help: "Flag this pair, with a comment" },
  { shown: ["G"], keys: ["g"], action: "guidelines", help: "Read the guidelines" },
  { shown: ["P"], keys: ["p"], action: "pause", help: "Pause" },
  { shown: ["?"], keys: ["?"], action: "keys", help: "Show these keys" },
];

/** The action of a key; "" if there is none. A key that is held down acts once.
 * @param {{key: string, repeat?: boolean, isComposing?: boolean, ctrlKey?: boolean, metaKey?: boolean, altKey?: boolean}} event */
export const actionOf = ({ key, repeat, isComposing, ctrlKey, metaKey, altKey }) => {
  if (repeat || isComposing || ctrlKey || metaKey || altKey) return "";
  return KEYS.find(({ keys }) => keys.includes(key.toLowerCase()))?.action ?? "";
};

/** The rows that a study's page has. @param {string[]} choices @param {number} questions their number */
export const keysFor = (choices, questions) =>
  KEYS.filter(({ needs }) => !needs || choices.includes(needs) || (needs === "several" && questions > 1));
