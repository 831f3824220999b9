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

  // An element. Of the properties, what it has none of becomes an attribute; children that are strings stay text.
  const make = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    const { style, ...rest } = properties;
    for (const [name, given] of Object.entries(rest)) {
      if (name in element) element[name] = given;
      else element.setAttribute(name, given);
    }
    for (const [name, given] of Object.entries(style ?? {})) element.style.setProperty(name, given);
    element.append(...children);
    return element;
  };

  const showShares = (raw) => {
    const total = raw.reduce((sum, value) => sum + Number(value), 0);
    raw.forEach((value, i) => {
      const share = total > 0 ? value / total : 0;
      const output = document.querySelector(`[data-share="${i}"]`);
      const segment = document.querySelector(`[data-segment="${i}"]`);
      if (output) {
        const text = total > 0 ? `${Math.round(share * 100)}%` : "–";
        if (output.textContent !== text) output.textContent = text;
        output.dataset.exact = share;
      }
      if (segment) segment.style.flexGrow = share;
    });
  };

  // A button of the tab that is seen, or none: nobody rates what they do not see.
  const press = (...ids) => {
    const button = ids.map((id) => document.getElementById(id)).find((found) => found && found.offsetParent);
    if (button && !button.disabled) button.click();
  };

  // Fetched meanwhile, but read only when the page can be used: to read it takes as long as a quarter of all the rest.
  const fetched = Object.assign(document.createElement("link"), { rel: "preload", as: "script", href: "plotly.min.js" });
  document.head.append(fetched);
  let usable;
  const plotly = new Promise((resolve) => { usable = resolve; }).then(() => new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = fetched.href;
    script.onload = () => resolve(window.Plotly);
    document.head.append(script);
  }));

  // {id: {json, figure, underlay: traces that lie under the figure's own, place, chosen, timer: of a draw that is due}}
  const figures = {};
  const entry = (id) => (figures[id] ??= { underlay: [] });

  const STILL = 300; // ms after which what was moved is drawn anew, with what is said where it is pointed at

  const draw = async (id) => {
    const Plotly = await plotly;
    const { figure, underlay, place, timer } = entry(id);
    clearTimeout(timer);
    if (!figure || !place || !place.isConnected) return;
    const fresh = !place.classList.contains("js-plotly-plot");
    await Plotly.react(place, [...underlay, ...figure.data], figure.layout, { displayModeBar: false });
    const told = () => document.dispatchEvent(new CustomEvent("figure-drawn", { detail: id }));
    told();
    if (!fresh) return;
    place.on("plotly_afterplot", told);
    new ResizeObserver(() => { if (place.offsetWidth) Plotly.Plots.resize(place); }).observe(place);
    place.on("plotly_click", (event) => choose(id, event.points[0]));
  };

  // The corners of a polygon that lies under the rest, moved where they are: plotly takes forty times as long for the
  // whole figure, and text stands still meanwhile. Whether it could be.
  const sketch = (place, [trace, ...others]) => {
    const drawn = place?._fullData?.[0], polar = place?._fullLayout?.polar?._subplot;
    const look = ({ r, theta, text, ...rest }) => JSON.stringify(rest);
    if (others.length || !polar?.radialAxis || trace?.type !== "scatterpolar" || drawn?.name !== trace.name) return false;
    const group = [...place.querySelectorAll(".scatterlayer .trace")].find((one) => one.__data__?.[0]?.trace === drawn);
    if (!group || look(place.data[0]) !== look(trace) || String(place.data[0].theta) !== String(trace.theta)) return false;
    const [low, high] = polar.radialAxis.range, unit = polar.radius / (high - low);
    const corners = trace.r.map((value, i) => {
      const angle = (trace.theta[i] * Math.PI) / 180, reach = unit * (value - low);
      return [polar.cxx + reach * Math.cos(angle), polar.cyy - reach * Math.sin(angle)].map((px) => px.toFixed(2)).join(",");
    });
    const path = `M${corners.join("L")}`;
    group.querySelectorAll("path.js-line, path.js-fill").forEach((line) => line.setAttribute("d", `${path}Z`));
    group.querySelectorAll("path.point").forEach((point, i) => point.setAttribute("transform", `translate(${corners[i]})`));
    return true;
  };

  // The point's weights, first among its data, as fader positions: the largest at the top.
  const choose = (id, point) => {
    const { figure, chosen } = entry(id);
    const policies = figure.layout.meta?.policies;
    if (!policies || !point.customdata) return;
    const weights = point.customdata.slice(0, policies);
    mixdesk.chosen = weights.map((weight) => Math.round((100 * weight) / Math.max(...weights)) / 100);
    chosen();
    document.getElementById("desk-tab-button").click();
  };

  const typing = (target) =>
    target.isContentEditable ||
    target.matches("textarea:read-write, input:read-write, select");

  // A key by itself, or with Shift, pressed once where nobody types.
  const plain = (event) =>
    !(event.repeat || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || typing(event.target));

  const KEYS = { b: "balance", 1: "rate-left", 2: "rate-right", 3: "rate-tie", 4: "rate-both_bad" };

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      press("generate");
    } else if (event.key === "Escape") {
      press("stop", "explore-stop");
    } else if (KEYS[event.key.toLowerCase()] && plain(event)) {
      event.preventDefault();
      press(KEYS[event.key.toLowerCase()]);
    }
  });

  const mixdesk = {
    ratingId: "",
    choose,
    chosen: [],
    figure: (id, element, json, chosen) => {
      const place = element.querySelector(".figure");
      if (!json || (entry(id).json === json && entry(id).place === place)) return;
      figures[id] = { ...entry(id), json, figure: JSON.parse(json), place, chosen };
      draw(id);
    },
    underlay: (id, traces) => {
      const figure = entry(id);
      figure.underlay = traces;
      clearTimeout(figure.timer);
      if (sketch(figure.place, traces)) figure.timer = setTimeout(draw, STILL, id);
      else draw(id);
    },
    newRating: () => { mixdesk.ratingId = uuid(); document.getElementById("stage").dataset.asked = "true"; },
    ready: () => {
      document.querySelectorAll(".chip").forEach((chip) => { chip.title = chip.textContent.trim(); });
      mixdesk.panels.show("left,right");
      mixdesk.turns.ready();
      mixdesk.sharing.open();
      document.body.dataset.ready = "true";
      (window.requestIdleCallback ?? setTimeout)(usable); // whoever presses something at once comes first
      mixdesk.tour.greet();
    },
    make,
    plain,
    press,
    showShares,
    typing,
    uuid,
  };
  return mixdesk;
})();
