// The identity provider of the tests, as a process: `node idp.mjs [port]` prints `READY <issuer>` and serves until its stdin ends.
//
// Beside the provider itself there is a door for tests, below /__test/: `mint` (POST: a token made to order), `signIn` (POST: the
// real tokens of a person), `consent` (POST: where the browser of a person ends up), `keys` and `pem` (what is public of the keys),
// `rotate` (new keys, with or without the old ones), `set` (the knobs), `stats` (how often it was asked).
import { createPublicKey } from 'node:crypto';
import http from 'node:http';
import { memory } from './adapter.mjs';
import { mint, newKeys, publicPart } from './keys.mjs';
import { build, interact } from './provider.mjs';
import { consent, signIn } from './sign_in.mjs';

const knobs = { alg: 'RS256', ttl: 300, format: 'jwt', jwksDelayMs: 0, jwksDown: 0, tokenDelayMs: 0, tokenDown: 0, tokenError: '' };
const stats = { jwks: 0, discovery: 0, introspection: 0, token: 0, refresh: 0, registration: 0, revocation: 0 };
const adapter = memory();
let jwks = await newKeys();
let issuer;
let provider;

function rebuild() {
  provider = build({ issuer, adapter, jwks, knobs });
  const isRefresh = (context) => context.oidc.params?.grant_type === 'refresh_token';
  provider.on('grant.success', (context) => isRefresh(context) && (stats.refresh += 1));
  provider.on('registration_create.success', () => (stats.registration += 1));
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString() || '{}');
}

/** What a test asks for. */
const TESTS = {
  mint: async (request) => ({ token: await mint(issuer, jwks, await body(request)) }),
  signIn: async (request) => signIn(issuer, await body(request)),
  consent: async (request) => consent(await body(request)),
  pem: async () => ({
    pem: createPublicKey({ key: publicPart(jwks.keys[0]), format: 'jwk' }).export({ type: 'spki', format: 'pem' }),
  }),
  keys: async () => ({ keys: jwks.keys.map(publicPart) }),
  rotate: async (request, query) => {
    const fresh = await newKeys();
    jwks = { keys: query.get('keep') === '0' ? fresh.keys : [...fresh.keys, ...jwks.keys] };
    rebuild();
    return { kids: jwks.keys.map((key) => key.kid) };
  },
  set: async (request, query) => {
    for (const [name, value] of query) knobs[name] = /^\d+$/.test(value) ? Number(value) : value;
    return knobs;
  },
  stats: async () => stats,
};

async function answer(request, response) {
  const url = new URL(request.url, issuer);
  const test = url.pathname.startsWith('/__test/') && TESTS[url.pathname.slice('/__test/'.length)];
  if (test) {
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify(await test(request, url.searchParams)));
  }
  if (url.pathname.startsWith('/interaction/')) return interact(provider, request, response);
  if (url.pathname === '/.well-known/openid-configuration') stats.discovery += 1;
  if (url.pathname === '/token/revocation') stats.revocation += 1;
  if (url.pathname === '/token/introspection') stats.introspection += 1;
  if (url.pathname === '/token') {
    stats.token += 1;
    if (knobs.tokenDelayMs) await new Promise((resolve) => setTimeout(resolve, knobs.tokenDelayMs));
    if (knobs.tokenDown) return response.writeHead(503, { 'content-type': 'text/html' }).end('CANARY-down');
    if (knobs.tokenError) {
      response.writeHead(400, { 'content-type': 'application/json' });
      return response.end(JSON.stringify({ error: knobs.tokenError, error_description: 'CANARY-description' }));
    }
  }
  if (url.pathname === '/jwks') {
    stats.jwks += 1;
    if (knobs.jwksDelayMs) await new Promise((resolve) => setTimeout(resolve, knobs.jwksDelayMs));
    if (knobs.jwksDown) return response.writeHead(503).end();
  }
  return provider.callback()(request, response);
}

const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  rebuild();
  console.log(`READY ${issuer}`);
});

// Whoever started this has gone.
process.stdin.on('end', () => process.exit(0)).resume();
