// @ts-check
// The lines that offer what can be fetched, and show how far it is. The server's half: app/ui/header.py, app/services/policy_fetch.py.
import { open } from "./configurations.js";
import { byId, remembered } from "./dom.js";
import { megabytes, rate } from "./math/format.js";

const BUSY = 500, IDLE = 10_000; // milliseconds between two looks: while something is fetched, and else
const lines = () => [...document.querySelectorAll("[data-offer]")];


let known = {}; // what the server said last, by slug
let asked = ""; // the slug whose line is open
let pressed = ""; // the slug that was asked for in this window, where storage is forbidden

const awaits = (slug) => {
  pressed = slug;
  remembered("mixdesk-fetch", slug);
};

let leaving = ""; // the slug that is being opened from here

// It is awaited until it is opened: a page that is reloaded meanwhile, after an outage, opens it again.
const go = async (slug) => {
  leaving = slug;
  await open(slug, () => awaits(""));
  awaits("");
  leaving = "";
};

const set = (element, text) => {
  // Read out once, not at each look.
  if (element.textContent !== text) element.textContent = text;
};

const draw = (line, fetch) => {
  const { offer: slug, title, opens } = line.dataset;
  const { state, done, total, source, says, memory } = fetch;
  const part = (name) => line.querySelector(name);
  const button = (name) => part(`[data-fetch="${name}"]`);
  const busy = state === "fetching" || state === "stopping";
  const mine = [pressed, remembered("mixdesk-fetch")].includes(slug);
  const words = {
    absent: [asked === slug ? "It is not fetched yet." : "", done ? `${megabytes(done)} of ${megabytes(total)} are here.` : "", memory].join(" ").trim(),
    fetching: `Getting ${title}.`,
    stopping: "Stopping.",
    failed: says,
    fetched: opens === "true"
      ? `Fetched: ${title}.`
      : `Fetched: ${title}. This app keeps one configuration in memory: it begins with them when it is started again.`,
  }[state];
  set(part(".words"), words);
  part(".words").className = `words ${state === "failed" ? "message bad" : ""}`;
  part(".about").hidden = state !== "absent";
  set(part(".how-far"), busy ? `${megabytes(done)} of ${megabytes(total)}${rate(fetch.rate)}${source ? `, from ${source}` : ""}` : "");
  part("progress").hidden = !busy;
  part("progress").max = total;
  part("progress").value = done;
  button("get").hidden = busy || state === "fetched";
  if (state === "failed" || (done && done < total)) set(button("get"), state === "failed" ? "Retry" : `Get the rest, ${megabytes(total - done)}`);
  button("open").hidden = state !== "fetched" || opens !== "true";
  button("cancel").hidden = state !== "fetching";
  button("hide").hidden = busy;
  const quiet = state === "absent" && !part(".about").textContent && asked !== slug;
  line.hidden = quiet || (remembered(`mixdesk-offer-${slug}`) === "read" && !busy && asked !== slug);
  if (state === "fetched" && mine && leaving !== slug) {
    if (opens === "true") go(slug);
    else awaits("");
  }
};

const redraw = () => {
  lines().forEach((line) => known[line.dataset.offer] && draw(line, known[line.dataset.offer]));
  byId("notices")?.toggleAttribute("data-offered", lines().some((line) => !line.hidden));
};

const call = async (line, path = "", method = "GET") => {
  const answer = await fetch(`${line.dataset.home}fetch${path}`, { method, cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
};

let next;
const look = async () => {
  clearTimeout(next);
  let busy = false;
  if (lines().length && !document.hidden) {
    try {
      known = Object.fromEntries((await call(lines()[0])).map((described) => [described.slug, described]));
      redraw();
      busy = Object.values(known).some(({ state }) => state === "fetching" || state === "stopping");
    } catch {
      // It may be starting again: an interrupted fetch then continues.
      busy = Boolean(remembered("mixdesk-fetch"));
      lines().filter((line) => !line.querySelector("progress").hidden)
        .forEach((line) => set(line.querySelector(".words"), "Mixdesk does not answer; what has come is kept."));
    }
  }
  clearTimeout(next);
  next = setTimeout(look, busy ? BUSY : IDLE);
};

const change = async (line, method) => {
  const slug = line.dataset.offer;
  try {
    known[slug] = await call(line, `/${slug}`, method);
  } catch (error) {
    known[slug] = { ...known[slug], state: "failed", says: error.message };
  }
  redraw();
  next = setTimeout(look, BUSY);
};

export const listen = () => {
  document.addEventListener("click", (event) => {
    // A configuration that is not fetched yet cannot be opened: its line says what to do.
    const item = event.target.closest("[data-configuration]");
    const wanted = item && lines().find((line) => line.dataset.offer === item.dataset.configuration);
    if (wanted && known[wanted.dataset.offer]?.state !== "fetched") {
      event.stopImmediatePropagation();
      byId("configurations").open = false;
      asked = wanted.dataset.offer;
      redraw();
      wanted.querySelector("button:not([hidden])").focus();
      return;
    }
    const line = event.target.closest("[data-offer]");
    const what = event.target.closest("[data-fetch]")?.dataset.fetch;
    if (!line || !what) return;
    const slug = line.dataset.offer;
    if (what === "get") {
      awaits(slug);
      change(line, "POST");
    } else if (what === "cancel") {
      awaits("");
      change(line, "DELETE");
    } else if (what === "open") {
      open(slug);
    } else {
      asked = "";
      remembered(`mixdesk-offer-${slug}`, "read");
      redraw();
    }
  }, true);
  document.addEventListener("visibilitychange", () => document.hidden || look());
  // The page is filled in some time after its scripts have run.
  const waiting = setInterval(() => {
    if (!byId("notices")) return;
    clearInterval(waiting);
    if (lines().length) look();
  }, 50);
};
