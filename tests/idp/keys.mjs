// The provider's keys, and tokens that are signed with whatever key and header a test asks for.
import { randomBytes, randomUUID } from 'node:crypto';
import { exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose';

async function newKey(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true, modulusLength: 2048 });
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg}-${randomBytes(4).toString('hex')}` };
}

export async function newKeys() {
  return { keys: [await newKey('RS256'), await newKey('ES256')] };
}

/** The public half of a key. */
export function publicPart({ kty, n, e, crv, x, y, alg, use, kid }) {
  return JSON.parse(JSON.stringify({ kty, n, e, crv, x, y, alg, use, kid }));
}

/**
 * A token with the usual claims and header, changed as asked: a claim that is null is left out. It is signed with the provider's
 * key for `alg`, or with a key that nobody knows if `foreign`, which `embed` may put into the header as `jwk`.
 */
export async function mint(issuer, jwks, { claims = {}, header = {}, alg = 'RS256', foreign = false, embed = false }) {
  const key = foreign ? await newKey(alg) : jwks.keys.find((known) => known.alg === alg);
  const kid = foreign ? jwks.keys.find((known) => known.alg === alg).kid : key.kid;
  const now = Math.floor(Date.now() / 1000);
  const all = {
    iss: issuer,
    sub: 'alice',
    exp: now + 300,
    iat: now,
    jti: randomUUID(),
    client_id: 'public-mcp',
    scope: 'mcp:use',
    groups: ['acme'],
    ...claims,
  };
  for (const name of Object.keys(all)) if (all[name] === null) delete all[name];
  const protectedHeader = { alg, kid, typ: 'at+jwt', ...header };
  if (embed) protectedHeader.jwk = publicPart(key);
  for (const name of Object.keys(protectedHeader)) if (protectedHeader[name] === null) delete protectedHeader[name];
  const signer = new SignJWT(all).setProtectedHeader(protectedHeader);
  const crit = Object.fromEntries((protectedHeader.crit ?? []).map((name) => [name, true]));
  return signer.sign(await importJWK(key, alg), { crit });
}
