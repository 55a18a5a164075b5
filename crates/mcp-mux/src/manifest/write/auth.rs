//! How an upstream's `auth` is written. Secrets are named.

use serde_json::Value;
use tenant_store::{
    AccountAuth, AccountClient, AccountListing, AuthorizationServer, ClientProof, Listing, RequestedType, SecretName,
    TokenExchange, TokenRequest, UpstreamAuth,
};

use super::Fields;

/// How the upstream wants to be shown who calls: a word, or the one way with what it needs.
pub(super) fn auth(auth: &UpstreamAuth) -> Value {
    if *auth == UpstreamAuth::None { Value::from("none") } else { ways(auth).into() }
}

/// Nothing for `none`, which goes along with a certificate without a word.
fn ways(auth: &UpstreamAuth) -> Fields {
    let fields = Fields::default();
    match auth {
        UpstreamAuth::None => fields,
        UpstreamAuth::Bearer { secret } => fields.with("bearer", named(secret)),
        UpstreamAuth::Headers { headers } => {
            let with = |map: Fields, (header, secret): (_, _)| map.with(AsRef::as_ref(header), named(secret));
            fields.with("headers", headers.iter().fold(Fields::default(), with))
        }
        UpstreamAuth::Basic { username, secret } => {
            fields.with("basic", Fields::default().with("username", username.as_str()).with("secret", secret.as_str()))
        }
        UpstreamAuth::Query { parameter, secret } => fields
            .with("query", Fields::default().with("parameter", parameter.as_str()).with("secret", secret.as_str())),
        UpstreamAuth::ClientCredentials(request) => fields.with("clientCredentials", token_request(request)),
        UpstreamAuth::TokenExchange(exchange) => fields.with("tokenExchange", token_exchange(exchange)),
        UpstreamAuth::Account(of) => fields.with("account", account(of)),
        UpstreamAuth::Mtls { secret, ca, with } => {
            let pair = Fields::default().with("secret", secret.as_str()).with_any("ca", ca.as_deref());
            ways(with).with("mtls", pair)
        }
        UpstreamAuth::AwsSigV4 { access_key_id, secret_access_key, session_token, region, service } => {
            let aws = Fields::default()
                .with("accessKeyId", access_key_id.as_str())
                .with("secretAccessKey", named(secret_access_key))
                .with_any("sessionToken", session_token.as_ref().map(named))
                .with("region", region.as_str())
                .with("service", service.as_str());
            fields.with("awsSigV4", aws)
        }
    }
}

fn named(secret: &SecretName) -> Fields {
    Fields::default().with("secret", secret.as_str())
}

fn token_request(request: &TokenRequest) -> Fields {
    let TokenRequest { server, client_id, proof, scope, resource, audience } = request;
    let server = match server {
        AuthorizationServer::Issuer(issuer) => Fields::default().with("issuer", issuer.as_str()),
        AuthorizationServer::TokenUrl(url) => Fields::default().with("tokenUrl", url.as_str()),
    };
    client_proof(server.with("clientId", client_id.as_str()), proof)
        .with_text("scope", scope.as_ref())
        .with_text("resource", resource.as_ref())
        .with_text("audience", audience.as_ref())
}

fn client_proof(fields: Fields, proof: &ClientProof) -> Fields {
    match proof {
        ClientProof::Basic { secret } => fields.with("secret", secret.as_str()),
        ClientProof::Post { secret } => fields.with("secret", secret.as_str()).with("clientAuth", "post"),
        ClientProof::PrivateKeyJwt { private_key, key_id } => {
            fields.with("privateKey", named(private_key)).with_text("keyId", key_id.as_ref())
        }
    }
}

fn token_exchange(exchange: &TokenExchange) -> Fields {
    let TokenExchange { request, requested_type, listing } = exchange;
    let requested_type = match requested_type {
        RequestedType::AccessToken => None,
        RequestedType::Jwt => Some("jwt"),
    };
    let listing = match listing {
        Listing::ClientCredentials => None,
        Listing::None => Some("none"),
    };
    token_request(request).with_any("requestedTokenType", requested_type).with_any("listing", listing)
}

fn account(account: &AccountAuth) -> Fields {
    let AccountAuth { issuer, client, scope, resource, listing } = account;
    let client = client.as_ref().map(|AccountClient { client_id, proof }| {
        let fields = Fields::default().with("clientId", client_id.as_str());
        if let Some(proof) = proof { client_proof(fields, proof) } else { fields }
    });
    let listing = match listing {
        AccountListing::None => None,
        AccountListing::ClientCredentials => Some(Value::from("clientCredentials")),
        AccountListing::Account { issuer, subject } => {
            let whose = Fields::default().with("issuer", issuer.as_str()).with("subject", subject.as_str());
            Some(Fields::default().with("account", whose).into())
        }
    };
    Fields::default()
        .with_text("issuer", issuer.as_ref())
        .with_any("client", client)
        .with_text("scope", scope.as_ref())
        .with_text("resource", resource.as_ref())
        .with_any("listing", listing)
}
