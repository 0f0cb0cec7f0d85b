// Who asks: a token, kept by this tab until it is closed, and what its scopes allow.

import { ask, credentials } from "./api.js";
import { complaint, element } from "./dom.js";

let principal = null;
let changed = () => {};
const place = element("span", { class: "who" });

/** Whether an action on a resource is allowed; while nobody knows, the server decides. */
export function may(resource, action) {
  if (principal === null) return true;
  const wanted = ["admin", `${resource}:${action}`, `${resource}:*`, `*:${action}`, "*:*"];
  return principal.scopes.some((scope) => wanted.includes(scope));
}

/** Finds out who asks, and says so at the top; `done` is called now and whenever somebody signs in or out. */
export async function begin(done) {
  changed = done;
  document.querySelector(".bar").append(place);
  addEventListener("sign-in", open);
  await look().catch(() => {});
  changed();
}

/** Asks who the token stands for. A token that is not good any more is forgotten. */
async function look() {
  try {
    principal = (await ask("/v1/principal")).value;
  } catch (error) {
    if (error.status !== 401 || credentials.token === null) throw error;
    credentials.token = null;
    principal = (await ask("/v1/principal")).value;
    throw error;
  } finally {
    show();
  }
}

const button = (label, kind, act) => element("button", { type: "button", class: kind, onclick: act }, label);

function show() {
  if (principal?.auth === "off") {
    place.replaceChildren(element("span", { class: "hint", title: "AUTH=off: whoever reaches this service may change everything" }, "No sign-in"));
  } else if (principal?.principal) {
    place.replaceChildren(element("span", { class: "hint name", title: principal.scopes.join(" ") }, principal.principal), button("Sign out", "quiet", leave));
  } else {
    place.replaceChildren(button("Sign in", "", open));
  }
}

function leave() {
  credentials.token = null;
  look().catch(() => {}).finally(changed);
}

/** In a dialog of its own, above whatever is being edited. */
function open() {
  if (document.getElementById("sign-in")) return;
  const trouble = element("div", { role: "alert" });
  const token = element("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false" });
  const submit = element("button", { type: "submit", class: "primary" }, "Sign in");
  const form = element("form", { novalidate: true },
    element("div", { class: "field whole" },
      element("label", { for: "token" }, "Token"), token,
      element("span", { class: "hint" }, "made by pycrudapi token create; it is forgotten when this tab is closed")),
    element("div", { class: "actions" }, submit));
  const dialog = element("dialog", { id: "sign-in", "aria-labelledby": "sign-in-title" },
    element("div", { class: "dialog-head" },
      element("h2", { id: "sign-in-title" }, "Sign in"),
      element("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
    trouble, form);
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    trouble.replaceChildren();
    submit.disabled = true;
    credentials.token = token.value.trim() || null;
    try {
      await look();
      dialog.close();
      changed();
    } catch (error) {
      trouble.replaceChildren(complaint({ ...error, title: error.title, detail: error.message, status: null }));
    } finally {
      submit.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  token.focus();
}
