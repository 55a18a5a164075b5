//! Our client at the authorization server of an account. What an operator registered by hand is meant, so it comes first; then our own
//! document, which leaves nothing behind at the authorization server; then one that we register there ourselves.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenant_store::{
    AccountAuth, CredentialKind, CredentialOwner, CredentialSlot, OAuthClientId, OAuthIssuer, SecretName, TenantStore,
    Timestamp, Upstream, UpstreamAuth, UpstreamId,
};

use super::super::credential::Proofs;
use super::super::error::UpstreamError;
use super::super::oauth::{ClientSecret, CodeClient, Http, Metadata, Registration, register};
use super::AccountError;
use super::tokens::{Revealed, Tokens, unread};
use crate::hex;

/// The name of the row that holds the client which we registered last. Earlier ones lie beside it, each under a name of its own.
const NAME: &str = "registered-client";
/// How many bytes of a digest tell earlier ones apart.
const DIGEST_BYTES: usize = 8;
const AUTH_METHOD: &str = "token_endpoint_auth_method";
const MILLIS_PER_SECOND: i64 = 1_000;

/// How our client came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ClientKind {
    /// An operator registered it.
    Configured,
    /// It is a document at its own address.
    Document,
    /// We registered it.
    Registered,
}

/// A client that we registered, as its row holds it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    issuer: OAuthIssuer,
    /// What was asked for. Another wish is another client.
    request: String,
    client_id: OAuthClientId,
    secret: Option<Revealed>,
    auth_method: String,
    secret_ends_at: i64,
}

impl ClientKind {
    /// Which client is used at a server with this metadata.
    pub(super) fn choose(auth: &AccountAuth, metadata: &Metadata, is_https: bool) -> Result<Self, AccountError> {
        if auth.client.is_some() {
            Ok(Self::Configured)
        } else if metadata.takes_client_documents && is_https {
            Ok(Self::Document)
        } else if metadata.registration_endpoint.is_some() {
            Ok(Self::Registered)
        } else {
            Err(AccountError::NoClient)
        }
    }
}

/// How `upstream` is called with accounts, if it is.
pub(super) fn auth_of(upstream: &Upstream) -> Option<&AccountAuth> {
    match &upstream.spec.auth {
        UpstreamAuth::Account(auth) => Some(auth),
        _ => None,
    }
}

/// The client that `issuer` knows as `id`, with its secret opened; nothing if there is no such client any more.
pub(super) async fn client(
    proofs: &Proofs<'_>,
    upstream: &Upstream,
    (issuer, kind, id): (&OAuthIssuer, ClientKind, &OAuthClientId),
    http: Http,
) -> Result<Option<CodeClient>, UpstreamError> {
    let secret = match kind {
        ClientKind::Configured => {
            let configured =
                auth_of(upstream).and_then(|auth| auth.client.as_ref()).filter(|known| known.client_id == *id);
            let Some(configured) = configured else { return Ok(None) };
            match &configured.proof {
                Some(proof) => proofs.client_secret(upstream, proof).await?,
                None => ClientSecret::None,
            }
        }
        ClientKind::Document => ClientSecret::None,
        ClientKind::Registered => {
            let is_it = |row: &Row| row.issuer == *issuer && row.client_id == *id;
            let mut row = read(proofs.rows, upstream, &name()?).await?.filter(is_it);
            if row.is_none() {
                row = read(proofs.rows, upstream, &earlier_name(id)?).await?.filter(is_it);
            }
            let Some(row) = row else { return Ok(None) };
            row.proof()
        }
    };
    Ok(Some(CodeClient { http, issuer: issuer.to_string(), id: id.clone(), secret }))
}

