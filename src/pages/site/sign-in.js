// Who asks, and what their scopes allow: a token that this tab keeps until it is closed. It is the identity provider's where the
// pages are its client, and pasted otherwise.

import { ask, credentials } from "./api.js";
import { complaint, element } from "./dom.js";
import { openWindow, signIn, signOut } from "./provider.js";

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
  addEventListener("sign-in", start);
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
    place.replaceChildren(button("Sign in", "", start));
  }
}

/** Forgets the token here, and has the identity provider forget who it was. */
function leave() {
  const { credential, signIn: provider } = principal;
  credentials.token = null;
  look().catch(() => {}).finally(changed);
  if (credential !== "issuer" || !provider) return;
  try {
    const opened = openWindow();
    signOut(provider, opened).catch(() => opened.close());
  } catch {
    // Nothing more can be forgotten when no window may be opened.
  }
}

/** Takes a token, if it is good. */
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

/** A dialog above whatever is being edited, and a way to say in it what is wrong. */
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

/** In a window of the identity provider; meanwhile the dialog waits here. */
function atProvider(provider) {
  const { host } = new URL(provider.issuer);
  const again = button("Open the window again", "primary", open);
  const note = element("p", {}, "Go on in the window of ", element("strong", {}, host), ".");
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

/** With a token that somebody has. */
function pasted() {
  const token = element("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false" });
  const submit = element("button", { type: "submit", class: "primary" }, "Sign in");
  const form = element("form", { novalidate: true },
    element("div", { class: "field whole" },
      element("label", { for: "token" }, "Token"), token,
      element("span", { class: "hint" }, "made by pycrudapi token create; it is forgotten when this tab is closed")),
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
