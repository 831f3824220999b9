// @ts-check
// Help, and the shortcuts that only press what is there anyway. Their list: shortcuts.json.
import { byId, press, typing } from "./dom.js";
import { field, openApi, openTab } from "./gradio.js";
import { go, matches, reachable } from "./shortcuts.js";
import * as tour from "./tour.js";

const dialog = () => byId("help");
const show = () => {
  byId("single-keys").checked = keys;
  dialog().showModal();
};

// Without single keys (WCAG 2.1.4) only what the focus is on hears them: a fader its own, whatever is typed in all.
const KEYS = "mixdesk-keys"; // "off", or not there
let keys = true;
try { keys = localStorage.getItem(KEYS) !== "off"; } catch { /* Storage may be forbidden, in a frame of another site. */ }

export const listen = () => {
  document.addEventListener("click", (event) => {
    const wanted = event.target.closest("[data-help]")?.dataset.help;
    if (wanted === "open") show();
    else if (wanted === "close" || event.target === dialog()) dialog().close();
    else if (wanted === "api") {
      dialog().close();
      openApi();
    } else if (wanted === "tour") {
      dialog().close();
      openTab("desk-tab");
      tour.start();
    }
  });
  // An open dialog keeps its keys: nothing behind it is pressed.
  document.addEventListener("keydown", (event) => {
    if (dialog()?.open) event.stopImmediatePropagation();
  }, true);
  document.addEventListener("change", ({ target }) => {
    if (target.id !== "single-keys") return;
    keys = target.checked;
    try { localStorage.setItem(KEYS, keys ? "on" : "off"); } catch { /* Then it is for this visit. */ }
  });
  document.addEventListener("keydown", (event) => {
    if (keys || event.key.length > 1 || event.key === " " || event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target) || (event.target.closest(".fader") && ["solo", "mute", "lock"].some((mark) => matches(event, mark)))) return;
    event.stopImmediatePropagation();
  }, true);
  // Its own dialogs aside, an open one keeps its keys too.
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
    if (matches(event, "run") && !event.shiftKey && !typing(event.target) && reachable("sample")) {
      event.preventDefault();
      go("sample");
    } else if (matches(event, "save") && reachable("shelf")) {
      event.preventDefault();
      if (reachable("save")) return press("save");
      go("shelf");
      // The shelf's parts come with the next frame.
      requestAnimationFrame(() => setTimeout(() => field("saved")?.focus()));
    } else if (matches(event, "help") && !typing(event.target)) {
      show();
      event.preventDefault();
    }
  });
};
