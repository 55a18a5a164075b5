// A sign-in without a browser: what is left of one are redirects and cookies. Answers with what the token endpoint answered.
import { createHash, randomBytes } from 'node:crypto';

const CLIENT = 'public-mcp';
const REDIRECT = 'http://127.0.0.1/callback';
const HOPS_MAX = 10;

/** Follows the provider's redirects to the one that comes back to the client, at an address that begins with `home`. */
async function browse(start, home) {
  const cookies = new Map();
  let url = start;
  for (let hop = 0; hop < HOPS_MAX; hop += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: { cookie } });
    for (const set of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
      cookies.set(name, value);
    }
    const location = response.headers.get('location');
    if (!location) throw new Error(`${url.pathname} answered ${response.status}: ${await response.text()}`);
    url = new URL(location, url);
    if (url.href.startsWith(home)) return url;
  }
  throw new Error('too many redirects');
}

/** The tokens of whoever signs in: access, refresh and ID token, as `scope` asks for them. */
export async function signIn(issuer, { person, scope, resource }) {
  const verifier = randomBytes(32).toString('base64url');
  const client = { client_id: CLIENT, redirect_uri: REDIRECT, ...(resource && { resource }) };
  const url = new URL('/auth', issuer);
  url.search = new URLSearchParams({
    ...client,
    response_type: 'code',
    scope,
    prompt: 'consent',
    login_hint: person,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
  });
  const code = (await browse(url, REDIRECT)).searchParams.get('code');
  const form = new URLSearchParams({ ...client, grant_type: 'authorization_code', code, code_verifier: verifier });
  const response = await fetch(new URL('/token', issuer), { method: 'POST', body: form });
  return response.json();
}

/** Where a person ends up who is sent to `url` by a client and allows everything. */
export async function consent({ url, person }) {
  const start = new URL(url);
  const home = start.searchParams.get('redirect_uri');
  start.searchParams.set('login_hint', person);
  return { url: (await browse(start, home)).href };
}
