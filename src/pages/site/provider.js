// Signs a user in at an identity provider: OpenID Connect's authorization code flow with PKCE (RFC 7636), in a separate window,
// so that this page keeps the user's input. State, nonce and verifier stay in this page's memory, and the token is only in a
// response body, never in a URL.

import { Problem } from "./api.js";

// The channel on which the redirect page (signed-in.js) sends its response to the pages of this origin.
const CHANNEL = "sign-in";
const REDIRECT = `${location.origin}/`;
const WINDOW = "popup,width=520,height=720";
// Tolerance for inaccurate clocks of browsers.
const LEEWAY_S = 300;

const failed = (title, detail) => new Problem({ title, detail });

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const digest = async (text) => base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));

/** Opens a window for the provider's pages; must be called in a click handler. */
export function openWindow() {
  if (!isSecureContext) throw failed("Sign-in requires https", "open this page with https, or on localhost");
  const opened = open("", "sign-in", WINDOW);
  if (opened === null) throw failed("The window was blocked", "allow this site to open windows, then try again");
  return opened;
}

/** Fetches a JSON document of the provider. */
async function fetched(what, address, options) {
  let response;
  try {
    const own = { headers: { Accept: "application/json" }, credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" };
    response = await fetch(address, { ...own, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw failed("The identity provider cannot be reached", `${what} at ${address} did not respond, or does not allow requests from ${location.origin}`);
  }
  const document = await response.json().catch(() => null);
  if (response.ok && document) return document;
  const why = document?.error_description ?? document?.error ?? `status ${response.status}`;
  throw failed("The identity provider refused", `${what} responded: ${why}`);
}

/** Fetches the provider's metadata (OpenID Connect Discovery 1.0). */
async function discover(issuer, signal) {
  const address = `${issuer.replace(/\/+$/, "")}/.well-known/openid-configuration`;
  const provider = await fetched("the discovery document", address, { signal });
  if (provider.issuer !== issuer) throw failed("Unexpected identity provider", `the issuer in its discovery document is ${provider.issuer}`);
  return provider;
}

/** A URL of the provider with added parameters; it may already have some. */
function addressOf(provider, endpoint, parameters) {
  if (!/^https?:/.test(provider[endpoint])) throw failed("The identity provider has an incomplete discovery document", `${endpoint} is missing or not a URL`);
  const address = new URL(provider[endpoint]);
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  return address;
}

/** Waits for the first response with this state; responses with another state are ignored. */
function answered(state, signal) {
  return new Promise((resolve, reject) => {
    const channel = new BroadcastChannel(CHANNEL);
    const settle = (act, value) => {
      channel.close();
      act(value);
    };
    channel.onmessage = ({ data }) => {
      const answer = new URLSearchParams(data);
      if (answer.get("state") === state) settle(resolve, answer);
    };
    signal.addEventListener("abort", () => settle(reject, signal.reason), { once: true });
  });
}

/** The authorization code of a response (RFC 6749, 4.1.2), if it is from the expected provider (RFC 9207). */
function codeOf(answer, provider) {
  const from = answer.get("iss");
  if (from === null ? provider.authorization_response_iss_parameter_supported === true : from !== provider.issuer) {
    throw failed("The response is from another identity provider", `expected ${provider.issuer}, found ${from ?? "no iss"}`);
  }
  if (answer.has("error")) throw failed("The sign-in failed", answer.get("error_description") ?? answer.get("error"));
  if (!answer.get("code")) throw failed("The sign-in failed", "the identity provider sent no code");
  return answer.get("code");
}

/** Validates an ID token received directly from the token endpoint (OpenID Connect Core 1.0, 3.1.3.7); TLS replaces the check of its signature. */
function validateIdToken(token, { issuer, clientId, nonce }) {
  const wrong = (what) => failed("The ID token is invalid", `its ${what} has an unexpected value`);
  let claims;
  try {
    const [, payload] = token.split(".");
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    claims = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw wrong("form");
  }
  const audience = [claims.aud].flat();
  if (claims.iss !== issuer) throw wrong("iss");
  if (!audience.includes(clientId)) throw wrong("aud");
  if (claims.azp === undefined ? audience.length > 1 : claims.azp !== clientId) throw wrong("azp");
  if (!(claims.exp > Date.now() / 1000 - LEEWAY_S)) throw wrong("exp");
  if (claims.nonce !== nonce) throw wrong("nonce");
}

/** Signs a user in, in the window; returns an access token. */
export async function signIn({ issuer, clientId, scope }, opened, signal) {
  const [state, nonce, verifier] = [random(), random(), random()];
  const provider = await discover(issuer, signal);
  const exchange = addressOf(provider, "token_endpoint", {});
  const { origin } = new URL(issuer);
  if (exchange.origin !== origin) {
    throw failed("The identity provider cannot be used here", `its token endpoint is at ${exchange.origin}, but this page may send requests only to ${origin}`);
  }
  const address = addressOf(provider, "authorization_endpoint", {
    response_type: "code",
    client_id: clientId,
    redirect_uri: REDIRECT,
    scope,
    state,
    nonce,
    code_challenge: await digest(verifier),
    code_challenge_method: "S256",
  });
  signal.throwIfAborted();
  if (opened.closed) throw failed("The window was closed", "open it again to sign in");
  const coming = answered(state, signal);
  opened.location.replace(address);
  const code = codeOf(await coming, provider);
  const form = { grant_type: "authorization_code", client_id: clientId, code, redirect_uri: REDIRECT, code_verifier: verifier };
  const answer = await fetched("the token endpoint", exchange, {
    method: "POST",
    body: new URLSearchParams(form),
    signal,
  });
  if (String(answer.token_type).toLowerCase() !== "bearer" || typeof answer.access_token !== "string") {
    throw failed("The identity provider refused", "the token endpoint sent no bearer token");
  }
  validateIdToken(answer.id_token, { issuer, clientId, nonce });
  return answer.access_token;
}

/** Ends the session at the provider, if supported (OpenID Connect RP-Initiated Logout 1.0). */
export async function signOut({ issuer, clientId }, opened) {
  const provider = await discover(issuer);
  if (!provider.end_session_endpoint) return opened.close();
  const parameters = { client_id: clientId, post_logout_redirect_uri: REDIRECT, state: random() };
  opened.location.replace(addressOf(provider, "end_session_endpoint", parameters));
}