/// Revokes what `client` was given, and says so in the log where that failed.
pub(super) async fn take_back(
    client: Result<Option<CodeClient>, UpstreamError>,
    tokens: &Tokens,
    (upstream, now): (&Upstream, Timestamp),
) {
    let Some(endpoint) = &tokens.source.revocation_endpoint else { return };
    let token = &tokens.refresh.as_ref().unwrap_or(&tokens.access).0;
    let revoked = match client {
        Ok(Some(client)) => client.revoke(endpoint, token, now).await.is_ok(),
        _ => false,
    };
    if !revoked {
        let (tenant, upstream) = (upstream.tenant, upstream.id);
        tracing::warn!(tenant.id = %tenant, upstream.id = %upstream, "an authorization server did not take back an account's tokens");
    }
}

/// The client that we registered at the server with this metadata, or a new one, if `document` is what it should be. The one before
/// stays known to the accounts that were connected through it.
pub(super) async fn registered(
    rows: &TenantStore,
    upstream: &Upstream,
    (metadata, document): (&Metadata, Value),
    (http, now): (&Http, Timestamp),
) -> Result<OAuthClientId, AccountError> {
    let endpoint = metadata.registration_endpoint.as_ref().ok_or(AccountError::NoClient)?;
    let request = request(document, metadata, upstream);
    let text = wish(&request);
    let serves = |row: &Row| row.issuer == metadata.issuer && row.request == text && row.is_good(now);
    let name = name().map_err(|_| AccountError::Unavailable)?;
    let known = async || read(rows, upstream, &name).await.map_err(|_| AccountError::Unavailable);
    if let Some(row) = known().await?.filter(serves) {
        return Ok(row.client_id);
    }
    let Registration { id, secret, auth_method, secret_ends_at } = register(http, endpoint, &request).await?;
    // Another replica may have been faster: then there is no need for this one.
    let before = known().await?;
    if let Some(row) = before.as_ref().filter(|row| serves(row)) {
        return Ok(row.client_id.clone());
    }
    // An authorization server that calls itself otherwise each time leaves no row for each time.
    if let Some(row) = before.filter(|row| row.issuer == metadata.issuer && row.is_good(now)) {
        let earlier = earlier_name(&row.client_id).map_err(|_| AccountError::Unavailable)?;
        write(rows, upstream, &earlier, &row).await?;
    }
    let row = Row {
        issuer: metadata.issuer.clone(),
        request: text,
        client_id: id.clone(),
        secret: secret.map(Revealed),
        auth_method,
        secret_ends_at,
    };
    write(rows, upstream, &name, &row).await?;
    tracing::info!(tenant.id = %upstream.tenant, upstream.id = %upstream.id, "registered a client for accounts at an upstream");
    Ok(id)
}

/// What tells wishes apart: not how we prove ourselves, which the authorization server may have us change at any time.
fn wish(request: &Value) -> String {
    let mut wish = request.clone();
    if let Some(members) = wish.as_object_mut() {
        members.remove(AUTH_METHOD);
    }
    wish.to_string()
}

/// What we ask to be registered as (RFC 7591 §2).
fn request(mut document: Value, metadata: &Metadata, upstream: &Upstream) -> Value {
    let ways = ["none", "client_secret_basic", "client_secret_post"];
    let supported = |way: &&str| metadata.client_auth.iter().any(|known| known == way);
    let way = if metadata.client_auth.is_empty() { None } else { ways.into_iter().find(supported) };
    let uri = document.pointer("/redirect_uris/0").and_then(Value::as_str);
    // Who runs on the machine of its user may have an address there (OpenID Connect Dynamic Client Registration §2).
    let kind = if uri.is_some_and(|uri| uri.starts_with("https://")) { "web" } else { "native" };
    if let Some(members) = document.as_object_mut() {
        members.remove("client_id");
        members.insert(AUTH_METHOD.to_owned(), way.unwrap_or("none").into());
        members.insert("application_type".to_owned(), json!(kind));
        if let Some(scope) = auth_of(upstream).and_then(|auth| auth.scope.as_ref()) {
            members.insert("scope".to_owned(), json!(scope.as_str()));
        }
    }
    document
}

impl Row {
    fn is_good(&self, now: Timestamp) -> bool {
        self.secret_ends_at == 0 || now.as_millis() / MILLIS_PER_SECOND < self.secret_ends_at
    }

