//! The consent: how a browser is sent to the authorization server, and what is made of the way back (RFC 6749 §4.1, RFC 7636, RFC 9207).

use std::time::Duration;

use aws_lc_rs::rand;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tenant_store::{
    AccountAuth, OAuthClientId, OAuthIssuer, SealedCredential, StoreError, TenantStore, Timestamp, Upstream,
};
use tokio::time::timeout;
use url::Url;

use super::super::credential::Proofs;
use super::super::oauth::{CodeGrant, Metadata, NotGranted, OAuthError, metadata, trusted_issuer};
use super::client::{ClientKind, auth_of, client, registered};
use super::error::AccountError;
use super::flow::{Callback, Flow};
use super::tokens::{Revealed, Slot, Source, Tokens};
use super::{AccountPlace, Accounts, Consent};
use crate::caller::Principal;

/// How many random bytes a state and a verifier have.
const RANDOM_BYTES: usize = 32;
/// The error of a person who said no (RFC 6749 §4.1.2.1).
const ACCESS_DENIED: &str = "access_denied";
/// How long a registration waits for another one at the same upstream.
const REGISTRATION_WAIT: Duration = Duration::from_secs(10);
/// The scope for which OpenID Connect wants people to be asked each time (Core §11).
const OFFLINE_ACCESS: &str = "offline_access";

impl Accounts {
    /// Begins the consent of `principal`: finds the authorization server, and a client there.
    pub async fn begin(&self, principal: &Principal, place: &AccountPlace) -> Result<Consent, AccountError> {
        let upstream = &place.upstream;
        let auth = auth_of(upstream).ok_or(AccountError::NotOffered)?;
        let http = self.http(place);
        let issuer = match &auth.issuer {
            Some(issuer) => issuer.clone(),
            None => trusted_issuer(&http, &upstream.spec.url).await?.ok_or(AccountError::NoIssuer)?,
        };
        let metadata = metadata(&http, &issuer).await?;
        if !metadata.supports_s256 {
            return Err(AccountError::NoS256);
        }
        let address = metadata.authorization_endpoint.clone().ok_or(AccountError::NoCodes)?;
        let flow = Flow {
            principal_issuer: principal.issuer.to_string(),
            subject: principal.subject.to_string(),
            tenant: upstream.tenant,
            upstream: upstream.id,
            destination: upstream.destination(),
            says_issuer: metadata.says_issuer,
            source: self.source(place, auth, metadata).await?,
            verifier: random()?,
            state: random()?,
            begun_at_ms: self.now().as_millis(),
        };
        let url = authorization_url(address, &flow, auth, &self.redirect_uri(&place.tenant, &upstream.slug));
        Ok(Consent { url, flow })
    }

    /// Through which client tokens will be given, and for what.
    async fn source(
        &self,
        place: &AccountPlace,
        auth: &AccountAuth,
        metadata: Metadata,
    ) -> Result<Source, AccountError> {
        let upstream = &place.upstream;
        let kind = ClientKind::choose(auth, &metadata, self.public_url.origin().starts_with("https://"))?;
        let client_id = match (kind, &auth.client) {
            (ClientKind::Configured, Some(client)) => client.client_id.clone(),
            (ClientKind::Document, _) => {
                self.client_uri(&place.tenant, &upstream.slug).parse().map_err(|_| AccountError::NoClient)?
            }
            _ => self.registered(place.clone(), metadata.clone()).await?,
        };
        Ok(Source {
            issuer: metadata.issuer,
            client: kind,
            client_id,
            token_endpoint: metadata.token_endpoint,
            revocation_endpoint: metadata.revocation_endpoint,
            resource: auth.resource_at(&upstream.spec.url).ok_or(AccountError::NotOffered)?,
        })
    }

    async fn registered(&self, place: AccountPlace, metadata: Metadata) -> Result<OAuthClientId, AccountError> {
        let accounts = self.clone();
        // Whoever gives up while waiting has begun nothing.
        let turn = timeout(REGISTRATION_WAIT, self.registering.lock(place.upstream.id)).await;
        let turn = turn.map_err(|_| AccountError::Server(OAuthError::Unavailable))?;
        self.whole(async move {
            let _turn = turn;
            let upstream = &place.upstream;
            let document = accounts.client_document(&place.tenant, &upstream.slug);
            let means = (&accounts.http(&place), accounts.now());
            registered(&accounts.rows(&place), upstream, (&metadata, document), means).await
        })
        .await
    }

    /// Ends a consent: the code is exchanged and what comes of it stored, in place of an earlier account.
    pub async fn finish(
        &self,
        principal: &Principal,
        place: &AccountPlace,
        flow: Flow,
        callback: Callback,
    ) -> Result<(), AccountError> {
        let (accounts, principal, place) = (self.clone(), principal.clone(), place.clone());
        self.whole(async move {
            let finished = accounts.exchange(&principal, &place, flow, &callback).await;
            let upstream = &place.upstream;
            let (issuer, subject) = (&principal.issuer, &principal.subject);
            match &finished {
                Ok(()) => tracing::info!(
                    tenant.id = %upstream.tenant, upstream.id = %upstream.id, principal.issuer = %issuer, principal.id = %subject,
                    "an account was connected"
                ),
                Err(error) => tracing::warn!(
                    tenant.id = %upstream.tenant, upstream.id = %upstream.id, principal.issuer = %issuer, principal.id = %subject,
                    error = error as &dyn std::error::Error, "an account was not connected"
                ),
            }
            finished
        })
        .await
    }

