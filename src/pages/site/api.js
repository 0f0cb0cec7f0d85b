// Sends requests to the API. An error response becomes a Problem, whether it is from the server or from a proxy.

export class Problem extends Error {
  constructor({ title, detail, type, code, status, errors }) {
    super(detail);
    Object.assign(this, { title, detail, type, code, status, errors: errors ?? [] });
  }

  /** The errors by field name. */
  fields() {
    return new Map(this.errors.filter((error) => error.pointer).map((error) => [fieldOf(error.pointer), error.detail]));
  }
}

const TOKEN = "token";

/** The token of this tab. It is deleted when the tab is closed, and other sites cannot read it. */
export const credentials = {
  get token() {
    return sessionStorage.getItem(TOKEN);
  },
  set token(token) {
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
  },
};

// The log positions of this tab's latest changes, so that lists from a replica include them. Responses may arrive out of order;
// of several positions the server uses the greatest.
const POSITION = "Database-LSN";
const POSITIONS_KEPT = 8;

const positions = () => sessionStorage.getItem(POSITION);

function remember(headers) {
  const position = headers.get(POSITION);
  if (position === null) return;
  const kept = (positions()?.split(", ") ?? []).filter((known) => known !== position).slice(1 - POSITIONS_KEPT);
  sessionStorage.setItem(POSITION, [...kept, position].join(", "));
}

// The field of a JSON pointer (RFC 6901) with one token.
const fieldOf = (pointer) => pointer.slice(1).replaceAll("~1", "/").replaceAll("~0", "~");

async function problemOf(response) {
  const document = await response.json().catch(() => null);
  if (document?.title && document?.detail) return new Problem(document);
  return new Problem({
    title: "The response cannot be parsed",
    detail: `a proxy responded with status ${response.status}; try again`,
    status: response.status,
  });
}

// Integers beyond the precision of a double are kept as strings.
const exact = (key, value, context) => (/^-?\d{16,}$/.test(context?.source ?? "") && !Number.isSafeInteger(value) ? context.source : value);

/** Sends a request, a file as it is and any other body as JSON; returns the value and the headers of the response. */
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

/** The query string of a relation in the Link header (RFC 8288), or null. */
export function linked(headers, relation) {
  for (const [, target, parameters] of (headers.get("Link") ?? "").matchAll(/<([^>]*)>([^,<]*)/g)) {
    if (new RegExp(`rel="?${relation}"?`).test(parameters)) return new URL(target, location.href).searchParams;
  }
  return null;
}

/** An idempotency key (16 random bytes). */
export const newKey = () =>
  [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