    fn proof(self) -> ClientSecret {
        match (self.secret, self.auth_method.as_str()) {
            (Some(Revealed(secret)), "client_secret_basic") => ClientSecret::Basic(secret),
            (Some(Revealed(secret)), "client_secret_post") => ClientSecret::Post(secret),
            _ => ClientSecret::None,
        }
    }
}

async fn read(rows: &TenantStore, upstream: &Upstream, name: &SecretName) -> Result<Option<Row>, UpstreamError> {
    let sealed = rows.find_credential(slot(upstream.id, name)).await.map_err(|error| unread(&error))?;
    let Some(sealed) = sealed.filter(|sealed| sealed.is_for(upstream)) else { return Ok(None) };
    match rows.open_credential(&sealed).await {
        Ok(text) => Ok(serde_json::from_str(text.expose_secret()).ok()),
        // One that does not open is registered anew.
        Err(error) if unread(&error) == UpstreamError::AccountMissing => Ok(None),
        Err(_) => Err(UpstreamError::SecretsUnavailable),
    }
}

async fn write(rows: &TenantStore, upstream: &Upstream, name: &SecretName, row: &Row) -> Result<(), AccountError> {
    let text = serde_json::to_string(row).map(SecretString::from).map_err(|_| AccountError::Unavailable)?;
    let stored = rows.put_credential_in(slot(upstream.id, name), &text).await;
    stored.map(drop).map_err(|error| AccountError::unstored(&error))
}

/// No name that we give it ourselves fails to parse.
fn name() -> Result<SecretName, UpstreamError> {
    NAME.parse().map_err(|_| UpstreamError::Setup)
}

/// The name of the row of a client that is not the last one.
fn earlier_name(id: &OAuthClientId) -> Result<SecretName, UpstreamError> {
    let digest = Sha256::digest(id.as_str());
    let (digest, _) = digest.split_at(DIGEST_BYTES);
    format!("{NAME}-{}", hex::encode(digest)).parse().map_err(|_| UpstreamError::Setup)
}

fn slot(upstream: UpstreamId, name: &SecretName) -> CredentialSlot<'_> {
    CredentialSlot { upstream, owner: &CredentialOwner::Tenant, name, kind: CredentialKind::Client }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(takes_client_documents: bool, registers: bool) -> Metadata {
        let url = "https://as.example/x".parse::<url::Url>().unwrap();
        Metadata {
            issuer: "https://as.example".parse().unwrap(),
            token_endpoint: url.clone(),
            authorization_endpoint: Some(url.clone()),
            registration_endpoint: registers.then_some(url),
            revocation_endpoint: None,
            supports_s256: true,
            says_issuer: false,
            takes_client_documents,
            client_auth: Vec::new(),
        }
    }

    #[test]
    fn an_operators_client_is_meant_then_our_document_then_one_that_we_register() {
        let none = AccountAuth {
            issuer: None,
            client: None,
            scope: None,
            resource: None,
            listing: tenant_store::AccountListing::None,
        };
        let client = tenant_store::AccountClient { client_id: "mux".parse().unwrap(), proof: None };
        let configured = AccountAuth { client: Some(client), ..none.clone() };
        let chosen =
            |auth, documents, registers, is_https| ClientKind::choose(auth, &metadata(documents, registers), is_https);
        assert_eq!(chosen(&configured, true, true, true), Ok(ClientKind::Configured));
        assert_eq!(chosen(&configured, false, false, false), Ok(ClientKind::Configured));
        assert_eq!(chosen(&none, true, true, true), Ok(ClientKind::Document));
        assert_eq!(chosen(&none, true, true, false), Ok(ClientKind::Registered), "nobody can read it");
        assert_eq!(chosen(&none, false, true, true), Ok(ClientKind::Registered));
        assert_eq!(chosen(&none, false, false, true), Err(AccountError::NoClient));
        assert_eq!(chosen(&none, true, false, false), Err(AccountError::NoClient));
    }
}
