// @ts-check
// Who is signed in, in the title line of a hosted desk. The server's half: app/server/sign_in.py, app/ui/header.py.
import { byId, make } from "./dom.js";

const place = () => byId("account");

const signOut = async () => {
  await fetch(`${place().dataset.home}logout`, { method: "POST", redirect: "manual" });
  location.reload();
};

const link = () => {
  const address = `${place().dataset.home}login/huggingface?next=${encodeURIComponent(location.pathname + location.search)}`;
  const sign = make("a", { href: address, title: "With your Hugging Face account; the owner's opens more" }, "Sign in");
  // The provider shows itself in no frame, and a frame keeps no cookie of the owner.
  if (window.top !== window) Object.assign(sign, { target: "_blank", rel: "noopener" });
  return sign;
};

/** Say who is signed in, where people can sign in at all. */
export const show = async () => {
  if (!place()) return;
  const answer = await fetch(`${place().dataset.home}login`).catch(() => null);
  if (!answer?.ok) return;
  const { name, owner } = await answer.json();
  if (!name) return place().replaceChildren(...(owner ? [] : [link()]));
  const out = make("button", { type: "button" }, "Sign out");
  out.addEventListener("click", signOut);
  place().replaceChildren(make("span", { title: owner ? "The owner of this desk" : "" }, name), out);
};
