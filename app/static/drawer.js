// What else could have been said: a table of probabilities, redrawn in place as the faders move.
mixdesk.drawer = (() => {
  const percent = (value) => (value === null ? "–" : value >= 0.0995 ? `${Math.round(100 * value)}%` : `${(100 * value).toFixed(1)}%`);
  const HEADS = { was: "As it was", now: "Now" };
  let shown = null;

  const made = (kind, text, className) => {
    const element = document.createElement(kind);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  // A space before a word is part of its token, and a token may be nothing else.
  const visible = (text) => text.replace(/^ (?=\S)/, "").replaceAll(" ", "␣").replaceAll("\n", "↵") || "(nothing)";

  const cell = (column, value) => {
    const place = made("td", percent(value), column.name === "now" || column.name === "was" ? column.name : "policy");
    if (column.colour) place.style.setProperty("--accent", column.colour);
    place.style.setProperty("--share", `${Math.round(100 * (value ?? 0))}%`);
    return place;
  };

  const row = (head, columns, values, className) => {
    const line = made("tr", undefined, className);
    const label = made("th", head);
    label.scope = "row";
    line.append(label, ...columns.map((column, i) => cell(column, values[i])));
    return line;
  };

  const draw = (element, given) => {
    const value = given?.columns ? given : null; // a value of None comes as something else
    const drawer = document.getElementById("drawer"), place = element.querySelector(".drawer");
    const opening = value && (!shown || shown.title !== value.title);
    if (!value && shown) {
      const chosen = document.querySelector(".token.chosen");
      if (drawer.contains(document.activeElement)) chosen?.focus({ preventScroll: true });
      chosen?.classList.remove("chosen");
    }
    shown = value;
    drawer.classList.toggle("open", Boolean(value));
    if (!value) return;
    const { columns, tokens } = value;
    const drawn = tokens.find((token) => token.drawn);
    const title = made("h2", `${value.title}: `);
    title.append(made("q", visible(drawn.text)));
    const table = made("table"), head = made("tr");
    table.style.minWidth = `${86 + 64 * columns.length}px`;
    head.append(made("th", "Token"));
    for (const { name, colour, hint } of columns) {
      const label = made("th");
      if (colour) {
        label.append(made("i", undefined, "dot"));
        label.style.setProperty("--accent", colour);
      }
      label.append(made("span", HEADS[name] ?? name));
      label.scope = "col";
      label.title = hint ?? name;
      head.append(label);
    }
    const body = made("tbody");
    tokens.forEach((token, i) =>
      body.append(row(visible(token.text), columns, columns.map((column) => column.values[i]), token.drawn ? "drawn" : "")),
    );
    body.append(row("all others", columns, columns.map((column) => column.rest), "rest"));
    const top = made("thead");
    top.append(head);
    table.append(top, body);
    const scroll = made("div", undefined, "scroll");
    scroll.tabIndex = 0;
    scroll.append(table);
    const notes = columns.filter(({ name }) => name in HEADS).map(({ name, hint }) => made("p", `${HEADS[name]}: ${hint}`, "weights"));
    const before = place.querySelector(".scroll")?.scrollTop ?? 0;
    place.replaceChildren(title, scroll, ...notes, made("p", value.hint, "hint"));
    scroll.scrollTop = opening ? 0 : before;
  };

  // Escape stops what is under way; with nothing under way it closes the drawer.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && shown && document.getElementById("stop").disabled) mixdesk.press("close-drawer");
  });

  return { draw };
})();
