// @ts-check
// The arithmetic of figures: the corners of a polygon, and the faders of a chosen point.

/** A polygon's corners on a polar plot, "x,y" in pixels with y downward.
 * @param {{r: number[], theta: number[]}} trace theta in degrees
 * @param {{center: [number, number], radius: number, range: [number, number]}} plot */
export const polygonCorners = ({ r, theta }, { center: [x, y], radius, range: [low, high] }) => {
  const unit = radius / (high - low);
  return r.map((value, i) => {
    const angle = (theta[i] * Math.PI) / 180, reach = unit * (value - low);
    return [x + reach * Math.cos(angle), y - reach * Math.sin(angle)].map((px) => px.toFixed(2)).join(",");
  });
};

/** Weights as fader positions in hundredths, the largest at the top. @param {number[]} weights */
export const faderPositions = (weights) => {
  const highest = Math.max(...weights);
  return weights.map((weight) => Math.round((100 * weight) / highest) / 100);
};
