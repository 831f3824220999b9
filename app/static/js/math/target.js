// @ts-check
// The geometry of the target on the radar: standard deviations to pixels and back.

const TOLERANCE = 0.006; // fader positions closer than this are the same

/** @param {number} value @param {number} reach */
export const clamp = (value, reach) => Math.min(reach, Math.max(-reach, value));

/** A goal as it is sent: within reach, in hundredths. @param {number} value @param {number} reach */
export const goalOf = (value, reach) => Math.round(100 * clamp(value, reach)) / 100;

/** Equality of fader positions. @param {number[]} a @param {number[]} b */
export const samePositions = (a, b) => a.length === b.length && a.every((one, i) => Math.abs(one - b[i]) < TOLERANCE);

/** Axes from a centre outward, in pixels with y downward.
 * @param {{center: [number, number], radius: number, range: [number, number], angles: number[]}} plot angles in degrees */
export const polarScale = ({ center, radius, range: [low, high], angles }) => {
  const unit = radius / (high - low);
  const [x, y] = center;
  const ways = angles.map((angle) => [Math.cos((angle * Math.PI) / 180), -Math.sin((angle * Math.PI) / 180)]);
  return {
    /** @param {number} i @param {number} value */
    point: (i, value) => ways[i].map((way, d) => [x, y][d] + way * unit * (value - low)),
    /** @param {number} i @param {number} px @param {number} py */
    value: (i, px, py) => low + ((px - x) * ways[i][0] + (py - y) * ways[i][1]) / unit,
    /** @param {number} i */
    end: (i) => ways[i].map((way, d) => [x, y][d] + way * radius),
  };
};
