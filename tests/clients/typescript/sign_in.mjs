// The official TypeScript client signs in: from the endpoint alone to a list of tools, and prints one JSON object.
//
//     node sign_in.mjs http://127.0.0.1:8080/mcp alice [CLIENT_ID]
//
// Without a client id it registers itself (RFC 7591). There is no browser: the authorization server takes `login_hint` for a
// sign-in, so all that is left of one are redirects and cookies.
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';

const [endpoint, person, clientId] = process.argv.slice(2);
const redirectUrl = 'http://127.0.0.1/callback';

/** What the client keeps between its requests. */
class Memory {
  redirectUrl = redirectUrl;
  clientMetadata = {
    client_name: 'sign-in test',
    redirect_uris: [redirectUrl],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
    application_type: 'native',
  };
  information = clientId && { client_id: clientId };

  state() {
    this.expectedState ??= crypto.randomUUID();
    return this.expectedState;
  }
  clientInformation() {
    return this.information;
  }
  saveClientInformation(information) {
    this.information = information;
  }
  tokens() {
    return this.saved;
  }
  saveTokens(tokens) {
    this.saved = tokens;
  }
  redirectToAuthorization(url) {
    this.authorization = url;
  }
  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }
  codeVerifier() {
    return this.verifier;
  }
  discoveryState() {
    return this.discovered;
  }
  saveDiscoveryState(discovered) {
    this.discovered = discovered;
  }
}

/** Follows the redirects of the authorization server to the one that comes back to us. */
async function browse(start) {
  const cookies = new Map();
  let url = new URL(start);
  url.searchParams.set('login_hint', person);
  for (let hop = 0; hop < 10; hop += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(url, { redirect: 'manual', headers: { cookie } });
    for (const set of response.headers.getSetCookie()) {
      const [pair] = set.split(';');
      const [name, ...value] = pair.split('=');
      cookies.set(name, value.join('='));
    }
    const location = response.headers.get('location');
    if (!location) throw new Error(`${url.pathname} answered ${response.status}: ${await response.text()}`);
    url = new URL(location, url);
    if (url.href.startsWith(redirectUrl)) return url.searchParams;
  }
  throw new Error('too many redirects');
}

const memory = new Memory();
const info = { name: 'test', version: '1' };
const transport = () => new StreamableHTTPClientTransport(new URL(endpoint), { authProvider: memory });

const refused = transport();
try {
  await new Client(info, { versionNegotiation: { mode: 'auto' } }).connect(refused);
  throw new Error('the server let a stranger in');
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
}
const answer = await browse(memory.authorization);
if (answer.get('state') !== memory.expectedState) throw new Error('the state is another one');
await refused.finishAuth(answer);

const client = new Client(info, { versionNegotiation: { mode: 'auto' } });
await client.connect(transport());
const { tools } = await client.listTools();
const { iss, aud, client_id, scope } = JSON.parse(atob(memory.saved.access_token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')));
console.log(
  JSON.stringify({
    version: client.getNegotiatedProtocolVersion(),
    tools: tools.map((tool) => tool.name),
    resource: memory.authorization.searchParams.get('resource'),
    registered: memory.information.client_id !== clientId,
    token: { iss, aud, client: client_id === memory.information.client_id, scope },
  }),
);
await client.close();
