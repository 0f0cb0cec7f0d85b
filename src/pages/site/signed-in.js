// The end of a sign-in: passes the identity provider's response from the URL to the page that requested it, and closes the
// window.

const answer = location.search;
history.replaceState(null, "", "/");

/** Swagger UI's own mechanism: it waits in the window that opened this one. */
function toSwagger() {
  let asked;
  try {
    asked = opener?.swaggerUIRedirectOauth2;
  } catch {
    // The opener has another origin.
  }
  if (!asked?.auth) return;
  const parameters = new URLSearchParams(answer);
  const { auth, redirectUrl, state, callback, errCb } = asked;
  delete opener.swaggerUIRedirectOauth2;
  const fail = (message) => errCb({ authId: auth.name, source: "auth", level: "error", message });
  if (parameters.get("state") !== state) fail("the response is for another request");
  else if (!parameters.get("code")) fail(parameters.get("error_description") ?? parameters.get("error") ?? "no code was sent");
  else callback({ auth: Object.assign(auth, { code: parameters.get("code") }), redirectUrl });
}

toSwagger();
new BroadcastChannel("sign-in").postMessage(answer);
close();
