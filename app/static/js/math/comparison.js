// @ts-check
// Which prompts the Compare tab shows, in which order, and by which number.

export const ALL = "all", LOWEST = "lowest";
const EQUAL = 0.005; // a difference below this is shown as none
const WIDEST = 3; // standard deviations at either end of a bar

/**
 * @typedef {{search: string, reward: string, filter: string, sort: number | string | null, down: boolean, limit: number}} View
 * @typedef {{place: number, prompt: string, texts: string[], rewards: ((number | null)[] | null)[]}} Row
 */

/** @param {number} number */
export const signed = (number) => `${number <= -EQUAL ? "−" : "+"}${Math.abs(number).toFixed(2)}`;

/** The number that a cell is sorted and compared by: the chosen reward, or the lowest of all; null where one is missing.
 * @param {(number | null)[] | null | undefined} rewards @param {string[]} objectives @param {string} reward */
export const score = (rewards, objectives, reward) => {
  if (!rewards || !rewards.length) return null;
  const place = objectives.indexOf(reward);
  const counted = place < 0 ? rewards : [rewards[place]];
  const numbers = counted.filter((one) => one !== null && one !== undefined);
  return numbers.length < counted.length ? null : Math.min(...numbers);
};

/** The difference to the first mixture; null where either is missing.
 * @param {number | null} own @param {number | null} first */
export const difference = (own, first) => {
  if (own === null || first === null) return null;
  const gap = own - first;
  const kind = Math.abs(gap) < EQUAL ? "same" : gap > 0 ? "up" : "down";
  return { kind, text: `${{ same: "=", up: "▲", down: "▼" }[kind]} ${signed(gap)}` };
};

/** Where a bar begins and how wide it is, as fractions: from the middle, up to 3 standard deviations either way.
 * @param {number} reward */
export const barSpan = (reward) => {
  const width = Math.min(Math.abs(reward), WIDEST) / (2 * WIDEST);
  return { left: reward < 0 ? 0.5 - width : 0.5, width };
};

/** The rows that match the search and the filter, sorted. The filter "1>0": the second mixture beats the first.
 * @param {Row[]} rows @param {View} view @param {string[]} objectives */
export const selectRows = (rows, view, objectives) => {
  const search = view.search.trim().toLowerCase();
  const [better, worse] = view.filter.split(">").map(Number);
  /** @param {Row["rewards"][number]} rewards */
  const scored = (rewards) => score(rewards, objectives, view.reward);
  let matching = rows.filter((row) => !search || [row.prompt, ...row.texts].some((text) => text.toLowerCase().includes(search)));
  if (view.filter) {
    matching = matching.filter(({ rewards }) => {
      const one = scored(rewards[better]), other = scored(rewards[worse]);
      return one !== null && other !== null && one > other;
    });
  }
  const { sort } = view;
  if (sort === null) return matching;
  /** @param {Row} row @returns {any} */
  const key = (row) => (sort === "prompt" ? row.prompt.toLowerCase() : scored(row.rewards[Number(sort)]));
  const sign = view.down ? -1 : 1;
  return matching
    .map((row) => ({ key: key(row), row }))
    // A row without a number comes last in either order.
    .sort(({ key: a }, { key: b }) => Number(a === null) - Number(b === null) || (a === b ? 0 : (a < b ? -1 : 1) * sign))
    .map(({ row }) => row);
};

/** The next order of a column: first its natural one, then the reverse, then the file's.
 * @param {Pick<View, "sort" | "down">} view @param {number | string} sort @returns {Pick<View, "sort" | "down">} */
export const nextSort = (view, sort) => {
  const natural = sort !== "prompt"; // rewards from the highest, prompts from A
  if (view.sort !== sort) return { sort, down: natural };
  return view.down === natural ? { sort, down: !view.down } : { sort: null, down: view.down };
};
