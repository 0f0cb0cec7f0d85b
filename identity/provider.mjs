// An identity provider for demonstrations and tests: the certified oidc-provider, which accepts any user name.
//
// Never for production: passwords are not checked, and the secret of the client `job` is in this file.
//
// Settings, from environment variables: ISSUER (its name and URL), PORT, AUDIENCE (of the access tokens), KEYS (file with its private
// keys, generated if missing), ALGORITHM (of access tokens), REDIRECT_URIS (of the client `page`, separated by commas), SCOPES
// (separated by spaces).

import { generateKeyPairSync } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";

import { Provider } from "oidc-provider";

const {
  PORT = "9000",
  ISSUER = `http://localhost:${PORT}`,
  AUDIENCE = "urn:pycrudapi",
  KEYS = "",
  ALGORITHM = "RS256",
  REDIRECT_URIS = "http://localhost:8080/",
  SCOPES = "admin *:read passengers:read passengers:create passengers:update passengers:delete passengers:* steps:read steps:create steps:update steps:delete steps:* air-quality:read",
  ACCESS_TOKEN_SECONDS = "600",
} = process.env;

/** A private key of each type that the service accepts, with unique ids. */
function newKeys() {
  const made = Date.now().toString(36);
  const key = (kind, options, more) => {
    const { privateKey } = generateKeyPairSync(kind, options);
    return { ...privateKey.export({ format: "jwk" }), use: "sig", ...more };
  };
  return {
    keys: [
      key("rsa", { modulusLength: 2048 }, { kid: `${made}-rsa` }),
      key("ec", { namedCurve: "P-256" }, { kid: `${made}-ec`, alg: "ES256" }),
      key("ed25519", {}, { kid: `${made}-ed`, alg: "EdDSA" }),
    ],
  };
}

function keys() {
  if (KEYS && existsSync(KEYS)) return JSON.parse(readFileSync(KEYS, "utf8"));
  const made = newKeys();
  if (KEYS) writeFileSync(KEYS, JSON.stringify(made), { mode: 0o600 });
  return made;
}

const provider = new Provider(ISSUER, {
  jwks: keys(),
  clients: [
    {
      client_id: "page",
      token_endpoint_auth_method: "none",
      grant_types: ["authorization_code"],
      response_types: ["code"],
      redirect_uris: REDIRECT_URIS.split(","),
      post_logout_redirect_uris: REDIRECT_URIS.split(","),
    },
    {
      client_id: "job",
      client_secret: "only-for-trials",
      grant_types: ["client_credentials"],
      response_types: [],
      redirect_uris: [],
      scope: SCOPES,
    },
  ],
  scopes: ["openid", ...SCOPES.split(" ")],
  // Any page may request tokens: the client `page` has no secret anyway.
  clientBasedCORS: () => true,
  cookies: { keys: ["only-for-trials"] },
  ttl: { AccessToken: Number(ACCESS_TOKEN_SECONDS), ClientCredentials: Number(ACCESS_TOKEN_SECONDS) },
  enabledJWA: {
    idTokenSigningAlgValues: ["RS256", "PS256", "ES256", "EdDSA"],
  },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => AUDIENCE,
      // Without it the code flow would issue a token for /userinfo.
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: SCOPES,
        audience: AUDIENCE,
        accessTokenFormat: "jwt",
        jwt: { sign: { alg: ALGORITHM } },
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, name: id }) }),
});

const server = provider.listen(Number(PORT), () => console.log(`identity provider ${ISSUER} on port ${PORT}`));
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeAllConnections();
  });
}
