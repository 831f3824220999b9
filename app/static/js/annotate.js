// @ts-check
// The Annotate tab: buttons within its tables, and the links that are shown once. All names are set as text.
import { make } from "./dom.js";
import { update } from "./gradio.js";

let pressed = "";

/** What the button says that was pressed last: its act and what it is of, such as "revoke <invitation>". */
export const acted = () => pressed;

export const act = (event, trigger) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  pressed = `${button.dataset.act} ${button.dataset.id}`;
  trigger("select");
};

/** Show of several components those whose name is among the chosen ones.
 * @param {string[]} names @param {string[]} chosen */
export const shown = (names, chosen) => {
  const updates = names.map((name) => update({ visible: chosen.includes(name) }));
  return updates.length === 1 ? updates[0] : updates;
};

/** @param {boolean} hides */
export const hidden = (hides) => update({ visible: !hides });

/** A link with a button that copies it. @param {HTMLElement} element @param {{path: string, label: string} | null} value */
export const invitation = (element, value) => {
  const place = element.querySelector(".invitation");
  if (!place) return;
  if (!value) {
    place.replaceChildren();
    return;
  }
  const link = new URL(value.path, location.href.split("#")[0]).href;
  const field = make("input", { type: "text", readOnly: true, value: link, "aria-label": value.label });
  const said = make("span", { className: "hint" });
  const copy = make("button", { type: "button" }, "Copy");
  copy.onclick = async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(link);
      said.textContent = "Copied.";
    } catch {
      // Pages served over plain http from another machine have no clipboard.
      said.textContent = "Press Ctrl+C to copy it.";
    }
  };
  place.replaceChildren(make("span", { className: "label" }, value.label), field, copy, said);
};
