//! From stored secrets to what one request is proved with. This is where a credential is opened, and what it becomes goes into
//! requests of one link and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use tenant_store::{
    AccountAuth, AccountListing, ClientProof, HeaderText, IssuerName, QueryParameter, SealedCredential, SecretForm,
    SecretName, StoreError, TenantStore, Timestamp, Upstream, UpstreamAuth, UserName,
};
use url::form_urlencoded::byte_serialize;

use super::account;
use super::aws::Signer;
use super::error::UpstreamError;
use super::oauth::{AccessToken, ClientSecret};
use super::pem::SigningKey;
use super::redact::Secrets;
use super::request::Outgoing;
use super::secret::check_secret;
use crate::audit::{Owner, Shown, Used, UsedSecret};
use crate::caller::{Caller, Principal};
use crate::egress::Client;

/// What there is to prove oneself with: what was stored for an upstream, and who calls.
#[derive(Debug, Clone, Copy)]
pub struct Proofs<'p> {
    /// Who calls; nobody when tools are listed.
    pub caller: Option<&'p Caller>,
    /// The tenant's rows, which open what is sealed.
    pub rows: &'p TenantStore,
    /// The sealed credentials that were stored for the upstream.
    pub stored: &'p [&'p SealedCredential],
    /// Where it is noted what is shown.
    pub shown: Option<&'p Shown>,
}

/// On whose behalf an upstream is called, where it is called as somebody: a principal, by an account of its own or by this very access
/// token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Actor {
    pub(super) principal: Principal,
    /// None where the principal's account is used, whichever way it proved itself.
    token: Option<[u8; 32]>,
}

/// What requests are proved with. It belongs to one link, and one actor if the link has one.
pub(super) struct Credential {
    /// The client whose connections carry it.
    pub(super) http: Client,
    headers: HeaderMap,
    parameter: Option<(QueryParameter, SecretString)>,
    signer: Option<Signer>,
    /// Which of the link's access tokens it is.
    pub(super) issue: Option<u64>,
    /// Its name in the record, and where it is noted that it was shown.
    record: Option<(Arc<Used>, Shown)>,
    /// Every secret text that a request carries. None of them may reach a caller in the answer.
    pub(super) secrets: Secrets,
}

impl Actor {
    /// The caller, if its proof was an access token.
    fn of(caller: &Caller) -> Option<Self> {
        let token = caller.access_token.as_ref()?;
        let token = Sha256::digest(token.expose_secret()).into();
        Some(Self { principal: caller.principal.clone(), token: Some(token) })
    }

    /// A principal, whichever way it proved itself: with an account or a session of its own.
    pub(super) fn of_principal(principal: &Principal) -> Self {
        Self { principal: principal.clone(), token: None }
    }
}

impl Actor {
    /// Who vouches for it.
    pub(super) fn issuer(&self) -> &IssuerName {
        &self.principal.issuer
    }
}

/// The principal whose account tools are listed with, if an operator named one.
pub(crate) fn lister(account: &AccountAuth) -> Option<Principal> {
    match &account.listing {
        AccountListing::Account { issuer, subject } => {
            Some(Principal { issuer: issuer.clone(), subject: subject.clone() })
        }
        AccountListing::None | AccountListing::ClientCredentials => None,
    }
}

