// @ts-check
// Numbers as text.

/** A number with its sign. @param {number} value @param {number} [digits] */
export const signed = (value, digits = 1) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);

/** A probability: whole percent from 10% on, tenths below. @param {number | null} value */
export const probability = (value) =>
  (value === null ? "–" : value >= 0.0995 ? `${Math.round(100 * value)}%` : `${(100 * value).toFixed(1)}%`);

/** @param {number} bytes */
export const megabytes = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${Math.round(bytes / 1e6)} MB`);

/** A download rate, after a comma; nothing while it is unknown. @param {number} bytes per second */
export const rate = (bytes) => (bytes ? `, ${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB/s` : "");