    async fn exchange(
        &self,
        principal: &Principal,
        place: &AccountPlace,
        flow: Flow,
        callback: &Callback,
    ) -> Result<(), AccountError> {
        let upstream = &place.upstream;
        let code = check(&flow, principal, upstream, callback, self.now())?;
        if !is_current(&flow, upstream)? {
            return Err(AccountError::Changed);
        }
        let rows = self.rows(place);
        let stored: Vec<&SealedCredential> = place.stored.iter().collect();
        let proofs = Proofs { caller: None, rows: &rows, stored: &stored, shown: None };
        let client = client(&proofs, upstream, flow.source.known(), self.http(place)).await;
        let client = client.map_err(AccountError::Client)?.ok_or(AccountError::Changed)?;
        // A code is spent once: not for what cannot be stored, and not by a page that was loaded twice.
        rows.ready_to_seal().await.map_err(|error| AccountError::unstored(&error))?;
        if !self.spent.entry(flow.state.0.expose_secret().to_owned()).or_insert(()).is_fresh() {
            return Err(AccountError::OtherFlow);
        }
        let redirect_uri = self.redirect_uri(&place.tenant, &upstream.slug);
        let grant = CodeGrant::Code { code, verifier: &flow.verifier.0, redirect_uri: &redirect_uri };
        let now = self.now();
        let granted = client.ask(&flow.source.token_endpoint, grant, flow.source.resource.as_str(), now).await;
        let granted = granted.map_err(|error| match error {
            NotGranted::Dead => AccountError::NoCode,
            NotGranted::Other(error) => AccountError::Server(error),
        })?;
        let tokens = Tokens::new(granted, flow.source, now);
        if let Err(error) = store(&rows, principal, upstream, &tokens).await {
            self.take_back(&rows, place, &tokens).await;
            return Err(error);
        }
        self.pool.forget_account(upstream, principal);
        Ok(())
    }
}

/// Whether the upstream is still what the consent was begun for.
fn is_current(flow: &Flow, upstream: &Upstream) -> Result<bool, AccountError> {
    let auth = auth_of(upstream).ok_or(AccountError::NotOffered)?;
    Ok(flow.destination == upstream.destination()
        && auth.issuer.as_ref().is_none_or(|issuer| *issuer == flow.source.issuer)
        && auth.client.is_some() == (flow.source.client == ClientKind::Configured))
}

/// The code, if `callback` is the answer to `flow`, of that principal, for that upstream, in time and from that authorization server.
fn check<'c>(
    flow: &Flow,
    principal: &Principal,
    upstream: &Upstream,
    callback: &'c Callback,
    now: Timestamp,
) -> Result<&'c SecretString, AccountError> {
    let state = callback.state.as_deref().unwrap_or_default();
    let answers = bool::from(state.as_bytes().ct_eq(flow.state.0.expose_secret().as_bytes()));
    let is_theirs = (flow.principal_issuer.as_str(), flow.subject.as_str())
        == (principal.issuer.as_str(), principal.subject.as_str());
    if !answers || !is_theirs || (flow.tenant, flow.upstream) != (upstream.tenant, upstream.id) {
        return Err(AccountError::OtherFlow);
    }
    if flow.is_over(now) {
        return Err(AccountError::TooLate);
    }
    // Also before an error is believed (RFC 9207 §2.4).
    if !is_from(&flow.source.issuer, callback.iss.as_deref(), flow.says_issuer) {
        return Err(AccountError::OtherIssuer);
    }
    match (&callback.error, &callback.code) {
        (Some(error), _) if error == ACCESS_DENIED => Err(AccountError::Declined),
        (None, Some(code)) => Ok(code),
        _ => Err(AccountError::NoCode),
    }
}

/// Whether the answer names `issuer`, character by character; it may leave that out where its metadata does not promise it.
fn is_from(issuer: &OAuthIssuer, said: Option<&str>, promised: bool) -> bool {
    said.map_or(!promised, |said| said == issuer.as_str())
}

fn authorization_url(mut url: Url, flow: &Flow, auth: &AccountAuth, redirect_uri: &str) -> Url {
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(flow.verifier.0.expose_secret()));
    {
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", flow.source.client_id.as_str())
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", flow.state.0.expose_secret())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("resource", flow.source.resource.as_str());
        if let Some(scope) = &auth.scope {
            query.append_pair("scope", scope.as_str());
            if scope.as_str().split(' ').any(|scope| scope == OFFLINE_ACCESS) {
                query.append_pair("prompt", "consent");
            }
        }
    }
    url
}

/// Stores the account for the addresses that it was connected for.
async fn store(
    rows: &TenantStore,
    principal: &Principal,
    upstream: &Upstream,
    tokens: &Tokens,
) -> Result<(), AccountError> {
    let text = tokens.text().ok_or(AccountError::Unavailable)?;
    let slot = Slot::of(principal, upstream.id).map_err(|_| AccountError::Unavailable)?;
    match rows.put_credential_in_for(upstream, slot.slot(), &text).await {
        Ok(_) => Ok(()),
        Err(StoreError::Moved) => Err(AccountError::Changed),
        Err(error) => Err(AccountError::unstored(&error)),
    }
}

fn random() -> Result<Revealed, AccountError> {
    let mut bytes = zeroize::Zeroizing::new([0; RANDOM_BYTES]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| AccountError::Unavailable)?;
    Ok(Revealed(SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
}
