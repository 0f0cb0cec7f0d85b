// Starts Swagger UI with the document of this server. Nothing is loaded from elsewhere.
// Swagger UI has a dark mode, but the page must enable it.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

/** Swagger UI offers every grant type of the identity provider. Only one is supported here, with the configured scopes. */
function supportedFlow(response, signIn) {
  if (!signIn || !response.url.endsWith("/.well-known/openid-configuration")) return response;
  const provider = { ...JSON.parse(response.text), grant_types_supported: ["authorization_code"], scopes_supported: signIn.scope.split(" ") };
  return { ...response, text: JSON.stringify(provider) };
}

/** Starts Swagger UI; `signIn` is the sign-in configuration of the identity provider, if there is one. */
function start({ signIn }) {
  const pkce = { usePkceWithAuthorizationCodeGrant: true };
  const ui = SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#swagger-ui",
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    deepLinking: true,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    // The badge would be an image from another host.
    validatorUrl: null,
    // The page at the root receives the response, so that only one redirect URI has to be registered.
    oauth2RedirectUrl: `${location.origin}/`,
    responseInterceptor: (response) => supportedFlow(response, signIn),
    ...pkce,
  });
  if (signIn) ui.initOAuth({ clientId: signIn.clientId, scopes: signIn.scope, ...pkce });
}

fetch("/v1/principal").then((response) => response.json()).catch(() => ({})).then(start);
