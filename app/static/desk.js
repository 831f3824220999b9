// What happens in the browser alone: shares beside the faders, ids, keyboard shortcuts.
window.mixdesk = (() => {
  const uuid = () => {
    if (crypto.randomUUID) return crypto.randomUUID();
    // Pages served over plain http from another machine have no randomUUID.
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  };

  const showShares = (raw) => {
    const total = raw.reduce((sum, value) => sum + Number(value), 0);
    raw.forEach((value, i) => {
      const share = total > 0 ? value / total : 0;
      const output = document.querySelector(`[data-share="${i}"]`);
      const segment = document.querySelector(`[data-segment="${i}"]`);
      if (output) {
        output.textContent = total > 0 ? `${Math.round(share * 100)}%` : "–";
        output.dataset.exact = share;
      }
      if (segment) segment.style.flexGrow = share;
    });
  };

  const press = (id) => {
    const button = document.getElementById(id);
    if (button && !button.disabled) button.click();
    return Boolean(button);
  };

  const typing = (target) =>
    target.isContentEditable ||
    target.matches("textarea:read-write, input:read-write, select");

  const RATINGS = { 1: "rate-left", 2: "rate-right", 3: "rate-tie", 4: "rate-both_bad" };

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      press("generate");
    } else if (event.key === "Escape") {
      press("stop");
    } else if (RATINGS[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey && !typing(event.target)) {
      event.preventDefault();
      press(RATINGS[event.key]);
    }
  });

  const mixdesk = {
    ratingId: "",
    newRating: () => { mixdesk.ratingId = uuid(); },
    ready: () => {
      // Read-only rather than disabled: the keyboard can reach a long response and scroll it.
      document.querySelectorAll(".response textarea").forEach((area) => {
        area.disabled = false;
        area.readOnly = true;
      });
      document.querySelectorAll(".chip").forEach((chip) => { chip.title = chip.textContent.trim(); });
    },
    showShares,
    uuid,
  };
  return mixdesk;
})();
