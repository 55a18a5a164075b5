// The authorization server that the tests sign in at: oidc-provider with RFC 9068 access tokens, RFC 8707 resources, RFC 7591
// registration, PKCE, introspection and revocation, a few people, and groups in their tokens.

// Node 20 lacks what oidc-provider reads addresses with.
URL.parse ??= (text, base) => {
  try {
    return new URL(text, base);
  } catch {
    return null;
  }
};
const { default: Provider, errors } = await import('oidc-provider');
import { registerExchange, TOKEN_EXCHANGE } from './exchange.mjs';

/** The people, by the name under which they sign in. `many` is in so many groups that the token only says so. */
const PEOPLE = {
  alice: { groups: ['acme'], email: 'alice@corp.example' },
  bob: { groups: ['globex'], email: 'bob@corp.example' },
  carol: { groups: ['acme', 'globex'], email: 'carol@corp.example' },
  nobody: { groups: [], email: 'nobody@corp.example' },
  many: { overage: true, email: 'many@corp.example' },
};

const CODE = { grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'] };

const CLIENTS = [
  {
    client_id: 'public-mcp',
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/callback'],
    ...CODE,
  },
  {
    client_id: 'service',
    client_secret: 'service-secret-for-tests-only',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  },
  {
    client_id: 'mcp-mux',
    client_secret: 'introspection-secret-for-tests-only',
    grant_types: [],
    redirect_uris: [],
    response_types: [],
  },
  {
    client_id: 'login',
    client_secret: 'CANARY-login-secret-of-the-tests+/=',
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/sign-in/corp/callback'],
    ...CODE,
  },
  {
    client_id: 'upstreams',
    client_secret: 'CANARY-client-secret-of-the-tests+/=',
    grant_types: ['client_credentials', TOKEN_EXCHANGE],
    redirect_uris: [],
    response_types: [],
  },
  {
    client_id: 'accounts',
    client_secret: 'CANARY-secret-of-the-client-for-accounts',
    application_type: 'native',
    redirect_uris: ['http://127.0.0.1/connect/acme/desk/callback'],
    ...CODE,
  },
  {
    client_id: 'upstreams-by-form',
    client_secret: 'CANARY-other-client-secret-of-the-tests',
    token_endpoint_auth_method: 'client_secret_post',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  },
];

/** A provider at `issuer` that signs with `jwks` and follows `knobs`. */
export function build({ issuer, adapter, jwks, knobs }) {
  const resourceServer = async (_context, resource) => {
    if (!/^https?:\/\//.test(resource)) throw new errors.InvalidTarget();
    return {
      scope: 'mcp:use',
      audience: resource,
      accessTokenFormat: knobs.format,
      accessTokenTTL: knobs.ttl,
      jwt: { sign: { alg: knobs.alg } },
    };
  };
  const provider = new Provider(issuer, {
    adapter,
    jwks,
    cookies: { keys: ['for-tests-only'] },
    clients: CLIENTS,
    findAccount: async (_context, id) => PEOPLE[id] && { accountId: id, claims: async () => ({ sub: id, ...PEOPLE[id] }) },
    claims: { openid: ['sub'], email: ['email'], groups: ['groups'] },
    // Clients ask for a resource's scopes when they register, so they must be known here too.
    scopes: ['openid', 'offline_access', 'email', 'groups', 'mcp:use'],
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    // Whoever shows a refresh token twice loses what was given for it.
    rotateRefreshToken: true,
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: async (_context, client) => client.clientId === 'mcp-mux' },
      revocation: { enabled: true, allowedPolicy: async () => true },
      registration: { enabled: true, initialAccessToken: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: async () => undefined,
        useGrantedResource: async () => true,
        getResourceServerInfo: resourceServer,
      },
    },
    extraTokenClaims: async (_context, token) => {
      const person = PEOPLE[token.accountId];
      if (!person) return undefined;
      // As Entra ID says it.
      if (person.overage) return { _claim_names: { groups: 'src1' }, _claim_sources: { src1: { endpoint: issuer } } };
      return { groups: person.groups, email: person.email };
    },
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    ttl: { Interaction: 600, Session: 3600, Grant: 3600, AccessToken: 3600, IdToken: 3600, RefreshToken: 86400 },
    renderError: async (context, out) => {
      context.type = 'json';
      context.body = out;
    },
  });
  registerExchange(provider, { issuer, jwks, knobs, resourceServer, errors });
  provider.on('server_error', (_context, error) => console.error('server_error', error));
  return provider;
}

/** Signs in whoever `login_hint` names, and grants everything that is asked for. */
export async function interact(provider, request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    const accountId = PEOPLE[params.login_hint] ? params.login_hint : 'nobody';
    const result = { login: { accountId } };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
  const known = grantId && (await provider.Grant.find(grantId));
  const grant = known || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (prompt.details.missingOIDCScope) grant.addOIDCScope(prompt.details.missingOIDCScope.join(' '));
  if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  const result = { consent: { grantId: await grant.save() } };
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}
