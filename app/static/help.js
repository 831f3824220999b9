// Help, and the shortcuts that only press what is there anyway. Their list: app/help.py.
(() => {
  const dialog = () => document.getElementById("help");

  document.addEventListener("click", (event) => {
    const wanted = event.target.closest("[data-help]")?.dataset.help;
    if (wanted === "open") dialog().showModal();
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

  // What is opened or gone to gets the focus: Tab goes on from there.
  const LETTERS = {
    d: "#desk-tab-button", x: "#explore-tab-button", r: "#compare-tab-button", g: "#ratings-tab-button",
    v: "#shelf > button", o: "#more > button", e: "#even", k: "#copy-link",
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
      if (key !== "s" || event.shiftKey || !seen("#shelf")) return;
      event.preventDefault();
      if (seen("#save")) return mixdesk.press("save");
      go("#shelf > button");
      // The shelf's parts come with the next frame.
      requestAnimationFrame(() => setTimeout(() => document.querySelector("#saved input")?.focus()));
      return;
    }
    if (mixdesk.typing(event.target)) return;
    if (key === "?") dialog().showModal();
    else if (event.shiftKey && key === "p") go(seen("#remove-fourth") ? "#remove-fourth" : "#remove-third");
    else if (!event.shiftKey && LETTERS[key]) go(LETTERS[key]);
    else return;
    event.preventDefault();
  });
})();
