// Starts Swagger UI on the document of this very server. Nothing is loaded from elsewhere.
// Swagger UI has a dark form, and leaves it to the page to ask for it.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

/** Swagger UI offers each way in that the identity provider knows. Here there is one, with the scopes that there are. */
function oneWayIn(response, signIn) {
  if (!signIn || !response.url.endsWith("/.well-known/openid-configuration")) return response;
  const provider = { ...JSON.parse(response.text), grant_types_supported: ["authorization_code"], scopes_supported: signIn.scope.split(" ") };
  return { ...response, text: JSON.stringify(provider) };
}

/** Starts it; `signIn` is how somebody signs in at an identity provider, where they do. */
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
    // The badge would be an image of another host.
    validatorUrl: null,
    // The page at the root takes the answer, so that there is one address to register.
    oauth2RedirectUrl: `${location.origin}/`,
    responseInterceptor: (response) => oneWayIn(response, signIn),
    ...pkce,
  });
  if (signIn) ui.initOAuth({ clientId: signIn.clientId, scopes: signIn.scope, ...pkce });
}

fetch("/v1/principal").then((response) => response.json()).catch(() => ({})).then(start);
