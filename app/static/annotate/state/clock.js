// @ts-check
// How long a pair was looked at. The clock runs only while it is shown: not in a hidden tab, a pause, or after the answer.

export class Clock {
  /** @param {() => number} now milliseconds that never go back */
  constructor(now) {
    this.now = now;
    this.before = 0;
    this.since = /** @type {number | null} */ (null);
  }

  /** Begin a pair. @param {number} [seconds] for which it was looked at already, before the page was loaded again */
  begin(seconds = 0) {
    this.before = seconds * 1000;
    this.since = null;
  }

  run() {
    this.since ??= this.now();
  }

  stop() {
    this.before = this.milliseconds;
    this.since = null;
  }

  get milliseconds() {
    return this.before + (this.since === null ? 0 : this.now() - this.since);
  }

  get seconds() {
    return Math.round(this.milliseconds) / 1000;
  }
}
