// @ts-check
// The desk's status line, as the scripts write it; also when Gradio hears no event any more, because the server is away.
import { byId, make } from "./dom.js";

const PASSING = 500; // ms after which an event of Gradio's would have written it
/** @type {any} */
let trigger = null;
let sentence = "", heard = false, at = -Infinity; // heard: by Gradio; at: when

const line = () => byId("status")?.querySelector("p");

/** @param {string} text @param {string} [kind] info, good or bad @returns {string} */
export const message = (text, kind = "info") => make("span", { className: `message ${kind}` }, text).outerHTML;

/** Write the status line, and return whether Gradio still hears events.
 * @param {string} html as the server's messages are @returns {Promise<boolean>} */
export const say = async (html) => {
  [sentence, heard, at] = [html, false, performance.now()];
  const before = line()?.innerHTML;
  trigger?.("submit");
  await new Promise((resolve) => setTimeout(resolve, PASSING));
  if (sentence !== html) return true; // another is said meanwhile, and finds out
  // What Gradio has written meanwhile is newer.
  if (!heard && line()?.innerHTML === before) line().innerHTML = html;
  return heard;
};

/** Whether the line has, or is about to have, a text. @param {string} text */
export const shows = (text) =>
  (line()?.textContent ?? "").includes(text) || (performance.now() - at < PASSING && sentence.includes(text));

/** The component that passes the sentence on to Gradio's own status line is there. */
export const begin = (fire) => { trigger = fire; };
export const said = () => {
  heard = true;
  return sentence;
};
