// Token exchange (RFC 8693) as this provider grants it: one of its own access tokens, of anybody, for another access token of the
// same person, issued for the resource that is asked for.
import { createLocalJWKSet, jwtVerify } from 'jose';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const PARAMETERS = ['subject_token', 'subject_token_type', 'requested_token_type', 'resource', 'audience', 'scope'];

/** Teaches `provider` the grant. `resourceServer` describes a resource; `errors` are oidc-provider's. */
export function registerExchange(provider, { issuer, jwks, knobs, resourceServer, errors }) {
  provider.registerGrantType(
    TOKEN_EXCHANGE,
    async (context) => {
      const { params, client } = context.oidc;
      if (params.subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('not an access token');
      let subject;
      try {
        const publicKeys = { keys: jwks.keys.map(({ d, p, q, dp, dq, qi, ...rest }) => rest) };
        const { payload } = await jwtVerify(params.subject_token, createLocalJWKSet(publicKeys), { issuer, typ: 'at+jwt' });
        subject = payload.sub;
      } catch {
        // RFC 8693 §2.2.2: whatever is wrong with the token. The text is one that nobody should be shown.
        throw new errors.InvalidRequest(`CANARY-echo ${params.subject_token}`);
      }
      if (knobs.exchangeEcho) {
        context.body = { access_token: params.subject_token, issued_token_type: ACCESS_TOKEN, token_type: 'Bearer' };
        return;
      }
      const token = new provider.AccessToken({ accountId: subject, client, expiresIn: knobs.ttl, gty: 'token_exchange' });
      token.resourceServer = await resourceServer(context, params.resource);
      token.scope = params.scope;
      context.body = {
        access_token: await token.save(),
        issued_token_type: ACCESS_TOKEN,
        token_type: 'Bearer',
        expires_in: token.expiration,
        scope: token.scope || undefined,
      };
    },
    PARAMETERS,
    ['resource', 'audience'],
  );
}
