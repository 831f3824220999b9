// @ts-check
// The screens besides the pair: one of them is shown at a time.
import { byId, make, show } from "./dom.js";
import { count } from "./state/words.js";

const SCREENS = ["loading", "join", "guidelines", "pair", "notice"];

/** Show one screen, and have its heading read out. @param {string} name one of SCREENS */
export const showScreen = (name) => {
  for (const one of SCREENS) show(one, one === name);
  show("begin", name === "guidelines");
  show("dock", name === "pair");
  document.body.dataset.screen = name;
  if (name !== "pair") window.scrollTo(0, 0);
  byId(`${name}-title`)?.focus({ preventScroll: true });
};

/** @typedef {[string, () => void]} Button its words, and what it does */
/** A heading, a sentence and up to three buttons, the first of which Enter presses.
 * @typedef {{title: string, text: string, primary?: Button, secondary?: Button, other?: Button}} Notice */

/** @param {Notice} notice */
export const showNotice = ({ title, text, primary, secondary, other }) => {
  byId("notice-title").textContent = title;
  byId("notice-text").textContent = text;
  for (const [name, choice] of Object.entries({ primary, secondary, other })) {
    const button = byId(`notice-${name}`);
    show(button, Boolean(choice));
    [button.textContent, button.onclick] = choice ?? ["", null];
  }
  showScreen("notice");
};

/** Show the guidelines, with a button that begins. @param {any} state of the study, as the server sends it */
export const showGuidelines = ({ study, progress }) => {
  const { total } = progress.training;
  fillGuidelines(study);
  show("how-training", total > 0);
  byId("how-training").textContent =
    `First ${total === 1 ? "comes" : "come"} ${count(total, "training pair")}: after each you see whether the answer was right. If too few are, you can try a second time.`;
  byId("begin-button").textContent = total > 0 ? "Start the training" : "Start";
  showScreen("guidelines");
};

/** Put the guidelines on their screen and into their dialog; the server has made them safe.
 * @param {{guidelines_html: string, choices: string[]}} study */
export const fillGuidelines = ({ guidelines_html: html, choices }) => {
  for (const id of ["guidelines-text", "reading-text"]) {
    byId(id).innerHTML = html;
    for (const link of byId(id).querySelectorAll("a[href]")) link.target = "_blank";
  }
  show("guidelines-text", Boolean(html.trim()));
  if (!html.trim()) byId("reading-text").replaceChildren(make("p", {}, "There are no guidelines for this study."));
  for (const choice of ["tie", "both_bad"]) {
    for (const part of document.querySelectorAll(`.if-${choice}`)) show(part, choices.includes(choice));
  }
};

/** Show the ways in. @param {any} state @param {boolean} invited whether the address had an invitation's secret */
export const showJoin = ({ study, joining }, invited) => {
  const form = invited || joining.anonymous;
  show("join-form", form);
  show("sign-in", joining.sign_in);
  show("or", form && joining.sign_in);
  byId("name-hint").textContent = `Only the people who run this study see it. ${invited
    ? "Leave it empty to use the name on your invitation."
    : "You may leave it empty."}`;
  byId("sign-in").href = `../login/huggingface?next=${encodeURIComponent(location.pathname)}`;
  byId("join-lead").textContent = form || joining.sign_in
    ? `You will read pairs of responses and say which one is better.`
    : "This study is by invitation. Open the link that you were sent; if it does not work, ask the person who sent it for another.";
  byId("join-title").textContent = form || joining.sign_in ? "Take part" : "By invitation";
  byId("study").textContent = study.name;
  showScreen("join");
  if (form) byId("name").focus({ preventScroll: true });
};
