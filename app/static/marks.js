// Marks on the radar's axes: the even mixture, the soup, and Balance, each by a shape of its own. They lie under the target's
// handles and take no clicks; what they are stands in the legend below.
mixdesk.marks = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  let marks = [], drawing = null;

  const place = () => {
    const radar = document.getElementById("radar");
    if (!radar || !mixdesk.target) return;
    if (!drawing) {
      drawing = document.createElementNS(SVG, "svg");
      drawing.id = "radar-marks";
      drawing.setAttribute("aria-hidden", "true");
    }
    // Before the handles, so that these are on top.
    if (drawing.parentElement !== radar) radar.insertBefore(drawing, document.getElementById("radar-target"));
    const to = mixdesk.target.scale();
    const drawn = to ? marks.filter(({ rewards }) => rewards.length === to.count) : [];
    const paths = drawn.flatMap(({ name, path, rewards }) => rewards.flatMap((value, i) => {
      if (value === null) return [];
      const shape = document.createElementNS(SVG, "path");
      const [x, y] = to.point(i, mixdesk.target.clamped(value));
      shape.setAttribute("class", `mark-${name}`);
      shape.setAttribute("d", path);
      shape.setAttribute("transform", `translate(${x} ${y})`);
      return [shape];
    }));
    drawing.replaceChildren(...paths);
  };
  document.addEventListener("figure-drawn", (event) => {
    if (event.detail === "radar") place();
  });
  return { place, show: (given) => { marks = given ?? []; place(); } };
})();

// The point that Balance's sentence says is better: its button takes it to the faders.
mixdesk.offer = {
  take: (now) => {
    const offer = document.querySelector("#status .offer");
    const faders = now.slice(0, -1);
    if (!offer) return [...faders, document.querySelector("#status p").innerHTML];
    const positions = JSON.parse(offer.dataset.positions).map((position, i) => position ?? Number(faders[i]));
    return [...mixdesk.mixer.placed(now, positions), offer.dataset.said];
  },
};
