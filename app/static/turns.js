// The conversation above the prompt. Text is text: nothing here makes HTML of it.
mixdesk.turns = (() => {
  const REPLIES = { 5: "reply-left", 6: "reply-right", 7: "reply-third", 8: "reply-fourth" };

  const { make } = mixdesk;
  const block = ({ role, content, made }) =>
    make("div", { className: `turn ${role === "user" ? "user" : "assistant"}` },
      make("b", {}, role === "user" ? "You" : made || "Response"), make("p", {}, content));

  // The newest turn from its beginning, or all of it where it is short; again when its room changes.
  const FADE = 9; // pixels at the top, as in turns.css
  const newest = () => {
    const place = document.getElementById("transcript"), last = place.lastElementChild;
    place.scrollTop = last ? last.offsetTop - FADE : 0;
  };
  const watched = new ResizeObserver(newest);

  const show = (json) => {
    const turns = JSON.parse(json || "[]"), place = document.getElementById("transcript");
    const stage = document.getElementById("stage");
    if (turns.length) stage.dataset.turns = turns.length;
    else delete stage.dataset.turns;
    const count = turns.length / 2;
    document.getElementById("turn-count").textContent = ` · ${count} ${count === 1 ? "turn" : "turns"} so far`;
    place.replaceChildren(...turns.map(block));
    watched.observe(place);
    newest();
  };
  const ready = () => {
    for (const [key, id] of Object.entries(REPLIES)) {
      // Its text first: whoever speaks to the page says what they see.
      document.getElementById(id).setAttribute("aria-label", `Reply (${key}) to the ${id.replace("reply-", "")} response`);
    }
  };

  const write = () => document.querySelector("#prompt textarea").focus();

  document.addEventListener("keydown", (event) => {
    if (!mixdesk.plain(event)) return;
    const shifted = { N: "new-conversation", Backspace: "back" };
    const id = event.shiftKey ? shifted[event.key] : REPLIES[event.key];
    if (!id) return;
    event.preventDefault();
    mixdesk.press(id);
  });

  return { ready, show, write };
})();
