// @ts-check
// How each policy pushed the tokens of a response: colour and running sums.

const LEAST = 0.05, FULL = 3; // log-odds from which a token is coloured, and at which its colour is deepest

/** The policy that pushed a token most, and how deep its colour is in percent; null where none pushed enough.
 * @param {number[]} pushes log-odds by policy */
export const strongest = (pushes) => {
  const most = Math.max(...pushes);
  if (most < LEAST) return null;
  return { policy: pushes.indexOf(most), depth: Math.round(6 + 49 * Math.min(1, most / FULL)) };
};

/** The polylines of running sums in a box of 100 by 40, y downward: one string of points for zero and each sum.
 * @param {number[][]} sums by policy, each beginning with 0 */
export const chartLines = (sums) => {
  const all = sums.flat();
  const low = Math.min(-1, ...all), high = Math.max(1, ...all), last = Math.max(24, (sums[0]?.length ?? 1) - 1);
  /** @param {number} value */
  const y = (value) => (38 - (36 * (value - low)) / (high - low)).toFixed(2);
  return {
    zero: `0,${y(0)} 100,${y(0)}`,
    lines: sums.map((sum) => sum.map((value, t) => `${((100 * t) / last).toFixed(2)},${y(value)}`).join(" ")),
  };
};
