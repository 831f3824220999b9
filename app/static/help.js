// Help, and the shortcuts that only press what is there anyway. Their list: app/ui/shortcuts.py.
(() => {
  const dialog = () => document.getElementById("help");
  const show = () => {
    document.getElementById("single-keys").checked = keys;
    dialog().showModal();
  };

  document.addEventListener("click", (event) => {
    const wanted = event.target.closest("[data-help]")?.dataset.help;
    if (wanted === "open") show();
    else if (wanted === "close" || event.target === dialog()) dialog().close();
    else if (wanted === "tour") {
      dialog().close();
      document.getElementById("desk-tab-button").click();
      mixdesk.tour.start();
    }
  });
  // An open dialog keeps its keys: nothing behind it is pressed.
  document.addEventListener("keydown", (event) => {
    if (dialog()?.open) event.stopImmediatePropagation();
  }, true);

  // Without single keys (WCAG 2.1.4) only what the focus is on hears them: a fader its own, whatever is typed in all.
  const KEYS = "mixdesk-keys"; // "off", or not there
  let keys = true;
  try { keys = localStorage.getItem(KEYS) !== "off"; } catch { /* Storage may be forbidden, in a frame of another site. */ }
  document.addEventListener("change", ({ target }) => {
    if (target.id !== "single-keys") return;
    keys = target.checked;
    try { localStorage.setItem(KEYS, keys ? "on" : "off"); } catch { /* Then it is for this visit. */ }
  });
  document.addEventListener("keydown", (event) => {
    if (keys || event.key.length > 1 || event.key === " " || event.ctrlKey || event.metaKey || event.altKey) return;
    if (mixdesk.typing(event.target) || (event.target.closest(".fader") && "sml".includes(event.key.toLowerCase()))) return;
    event.stopImmediatePropagation();
  }, true);

  // What is opened or gone to gets the focus: Tab goes on from there.
  const LETTERS = {
    d: "#desk-tab-button", x: "#explore-tab-button", r: "#compare-tab-button", g: "#ratings-tab-button",
    v: "#shelf > button", o: "#more > button", e: "#even", k: "#copy-link",
    u: "#compare-upload", c: "#compare-resume", f: "#refresh",
  };
  const seen = (selector) => {
    const found = document.querySelector(selector);
    return found && found.offsetParent && !found.disabled ? found : null;
  };
  const go = (selector) => {
    const button = seen(selector);
    button?.focus();
    button?.click();
  };

  // Its own dialogs aside, an open one keeps its keys too.
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      const also = event.shiftKey ? null : { enter: !mixdesk.typing(event.target) && "#sample", o: "#load" }[key];
      if (also && seen(also)) {
        event.preventDefault();
        return go(also);
      }
      if (key !== "s" || event.shiftKey || !seen("#shelf")) return;
      event.preventDefault();
      if (seen("#save")) return mixdesk.press("save");
      go("#shelf > button");
      // The shelf's parts come with the next frame.
      requestAnimationFrame(() => setTimeout(() => document.querySelector("#saved input")?.focus()));
      return;
    }
    if (mixdesk.typing(event.target)) return;
    if (key === "?") show();
    else if (event.shiftKey && key === "p") go(seen("#remove-fourth") ? "#remove-fourth" : "#remove-third");
    else if (!event.shiftKey && LETTERS[key]) go(LETTERS[key]);
    else return;
    event.preventDefault();
  });
})();