impl Proofs<'_> {
    /// The versions of what is stored: another secret is another version.
    pub(super) fn versions(&self) -> Vec<u32> {
        self.stored.iter().map(|sealed| sealed.version()).collect()
    }

    /// Whoever `upstream` is called as; nobody in particular for most.
    pub(super) fn actor(&self, upstream: &Upstream) -> Result<Option<Actor>, UpstreamError> {
        match (&upstream.spec.auth, self.caller) {
            (UpstreamAuth::TokenExchange(_), Some(caller)) => {
                Actor::of(caller).ok_or(UpstreamError::CallerTokenMissing).map(Some)
            }
            (UpstreamAuth::Account(_), Some(caller)) => Ok(Some(Actor::of_principal(&caller.principal))),
            (UpstreamAuth::Account(account), None) => Ok(lister(account).map(|lister| Actor::of_principal(&lister))),
            _ => Ok(None),
        }
    }

    /// What proves our client at an authorization server, opened.
    pub(super) async fn client_secret(
        &self,
        upstream: &Upstream,
        proof: &ClientProof,
    ) -> Result<ClientSecret, UpstreamError> {
        let (name, form) = proof.secret();
        let opened = self.open_as(upstream, name, form).await?;
        Ok(match proof {
            ClientProof::Basic { .. } => ClientSecret::Basic(opened),
            ClientProof::Post { .. } => ClientSecret::Post(opened),
            ClientProof::PrivateKeyJwt { key_id, .. } => {
                let key = SigningKey::parse(&opened).map_err(|_| UpstreamError::CredentialUnusable(name.clone()))?;
                ClientSecret::Signed(key, key_id.clone())
            }
        })
    }

    /// The access token of `actor`, if that is who calls.
    pub(super) fn token_of(&self, actor: &Actor) -> Option<Arc<SecretString>> {
        let caller = self.caller.filter(|caller| Actor::of(caller).as_ref() == Some(actor))?;
        caller.access_token.clone()
    }

    /// Opens the secret of that name. One that is missing is an error; nothing stands in for it.
    pub(super) async fn open(&self, upstream: &Upstream, name: &SecretName) -> Result<SecretString, UpstreamError> {
        let mut matching = self.stored.iter().filter(|sealed| sealed.is_for(upstream) && sealed.name() == name);
        let sealed = matching.next().ok_or_else(|| UpstreamError::CredentialMissing(name.clone()))?;
        self.rows.open_credential(sealed).await.map_err(|error| {
            tracing::error!(
                upstream.id = %upstream.id,
                error = &error as &dyn std::error::Error,
                "a stored secret does not open"
            );
            match error {
                // What is wrong with the key is not mended by storing the secret again.
                StoreError::DataKey { .. } => UpstreamError::SecretsUnavailable,
                _ => UpstreamError::CredentialUnusable(name.clone()),
            }
        })
    }

    /// The same, if it has the form that it is used in.
    pub(super) async fn open_as(
        &self,
        upstream: &Upstream,
        name: &SecretName,
        form: SecretForm,
    ) -> Result<SecretString, UpstreamError> {
        let value = self.open(upstream, name).await?;
        check_secret(form, &value).map_err(|_| UpstreamError::CredentialUnusable(name.clone()))?;
        Ok(value)
    }

    /// What the requests to `upstream` are proved with: what it wants, or an error. `token` is the access token, where it wants one.
    pub(super) async fn credential(
        &self,
        upstream: &Upstream,
        http: Client,
        token: Option<&AccessToken>,
    ) -> Result<Credential, UpstreamError> {
        let mut credential = Credential {
            http,
            headers: HeaderMap::new(),
            parameter: None,
            signer: None,
            issue: token.map(|token| token.issue),
            record: self.shown.cloned().and_then(|shown| Some((Arc::new(self.used(upstream, token)?), shown))),
            secrets: Secrets::default(),
        };
        // A certificate is shown by the client already.
        let auth = match &upstream.spec.auth {
            UpstreamAuth::Mtls { with, .. } => with,
            auth => auth,
        };
        match auth {
            UpstreamAuth::None | UpstreamAuth::Mtls { .. } => {}
            UpstreamAuth::Bearer { secret } => {
                // Keys with a space in them were taken before forms were checked.
                let key = self.open_as(upstream, secret, SecretForm::HeaderValue).await?;
                credential.bear(&key).ok_or_else(|| UpstreamError::CredentialUnusable(secret.clone()))?;
            }
            UpstreamAuth::Headers { headers } => self.headers(upstream, headers, &mut credential).await?,
            UpstreamAuth::Basic { username, secret } => {
                let password = self.open_as(upstream, secret, SecretForm::Password).await?;
                let added = credential.sign_in(username, &password);
                added.ok_or_else(|| UpstreamError::CredentialUnusable(secret.clone()))?;
            }
            UpstreamAuth::Query { parameter, secret } => {
                let value = self.open_as(upstream, secret, SecretForm::QueryValue).await?;
                let escaped: String = byte_serialize(value.expose_secret().as_bytes()).collect();
                credential.secrets.add(&value);
                credential.secrets.add(&SecretString::from(escaped));
                credential.parameter = Some((parameter.clone(), value));
            }
            UpstreamAuth::ClientCredentials(_) | UpstreamAuth::TokenExchange(_) | UpstreamAuth::Account(_) => {
                if let Some(token) = token {
                    credential.bear(&token.secret).ok_or(UpstreamError::NoToken(super::OAuthError::NotUnderstood))?;
                }
            }
            auth @ UpstreamAuth::AwsSigV4 { .. } => {
                let signer = self.signer(upstream, auth).await?;
                signer.iter().flat_map(Signer::secrets).for_each(|secret| credential.secrets.add(secret));
                credential.signer = signer;
            }
        }
        Ok(credential)
    }

    /// How the record names what the upstream is shown; nothing, if it is shown nothing.
    fn used(&self, upstream: &Upstream, token: Option<&AccessToken>) -> Option<Used> {
        let auth = &upstream.spec.auth;
        let account = match auth {
            UpstreamAuth::Account(_) => self.actor(upstream).ok().flatten().filter(|_| token.is_some()),
            _ => None,
        };
        if let Some(Actor { principal, .. }) = account {
            let of = if self.says_whose() { Used::account_of(&principal).of } else { None };
            return Some(Used {
                owner: Owner::Account,
                secrets: Vec::new(),
                version: token.map(|token| account::version_of(token.issue)),
                of,
            });
        }
        let is_exchanged = matches!(auth, UpstreamAuth::TokenExchange(_)) && self.caller.is_some();
        let is_nothing = matches!(auth, UpstreamAuth::TokenExchange(_) | UpstreamAuth::Account(_)) && token.is_none();
        let secrets = if is_nothing { Vec::new() } else { self.used_secrets(upstream) };
        let owner = if is_exchanged { Owner::Exchange } else { Owner::Tenant };
        let exchanged_for = self.caller.filter(|_| is_exchanged && self.says_whose());
        let of = exchanged_for.and_then(|caller| Used::account_of(&caller.principal).of);
        (!secrets.is_empty()).then_some(Used { owner, secrets, version: None, of })
    }

    /// Of a call it is known whose it is.
    fn says_whose(&self) -> bool {
        self.caller.is_none() || self.shown.is_some_and(Shown::says_whose)
    }

    /// The tenant's secrets that there are for the upstream.
    pub(super) fn used_secrets(&self, upstream: &Upstream) -> Vec<UsedSecret> {
        let names = upstream.spec.auth.secrets().into_iter().map(|(name, _)| name);
        let sealed = |name| self.stored.iter().find(|sealed| sealed.is_for(upstream) && sealed.name() == name);
        names
            .filter_map(sealed)
            .map(|sealed| UsedSecret { name: sealed.name().to_string(), version: sealed.version() })
            .collect()
    }

    async fn headers(
        &self,
        upstream: &Upstream,
        headers: &BTreeMap<HeaderText, SecretName>,
        credential: &mut Credential,
    ) -> Result<(), UpstreamError> {
        for (header, secret) in headers {
            let value = self.open_as(upstream, secret, SecretForm::HeaderValue).await?;
            let name = HeaderName::from_bytes(header.as_str().as_bytes()).ok();
            let added = name.and_then(|name| credential.carry(name, &value));
            added.ok_or_else(|| UpstreamError::CredentialUnusable(secret.clone()))?;
            credential.secrets.add_header(&value);
        }
        Ok(())
    }

    async fn signer(&self, upstream: &Upstream, auth: &UpstreamAuth) -> Result<Option<Signer>, UpstreamError> {
        let UpstreamAuth::AwsSigV4 { access_key_id, secret_access_key, session_token, region, service } = auth else {
            return Ok(None);
        };
        let secret_access_key = self.open_as(upstream, secret_access_key, SecretForm::AwsSecretAccessKey).await?;
        let session_token = match session_token {
            Some(name) => Some(self.open_as(upstream, name, SecretForm::AwsSessionToken).await?),
            None => None,
        };
        let (region, service) = (region.clone(), service.clone());
        Ok(Some(Signer { access_key_id: access_key_id.clone(), secret_access_key, session_token, region, service }))
    }
}

