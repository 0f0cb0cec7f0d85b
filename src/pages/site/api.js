// Asks the API. An answer that is no success becomes a Problem, whoever made it.

export class Problem extends Error {
  constructor({ title, detail, type, code, status, errors }) {
    super(detail);
    Object.assign(this, { title, detail, type, code, status, errors: errors ?? [] });
  }

  /** What is wrong with each field, by its name. */
  fields() {
    return new Map(this.errors.filter((error) => error.pointer).map((error) => [fieldOf(error.pointer), error.detail]));
  }
}

const TOKEN = "token";

/** The token of this tab: it goes with the tab, and no other site sees it. */
export const credentials = {
  get token() {
    return sessionStorage.getItem(TOKEN);
  },
  set token(token) {
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
  },
};

// What this tab has changed last, so that a replica shows it no list without that. Answers may overtake each other: of several
// positions the server takes the greatest.
const POSITION = "Database-LSN";
const POSITIONS_KEPT = 8;

const positions = () => sessionStorage.getItem(POSITION);

function remember(headers) {
  const position = headers.get(POSITION);
  if (position === null) return;
  const kept = (positions()?.split(", ") ?? []).filter((known) => known !== position).slice(1 - POSITIONS_KEPT);
  sessionStorage.setItem(POSITION, [...kept, position].join(", "));
}

// A JSON pointer (RFC 6901) with one step.
const fieldOf = (pointer) => pointer.slice(1).replaceAll("~1", "/").replaceAll("~0", "~");

async function problemOf(response) {
  const document = await response.json().catch(() => null);
  if (document?.title && document?.detail) return new Problem(document);
  return new Problem({
    title: "The answer cannot be read",
    detail: `something between here and the server answered with status ${response.status}; try again`,
    status: response.status,
  });
}

// A whole number that a double would change stays the text that it was.
const exact = (key, value, context) => (/^-?\d{16,}$/.test(context?.source ?? "") && !Number.isSafeInteger(value) ? context.source : value);

/** Sends a request, a file as it is and any other body as JSON; gives the value of the answer and its headers. */
export async function ask(path, { method = "GET", body, headers = {}, signal } = {}) {
  const isFile = body instanceof Blob;
  const given = body === undefined || isFile ? {} : { "Content-Type": "application/json" };
  const { token } = credentials;
  const proof = token === null ? {} : { Authorization: `Bearer ${token}` };
  const seen = positions();
  const position = method === "GET" && seen !== null ? { [POSITION]: seen } : {};
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: { Accept: "application/json", ...proof, ...position, ...given, ...headers },
      body: isFile || body === undefined ? body : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The server cannot be reached", detail: "check the connection, then try again" });
  }
  remember(response.headers);
  if (!response.ok) throw await problemOf(response);
  const value = response.status === 204 ? null : JSON.parse(await response.text(), exact);
  return { value, headers: response.headers };
}

/** The query string of a relation in the header Link (RFC 8288), if it is there. */
export function linked(headers, relation) {
  for (const [, target, parameters] of (headers.get("Link") ?? "").matchAll(/<([^>]*)>([^,<]*)/g)) {
    if (new RegExp(`rel="?${relation}"?`).test(parameters)) return new URL(target, location.href).searchParams;
  }
  return null;
}

/** A key by which the server knows a repeated request again (16 random bytes). */
export const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
