// The signed-in principal and its scopes. The token is stored in this tab until it is closed. It is obtained from the identity
// provider if the pages are configured as its client, and pasted otherwise.

import { ask, credentials } from "./api.js";
import { complaint, element } from "./dom.js";
import { openWindow, signIn, signOut } from "./provider.js";

let principal = null;
let changed = () => {};
const place = element("span", { class: "who" });

/** Returns true if an action on a resource is permitted; while the principal is unknown, the server decides. */
export function may(resource, action) {
  if (principal === null) return true;
  const wanted = ["admin", `${resource}:${action}`, `${resource}:*`, `*:${action}`, "*:*"];
  return principal.scopes.some((scope) => wanted.includes(scope));
}

/** Loads the principal and shows it at the top; `done` is called now and after each sign-in or sign-out. */
export async function begin(done) {
  changed = done;
  document.querySelector(".bar").append(place);
  addEventListener("sign-in", start);
  await look().catch(() => {});
  changed();
}

/** Loads the principal of the token. An invalid token is deleted. */
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
    place.replaceChildren(element("span", { class: "hint", title: "AUTH=off: anyone who can connect to this service may change everything" }, "No sign-in"));
  } else if (principal?.principal) {
    place.replaceChildren(element("span", { class: "hint name", title: principal.scopes.join(" ") }, principal.principal), button("Sign out", "quiet", leave));
  } else {
    place.replaceChildren(button("Sign in", "", start));
  }
}

/** Deletes the token, and ends the session at the identity provider. */
function leave() {
  const { credential, signIn: provider } = principal;
  credentials.token = null;
  look().catch(() => {}).finally(changed);
  if (credential !== "issuer" || !provider) return;
  try {
    const opened = openWindow();
    signOut(provider, opened).catch(() => opened.close());
  } catch {
    // The session at the provider cannot be ended without a window.
  }
}

/** Stores a token if it is valid. */
async function take(token) {
  credentials.token = token;
  await look();
  changed();
}

function start() {
  if (document.getElementById("sign-in")) return;
  if (principal?.signIn) atProvider(principal.signIn);
  else pasted();
}

/** Creates a dialog above any open one, and a function that shows an error in it. */
function dialogOf(...content) {
  const trouble = element("div", { role: "alert" });
  const dialog = element("dialog", { id: "sign-in", "aria-labelledby": "sign-in-title" },
    element("div", { class: "dialog-head" },
      element("h2", { id: "sign-in-title" }, "Sign in"),
      element("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => dialog.close() }, "✕")),
    trouble, ...content);
  dialog.addEventListener("close", () => dialog.remove());
  const say = (error) => trouble.replaceChildren(error ? complaint({ ...error, title: error.title, detail: error.message, status: null }) : "");
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, say };
}

/** Signs in in a window of the identity provider; the dialog stays open meanwhile. */
function atProvider(provider) {
  const { host } = new URL(provider.issuer);
  const again = button("Open the window again", "primary", open);
  const note = element("p", {}, "Continue in the window of ", element("strong", {}, host), ".");
  const { dialog, say } = dialogOf(note, element("div", { class: "actions" }, again, button("Cancel", "quiet", () => dialog.close())));
  let attempt = new AbortController();
  let opened = null;
  dialog.addEventListener("close", () => {
    attempt.abort();
    opened?.close();
  });
  async function open() {
    attempt.abort();
    const { signal } = (attempt = new AbortController());
    say(null);
    note.hidden = false;
    try {
      opened = openWindow();
      await take(await signIn(provider, opened, signal));
      dialog.close();
    } catch (error) {
      if (signal.aborted) return;
      note.hidden = true;
      say(error);
      opened?.close();
    }
  }
  open();
}

/** Signs in with a pasted token. */
function pasted() {
  const token = element("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false" });
  const submit = element("button", { type: "submit", class: "primary" }, "Sign in");
  const form = element("form", { novalidate: true },
    element("div", { class: "field whole" },
      element("label", { for: "token" }, "Token"), token,
      element("span", { class: "hint" }, "created by pycrudapi token create; it is deleted when this tab is closed")),
    element("div", { class: "actions" }, submit));
  const { dialog, say } = dialogOf(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    say(null);
    submit.disabled = true;
    try {
      await take(token.value.trim() || null);
      dialog.close();
    } catch (error) {
      say(error);
    } finally {
      submit.disabled = false;
    }
  });
  token.focus();
}
