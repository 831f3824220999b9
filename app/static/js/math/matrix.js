// @ts-check
// The matrix of wins: what each cell says, and where an arrow key goes.

/** @typedef {{wins: number, ties: number, losses: number}} Cell of the row's system against the column's */

/** All cells from those above the diagonal, null where two systems never met.
 * @param {number} size @param {number[][]} upper [row, column, wins, ties, losses] @returns {(Cell | null)[][]} */
export const matrixOf = (size, upper) => {
  /** @type {(Cell | null)[][]} */
  const cells = Array.from({ length: size }, () => Array(size).fill(null));
  for (const [row, column, wins, ties, losses] of upper) {
    cells[row][column] = { wins, ties, losses };
    cells[column][row] = { wins: losses, ties, losses: wins };
  }
  return cells;
};

/** @param {number} number @param {string} one @param {string} many */
const counted = (number, one, many) => `${number} ${number === 1 ? one : many}`;

/** The win rate, a tie being half a win, the number of votes, and both in words.
 * @param {string[]} names @param {number} row @param {number} column @param {Cell} cell */
export const cellText = (names, row, column, { wins, ties, losses }) => {
  const met = wins + ties + losses, rate = (wins + ties / 2) / met;
  const parts = [counted(wins, "win", "wins"), counted(ties, "tie", "ties"), counted(losses, "loss", "losses")];
  return { rate, met, label: `${names[row]} against ${names[column]}: ${Math.round(100 * rate)}%, ${parts.join(", ")}` };
};

/** @type {Record<string, [number, number]>} */
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** The next cell that has votes in the direction of an arrow key, or the row's first or last for Home and End.
 * @param {(Cell | null)[][]} cells @param {[number, number]} at @param {string} key @returns {[number, number] | null} */
export const nextCell = (cells, [row, column], key) => {
  if (key === "Home" || key === "End") {
    const place = cells[row][key === "Home" ? "findIndex" : "findLastIndex"](Boolean);
    return [row, place];
  }
  const step = STEPS[key];
  if (!step) return null;
  let [y, x] = [row + step[0], column + step[1]];
  while (cells[y]?.[x] === null) [y, x] = [y + step[0], x + step[1]];
  return cells[y]?.[x] ? [y, x] : null;
};
