// @ts-check
// Links and the clipboard.
import { byId } from "./dom.js";
import { update } from "./gradio.js";

const MARK = "#mix=";
// Only handed on: the server reads it, and says what is wrong with it.
export const arriving = () => (location.hash.startsWith(MARK) ? location.hash.slice(MARK.length) : "");
export const open = () => { if (arriving()) byId("link-arrived").click(); };

// Returns what the box for pages without a clipboard shows, and the status line.
export const copy = async (made, said, copied, refused) => {
  const hidden = update({ visible: false });
  if (!made) return [hidden, said];
  const text = made.startsWith(MARK) ? location.href.split("#")[0] + made : made;
  try {
    await navigator.clipboard.writeText(text);
    return [hidden, copied];
  } catch {
    // Pages served over plain http from another machine have no clipboard.
    return [update({ visible: true, value: text }), refused];
  }
};

export const listen = () => {
  window.addEventListener("hashchange", open);
};
