// @ts-check
// The menu of configurations, and the lines above the title. The server's half: app/ui/header.py, app/server/app.py.
import { byId, remembered } from "./dom.js";

const EVERY = 400; // milliseconds between two looks at what is being loaded
const menu = () => byId("configurations");
const line = () => byId("loading");

const hideWarning = () => document.documentElement.classList.add("warning-read");
const say = (text, { kind = "info", again = false, button = "Dismiss" } = {}) => {
  const place = line();
  place.hidden = !text;
  byId("notices").toggleAttribute("data-loading", Boolean(text));
  // Read out once, not each second.
  const words = place.querySelector("p");
  if (words.textContent !== text) words.textContent = text;
  words.className = `message ${kind}`;
  place.querySelector('[data-notice="again"]').hidden = !again;
  place.querySelector('[data-notice="loading"]').textContent = button;
};

const ask = async (slug, method = "GET") => {
  const answer = await fetch(`${menu().dataset.home}configurations${slug ? `/${slug}` : ""}`, { method });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
};

const nameOf = (slug) => document.querySelector(`[data-configuration="${slug}"] span`)?.textContent ?? slug;
const goTo = (path) => {
  const theme = new URLSearchParams(location.search).get("__theme");
  location.assign(menu().dataset.home + path + (theme ? `?__theme=${encodeURIComponent(theme)}` : ""));
};

let following = ""; // the configuration that the person waits for

/** Whether the page is about to go to another configuration. */
export const opening = () => Boolean(following);

/**
 * Open a configuration, and go there when it is loaded.
 * @param {string} slug
 * @param {() => void} before called when it is loaded, before the page is left
 */
export const open = async (slug, before = () => {}) => {
  following = slug;
  const name = nameOf(slug);
  const began = Date.now();
  let method = "POST";
  say(`Opening ${name}…`, { button: "Stay here" });
  while (following === slug) {
    try {
      const { state, says, path, seconds } = await ask(slug, method);
      if (following !== slug) return;
      if (state === "ready") {
        before();
        return goTo(path);
      }
      if (state !== "loading") {
        following = "";
        return say(`${name} could not be opened, you still have ${nameOf(menu().dataset.here)}. ${says}`, { kind: "bad" });
      }
      method = "GET";
      say(`Opening ${name}: ${says}. ${Math.floor(seconds)} s`, { button: "Stay here" });
    } catch (error) {
      // A proxy may hiccup; a server that has gone does not come back by itself.
      if (Date.now() - began < 5000 && method === "GET") continue;
      following = "";
      return say(`${name} could not be opened: ${error.message}`, { kind: "bad" });
    } finally {
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }
};

const STATES = { ready: "loaded", loading: "loading…", failed: "could not be loaded", closed: "" };

const showStates = async () => {
  const all = await ask("").catch(() => []);
  all.forEach(({ slug, state, missing }) => {
    const note = document.querySelector(`[data-configuration="${slug}"] small`);
    if (note) note.textContent = missing ? "to be fetched" : STATES[state];
  });
  return all;
};

// A page that was left open may find its desk closed, to make room for another.
const look = async () => {
  if (!menu() || document.hidden || following) return;
  const here = (await ask("").catch(() => [])).find(({ slug }) => slug === menu().dataset.here);
  if (here && ["closed", "failed"].includes(here.state) && !following) {
    say("This desk was closed to make room for another; what you see here still stands, but does nothing.", {
      kind: "bad",
      again: true,
    });
  }
};

export const listen = () => {
  if (remembered("mixdesk-warning")) hideWarning();
  document.addEventListener("click", (event) => {
    const item = event.target.closest("[data-configuration]");
    const notice = event.target.closest("[data-notice]")?.dataset.notice;
    if (menu() && !event.target.closest("#configurations summary")) menu().open = false;
    if (item) {
      const slug = item.dataset.configuration;
      if (slug !== menu().dataset.here) open(slug);
    } else if (notice === "warning") {
      remembered("mixdesk-warning", "read");
      hideWarning();
    } else if (notice === "again") {
      open(menu().dataset.here);
    } else if (notice === "loading") {
      following = "";
      say("");
    }
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.id !== "configurations") return;
    event.target.closest("#top").toggleAttribute("data-menu", event.target.open);
    if (event.target.open) showStates();
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu()?.open) return;
    event.stopImmediatePropagation(); // it closes the menu, and stops no response
    menu().open = false;
    menu().querySelector("summary").focus();
  }, true);
  document.addEventListener("visibilitychange", look);
  setInterval(look, 20_000);

  // Sent here by the address of a desk that is not loaded.
  const wanted = new URLSearchParams(location.search).get("load");
  if (wanted) {
    const rest = new URL(location.href);
    rest.searchParams.delete("load");
    history.replaceState(null, "", rest);
    const waiting = setInterval(() => {
      if (!menu() || !line()) return;
      clearInterval(waiting);
      if (document.querySelector(`[data-configuration="${CSS.escape(wanted)}"]`)) open(wanted);
    }, 100);
  }
};
