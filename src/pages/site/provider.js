// Signs somebody in at an identity provider: OpenID Connect's authorization code flow with PKCE (RFC 7636), in a window of its own,
// so that this page keeps what was typed. State, nonce and verifier stay in this page's memory, and the token comes in the body
// of an answer: no address ever has it.

import { Problem } from "./api.js";

// What the page that the window comes back to says (signed-in.js), to every page of this origin.
const CHANNEL = "sign-in";
const REDIRECT = `${location.origin}/`;
const WINDOW = "popup,width=520,height=720";
// Clocks of browsers are set by people.
const LEEWAY_S = 300;

const failed = (title, detail) => new Problem({ title, detail });

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const digest = async (text) => base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))));

/** A window for the provider's pages; it must be opened while the click is handled. */
export function openWindow() {
  if (!isSecureContext) throw failed("The sign-in needs https", "open this page with https, or on localhost");
  const opened = open("", "sign-in", WINDOW);
  if (opened === null) throw failed("The window was blocked", "let this site open windows, then try again");
  return opened;
}

/** A JSON document of the provider. */
async function fetched(what, address, options) {
  let response;
  try {
    const own = { headers: { Accept: "application/json" }, credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" };
    response = await fetch(address, { ...own, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw failed("The identity provider cannot be reached", `${what} at ${address} did not answer, or lets no page of ${location.origin} ask`);
  }
  const document = await response.json().catch(() => null);
  if (response.ok && document) return document;
  const why = document?.error_description ?? document?.error ?? `status ${response.status}`;
  throw failed("The identity provider refused", `${what} says: ${why}`);
}

/** What the provider says of itself (OpenID Connect Discovery 1.0). */
async function discover(issuer, signal) {
  const address = `${issuer.replace(/\/+$/, "")}/.well-known/openid-configuration`;
  const provider = await fetched("the discovery document", address, { signal });
  if (provider.issuer !== issuer) throw failed("The identity provider is another one", `its discovery document is of ${provider.issuer}`);
  return provider;
}

/** An address of the provider with parameters, some of which it may have already. */
function addressOf(provider, endpoint, parameters) {
  if (!/^https?:/.test(provider[endpoint])) throw failed("The identity provider lacks an address", `its discovery document has no ${endpoint}`);
  const address = new URL(provider[endpoint]);
  for (const [name, value] of Object.entries(parameters)) address.searchParams.set(name, value);
  return address;
}

/** What the window comes back with: the first answer that has this state. Whatever has another one is none of ours. */
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

/** The code of an answer (RFC 6749, 4.1.2), if it is the right provider's (RFC 9207). */
function codeOf(answer, provider) {
  const from = answer.get("iss");
  if (from === null ? provider.authorization_response_iss_parameter_supported === true : from !== provider.issuer) {
    throw failed("The answer is of another identity provider", `expected ${provider.issuer}, found ${from ?? "no iss"}`);
  }
  if (answer.has("error")) throw failed("Nobody was signed in", answer.get("error_description") ?? answer.get("error"));
  if (!answer.get("code")) throw failed("Nobody was signed in", "the identity provider sent no code");
  return answer.get("code");
}

/** Judges an ID token that came from the token endpoint itself (OpenID Connect Core 1.0, 3.1.3.7); TLS stands for its signature. */
function judge(token, { issuer, clientId, nonce }) {
  const wrong = (what) => failed("The ID token is not good", `its ${what} is not what was asked for`);
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

/** Signs somebody in in the window; gives an access token. */
export async function signIn({ issuer, clientId, scope }, opened, signal) {
  const [state, nonce, verifier] = [random(), random(), random()];
  const provider = await discover(issuer, signal);
  const exchange = addressOf(provider, "token_endpoint", {});
  const { origin } = new URL(issuer);
  if (exchange.origin !== origin) {
    throw failed("The identity provider cannot be used here", `its token endpoint is at ${exchange.origin}, and this page may ask ${origin} alone`);
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
  judge(answer.id_token, { issuer, clientId, nonce });
  return answer.access_token;
}

/** Has the provider forget who is signed in, where it can (OpenID Connect RP-Initiated Logout 1.0). */
export async function signOut({ issuer, clientId }, opened) {
  const provider = await discover(issuer);
  if (!provider.end_session_endpoint) return opened.close();
  const parameters = { client_id: clientId, post_logout_redirect_uri: REDIRECT, state: random() };
  opened.location.replace(addressOf(provider, "end_session_endpoint", parameters));
}
