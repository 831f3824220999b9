// @ts-check
// The way into a study. An invitation's secret is behind the # of its link, which no server and no log gets.
import { byId } from "./dom.js";
import { ask, Refused } from "./server.js";

/** The secret in the address; "" if there is none. */
export const secret = () => {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return location.hash.slice(1); }
};

/** The address can be seen by others, and is kept in the browser's history. */
const forgetSecret = () => history.replaceState(null, "", location.pathname + location.search);

/** Join by an invitation in a browser that is known already, perhaps as somebody else.
 * @returns {Promise<any>} the state of the one who joined @throws {Refused} */
export const takeUp = async () => {
  try {
    const answer = await ask("join", { secret: secret() }, { patient: false });
    forgetSecret();
    return answer;
  } catch (error) {
    // Too many attempts: this one may be right.
    if (error instanceof Refused && error.status !== 429) forgetSecret();
    throw error;
  }
};

/** Join as the form says; null if the server refuses, which the form shows then. @returns {Promise<any>} */
const join = async () => {
  try {
    const answer = await ask("join", { secret: secret(), name: byId("name").value.trim() }, { patient: false });
    forgetSecret();
    return answer;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    byId("join-error").textContent = error.message;
    byId("name").focus();
    return null;
  }
};

/** @param {(join: () => Promise<any>) => void} submitted called with what joins */
export const listen = (submitted) => {
  byId("join-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("join-error").textContent = "";
    submitted(join);
  });
};
