//! The OpenID Connect client at one issuer.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreErrorResponseType, CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet,
    CoreJwsSigningAlgorithm, CoreTokenResponse,
};
use openidconnect::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest,
    HttpResponse, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    TokenResponse as _, TokenUrl,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use tenant_store::{Clock, IssuerName};
use url::Url;

use super::super::discovery::{Discovery, LoginEndpoints};
use super::super::error::Refusal;
use super::super::fetch::{self, FetchError};
use super::super::token;
use super::{Begun, LoginError};
use crate::config::{ConfigError, IssuerConfig, LoginConfig, SigningAlgorithm};
use crate::egress::Client;

/// Clocks may differ by this much.
const LEEWAY: Duration = Duration::from_secs(30);

/// The claims of an ID token that was verified.
pub(super) struct IdToken(pub(super) Map<String, Value>);

pub(super) struct LoginClient {
    /// Character by character as its tokens say it.
    issuer: String,
    client_id: String,
    secret: Option<SecretString>,
    scopes: Vec<String>,
    algorithms: Vec<CoreJwsSigningAlgorithm>,
    redirect_uri: String,
    jwks_url: Option<Url>,
    discovery: Discovery,
    http: Client,
    clock: Arc<dyn Clock>,
}

impl LoginClient {
    pub(super) fn new(
        issuer: &IssuerConfig,
        settings: &LoginConfig,
        (http, clock): (Client, Arc<dyn Clock>),
        redirect_uri: String,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            issuer: issuer.url.clone(),
            client_id: settings.client_id.clone(),
            secret: settings.secret()?,
            scopes: settings.scopes.clone(),
            algorithms: issuer.profile().algorithms.into_iter().map(algorithm).collect(),
            redirect_uri,
            jwks_url: issuer.jwks_url.clone(),
            discovery: Discovery::new(&issuer.url, http.clone(), Arc::clone(&clock)),
            http,
            clock,
        })
    }

    /// Where a browser is sent, with a state, a nonce and a challenge of its own.
    pub(super) async fn begin(&self, name: &IssuerName) -> Result<(Url, Begun), LoginError> {
        let endpoints = self.endpoints().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client = CoreClient::new(self.id(), self.issuer()?, CoreJsonWebKeySet::default())
            .set_auth_uri(AuthUrl::from_url(endpoints.authorization))
            .set_redirect_uri(RedirectUrl::new(self.redirect_uri.clone()).map_err(|_| LoginError::Unusable)?);
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let (url, state, nonce) = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(self.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge)
            .url();
        let begun = Begun {
            issuer: name.clone(),
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret().into(),
        };
        Ok((url, begun))
    }

    /// Whether an answer in the browser is this provider's, as far as it says whose it is (RFC 9207 §2.4).
    pub(super) async fn check_sender(&self, iss: Option<&str>) -> Result<(), LoginError> {
        let must_say = self.endpoints().await?.says_issuer;
        match iss {
            Some(iss) if iss == self.issuer => Ok(()),
            None if !must_say => Ok(()),
            _ => Err(LoginError::OtherIssuer),
        }
    }

    /// Exchanges a code and verifies the ID token that it gives.
    pub(super) async fn exchange(&self, begun: &Begun, code: &SecretString) -> Result<IdToken, LoginError> {
        let endpoints = self.endpoints().await?;
        let token_endpoint = endpoints.token.ok_or(LoginError::Unusable)?;
        let mut client = CoreClient::new(self.id(), self.issuer()?, CoreJsonWebKeySet::default())
            .set_token_uri(TokenUrl::from_url(token_endpoint))
            .set_redirect_uri(RedirectUrl::new(self.redirect_uri.clone()).map_err(|_| LoginError::Unusable)?);
        if let Some(secret) = &self.secret {
            client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        if endpoints.secret_in_form {
            client = client.set_auth_type(AuthType::RequestBody);
        }
        let asked = client
            .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(begun.verifier.expose_secret().to_owned()))
            .request_async(&Guarded(&self.http))
            .await;
        let answer: CoreTokenResponse = asked.map_err(|error| self.no_token(&error))?;
        let token = answer.id_token().ok_or(Refusal::NotJwt)?;
        self.verify(token, &begun.nonce).await
    }

    /// Verifies an ID token with the keys that the provider publishes now. Each exchange costs a code, so that nobody can have them
    /// fetched for nothing.
    async fn verify(&self, token: &CoreIdToken, nonce: &str) -> Result<IdToken, LoginError> {
        let now = self.clock.now().as_millis();
        let leeway = i64::try_from(LEEWAY.as_millis()).unwrap_or(0);
        let earlier = UNIX_EPOCH + Duration::from_millis(u64::try_from(now - leeway).unwrap_or(u64::MAX));
        let verifier = CoreIdTokenVerifier::new_public_client(self.id(), self.issuer()?, self.keys().await?)
            .set_allowed_algs(self.algorithms.iter().cloned())
            .set_time_fn(move || earlier.into())
            .set_issue_time_verifier_fn(move |issued| {
                let is_past = issued.timestamp_millis() <= now + leeway;
                if is_past { Ok(()) } else { Err("it is not valid yet".to_owned()) }
            });
        if token.claims(&verifier, &Nonce::new(nonce.to_owned())).is_err() {
            tracing::warn!(issuer = %self.issuer, "an ID token was refused: its signature, issuer, audience, nonce or time is wrong");
            return Err(LoginError::Refused);
        }
        // What was verified is read again in our own exact shapes.
        let text = token.to_string();
        let payload = text.split('.').nth(1).ok_or(Refusal::NotJwt)?;
        Ok(IdToken(token::part(payload)?))
    }

    async fn keys(&self) -> Result<CoreJsonWebKeySet, LoginError> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discovery.endpoints().await.map_err(|error| self.unreachable(&error))?.jwks,
        };
        let body = fetch::get(&self.http, &url).await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|_| self.unreachable(&FetchError::NotUnderstood))
    }

    /// The endpoints of a provider that is used over https are used over https as well.
    async fn endpoints(&self) -> Result<LoginEndpoints, LoginError> {
        let endpoints = self.discovery.endpoints().await.map_err(|error| self.unreachable(&error))?.login;
        let leads_to = [Some(&endpoints.authorization), endpoints.token.as_ref()];
        let is_protected = |url: &Url| url.scheme() == "https" || !self.issuer.starts_with("https:");
        if leads_to.into_iter().flatten().all(is_protected) { Ok(endpoints) } else { Err(LoginError::Unusable) }
    }

    fn id(&self) -> ClientId {
        ClientId::new(self.client_id.clone())
    }

    fn issuer(&self) -> Result<IssuerUrl, LoginError> {
        IssuerUrl::new(self.issuer.clone()).map_err(|_| LoginError::Unusable)
    }

    fn unreachable(&self, error: &FetchError) -> LoginError {
        tracing::warn!(issuer = %self.issuer, error = error as &dyn std::error::Error, "nobody can sign in at an issuer");
        LoginError::Unavailable
    }

    /// What the provider says in its own words is not repeated, but for the codes that the standard knows.
    fn no_token(&self, error: &Exchange) -> LoginError {
        let (code, problem) = match error {
            RequestTokenError::ServerResponse(answer) => match answer.error() {
                CoreErrorResponseType::Extension(_) => ("another", LoginError::NoCode),
                known => (known.as_ref(), LoginError::NoCode),
            },
            RequestTokenError::Request(error) => return self.unreachable(error),
            _ => ("not understood", LoginError::Unusable),
        };
        tracing::warn!(issuer = %self.issuer, code, "an issuer gave no ID token for a code");
        problem
    }
}

/// The library's exchanges, through the guard.
struct Guarded<'h>(&'h Client);

impl<'c> AsyncHttpClient<'c> for Guarded<'_> {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(fetch::exchange(self.0, request))
    }
}

type Exchange = RequestTokenError<FetchError, openidconnect::StandardErrorResponse<CoreErrorResponseType>>;

fn algorithm(algorithm: SigningAlgorithm) -> CoreJwsSigningAlgorithm {
    match algorithm {
        SigningAlgorithm::Rs256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
        SigningAlgorithm::Rs512 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
        SigningAlgorithm::Ps256 => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
        SigningAlgorithm::Es256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
        SigningAlgorithm::Es384 => CoreJwsSigningAlgorithm::EcdsaP384Sha384,
        SigningAlgorithm::EdDsa => CoreJwsSigningAlgorithm::EdDsa,
    }
}
