// @ts-check
// The answer that the server may not have yet. It is kept in the browser, so that neither an outage nor a reload loses it;
// the id of its assignment makes it safe to send it twice.

/** @typedef {{assignment: string, answers: Record<string, string>, seconds: number}} Answer */

export class Outbox {
  /** @param {Pick<Storage, "getItem" | "setItem" | "removeItem"> | null} storage null where it is forbidden
   * @param {string} key */
  constructor(storage, key) {
    this.storage = storage;
    this.key = key;
    this.kept = /** @type {Answer | null} */ (null);
  }

  /** @param {Answer} answer */
  put(answer) {
    this.kept = answer;
    try { this.storage?.setItem(this.key, JSON.stringify(answer)); } catch { /* full: it is kept while the page is open */ }
  }

  /** @returns {Answer | null} */
  get() {
    if (this.kept) return this.kept;
    try {
      const answer = JSON.parse(this.storage?.getItem(this.key) ?? "null");
      return typeof answer?.assignment === "string" && typeof answer.answers === "object" ? answer : null;
    } catch { return null; }
  }

  /** The server has it, or has refused it. */
  clear() {
    this.kept = null;
    try { this.storage?.removeItem(this.key); } catch { /* forbidden: nothing is there */ }
  }
}
