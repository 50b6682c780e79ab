// Verifies tokens with jose against the server's key set, as its documentation shows it. The CA comes from
// NODE_EXTRA_CA_CERTS.

import { readFileSync } from "node:fs";
import { createRemoteJWKSet, jwtVerify } from "jose";

const asked = JSON.parse(process.env.ASKED);
const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", asked.url));
const requiredClaims = ["iss", "sub", "aud", "iat", "exp", "jti"];

function verify(token, how = {}) {
  const { issuer, audience } = asked;
  return jwtVerify(token, keys, { algorithms: ["EdDSA"], issuer, audience, requiredClaims, typ: "JWT", ...how });
}

async function refuses(what, token, how, code) {
  try {
    await verify(token, how);
  } catch (e) {
    if (!e.code?.startsWith(code)) throw e;
    return;
  }
  throw new Error(`jose took ${what}`);
}

const { payload } = await verify(asked.good);
if (payload.sub !== asked.sub) throw new Error("another subject");
await refuses("another audience", asked.good, { audience: "https://other.example.com" }, "ERR_JWT_CLAIM");
await refuses("another issuer", asked.good, { issuer: "https://other.example.com" }, "ERR_JWT_CLAIM");
await refuses("an expired token", asked.good, { currentDate: new Date(Date.now() + 2 * 86_400_000) }, "ERR_JWT_EXPIRED");
for (const [what, token] of Object.entries(asked.bad)) {
  await refuses(what, token, {}, "ERR_J");
}
const { version } = JSON.parse(readFileSync(new URL("node_modules/jose/package.json", import.meta.url)));
console.log(`jose ${version}: verified 1, refused ${Object.keys(asked.bad).length + 3}`);