impl Credential {
    /// Puts the proof into a request that is otherwise complete.
    pub(super) fn prove(&self, request: &mut Outgoing, now: Timestamp) -> Result<(), UpstreamError> {
        if let Some((used, shown)) = &self.record {
            shown.note(used);
        }
        request.headers.extend(self.headers.clone());
        if let Some((parameter, value)) = &self.parameter {
            request.url.query_pairs_mut().append_pair(parameter.as_str(), value.expose_secret());
        }
        match &self.signer {
            Some(signer) => signer.sign(request, now).ok_or(UpstreamError::Setup),
            None => Ok(()),
        }
    }

    /// `Authorization: Bearer …` (RFC 6750 §2.1).
    fn bear(&mut self, token: &SecretString) -> Option<()> {
        self.carry(AUTHORIZATION, &SecretString::from(format!("Bearer {}", token.expose_secret())))?;
        self.secrets.add(token);
        Some(())
    }

    /// `Authorization: Basic …` (RFC 7617).
    fn sign_in(&mut self, username: &UserName, password: &SecretString) -> Option<()> {
        let pair = SecretString::from(format!("{username}:{}", password.expose_secret()));
        let encoded = SecretString::from(BASE64_STANDARD.encode(pair.expose_secret()));
        self.carry(AUTHORIZATION, &SecretString::from(format!("Basic {}", encoded.expose_secret())))?;
        self.secrets.add(&encoded);
        self.secrets.add(password);
        Some(())
    }

    fn carry(&mut self, name: HeaderName, value: &SecretString) -> Option<()> {
        let mut value = HeaderValue::from_str(value.expose_secret()).ok()?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Some(())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("issue", &self.issue).finish_non_exhaustive()
    }
}
