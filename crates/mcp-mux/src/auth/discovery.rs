//! OpenID Connect Discovery 1.0: where an issuer's endpoints are. Its document must name the same issuer, character by character,
//! and may not lead from https to anything less.
//!
//! What it said last stays in use while it cannot be read again: that it is down says nothing about the endpoints themselves.

use std::sync::Arc;
use std::time::Duration;

use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
    CoreSubjectIdentifierType,
};
use openidconnect::{AdditionalProviderMetadata, ProviderMetadata};
use serde::{Deserialize, Serialize};
use tenant_store::{Clock, Timestamp};
use tokio::sync::Mutex;
use url::Url;

use super::fetch::{self, FETCH_TIMEOUT, FetchError};
use crate::egress::Client;

/// How often the document is read again.
const READ_EVERY: Duration = Duration::from_hours(24);
/// How soon it is read again when that failed, or when what it says did not work.
const RETRY_EVERY: Duration = Duration::from_mins(1);
/// How long reading it again may take: what follows has the rest of the time for one document.
const READ_AGAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What we need of the document.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    pub(super) jwks: Url,
    pub(super) introspection: Option<Url>,
    /// What a sign-in with a browser needs.
    pub(super) login: LoginEndpoints,
}

/// Where people sign in with a browser, and how the provider speaks to us then.
#[derive(Debug, Clone)]
pub(super) struct LoginEndpoints {
    pub(super) authorization: Url,
    pub(super) token: Option<Url>,
    /// It takes a client's secret in the form only, not in a header.
    pub(super) secret_in_form: bool,
    /// Its answers in the browser say whose they are (RFC 9207).
    pub(super) says_issuer: bool,
}

/// One issuer's document, as it was read last.
pub(super) struct Discovery {
    issuer: String,
    http: Client,
    clock: Arc<dyn Clock>,
    /// Held while it is read, so that however many wait, one reads.
    read: Mutex<Option<Read>>,
}

#[derive(Clone)]
struct Read {
    endpoints: Endpoints,
    tried_at: Timestamp,
    again_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Further {
    introspection_endpoint: Option<Url>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Further {}

type Metadata = ProviderMetadata<
    Further,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Discovery").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Discovery {
    pub(super) fn new(issuer: &str, http: Client, clock: Arc<dyn Clock>) -> Self {
        Self { issuer: issuer.to_owned(), http, clock, read: Mutex::new(None) }
    }

    /// The endpoints as they were read last, or now if that is long ago.
    pub(super) async fn endpoints(&self) -> Result<Endpoints, FetchError> {
        let mut read = self.read.lock().await;
        let now = self.clock.now();
        let Some(last) = read.as_mut() else {
            let endpoints = self.read_within(FETCH_TIMEOUT).await?;
            *read = Some(Read { endpoints: endpoints.clone(), tried_at: now, again_at: now.plus(READ_EVERY) });
            return Ok(endpoints);
        };
        if now >= last.again_at {
            match self.read_within(READ_AGAIN_TIMEOUT).await {
                Ok(endpoints) => *last = Read { endpoints, tried_at: now, again_at: now.plus(READ_EVERY) },
                Err(error) => {
                    (last.tried_at, last.again_at) = (now, now.plus(RETRY_EVERY));
                    tracing::warn!(
                        issuer = %self.issuer, error = &error as &dyn std::error::Error,
                        "an issuer's discovery document could not be read again; what it said last stays in use"
                    );
                }
            }
        }
        Ok(last.endpoints.clone())
    }

    /// Tells that an endpoint did not work: it may have moved, so the document is read again soon.
    pub(super) async fn doubt(&self) {
        if let Some(last) = self.read.lock().await.as_mut() {
            last.again_at = last.again_at.min(last.tried_at.plus(RETRY_EVERY));
        }
    }

    async fn read_within(&self, time: Duration) -> Result<Endpoints, FetchError> {
        let read = tokio::time::timeout(time, discover(&self.http, &self.issuer)).await;
        read.unwrap_or(Err(FetchError::Late))
    }
}

/// Reads an issuer's document.
pub(super) async fn discover(http: &Client, issuer: &str) -> Result<Endpoints, FetchError> {
    let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let place = Url::parse(&place).map_err(|_| FetchError::Discovery("the issuer is no URL"))?;
    let body = fetch::get(http, &place).await?;
    let metadata: Metadata = serde_json::from_slice(&body)
        .map_err(|_| FetchError::Discovery("it does not follow OpenID Connect Discovery 1.0"))?;
    if metadata.issuer().as_str() != issuer {
        return Err(FetchError::Discovery("it names another issuer"));
    }
    let jwks = metadata.jwks_uri().url().clone();
    let introspection = metadata.additional_metadata().introspection_endpoint.clone();
    let leads_to = [Some(&jwks), introspection.as_ref()];
    if place.scheme() == "https" && leads_to.into_iter().flatten().any(|url| url.scheme() != "https") {
        return Err(FetchError::Discovery("it leads from https to an unprotected address"));
    }
    Ok(Endpoints { jwks, introspection, login: login(&metadata) })
}

fn login(metadata: &Metadata) -> LoginEndpoints {
    let methods = metadata.token_endpoint_auth_methods_supported();
    let takes = |method| methods.is_some_and(|methods| methods.contains(&method));
    LoginEndpoints {
        authorization: metadata.authorization_endpoint().url().clone(),
        token: metadata.token_endpoint().map(|endpoint| endpoint.url().clone()),
        secret_in_form: takes(CoreClientAuthMethod::ClientSecretPost)
            && !takes(CoreClientAuthMethod::ClientSecretBasic),
        says_issuer: metadata.additional_metadata().authorization_response_iss_parameter_supported,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arc_swap::ArcSwap;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use tenant_store::ManualClock;
    use tokio::net::TcpListener;
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::lifecycle::Tasks;

    /// A provider that publishes a document, or nothing, and no key set.
    struct Provider {
        url: String,
        document: Arc<ArcSwap<Option<Value>>>,
        reads: Arc<AtomicUsize>,
        _stop: DropGuard,
    }

    impl Provider {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let (document, reads) = (Arc::new(ArcSwap::from_pointee(None)), Arc::new(AtomicUsize::new(0)));
            let (published, counted) = (Arc::clone(&document), Arc::clone(&reads));
            let answer = move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Option::clone(&published.load()).map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
            };
            let routes = Router::new().route("/.well-known/openid-configuration", get(answer));
            let tasks = Tasks::default();
            tasks.spawn(async move { drop(axum::serve(listener, routes).await) });
            Self { url, document, reads, _stop: tasks.stop_on_drop() }
        }

        /// Publishes a document of `issuer` whose key set is at `jwks`.
        fn publish(&self, issuer: &str, jwks: &str) {
            self.document.store(Arc::new(Some(json!({
                "issuer": issuer, "authorization_endpoint": "http://127.0.0.1/a", "jwks_uri": jwks,
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }))));
        }
    }

    #[tokio::test]
    async fn a_document_is_good_without_its_keys_and_only_for_its_own_issuer() {
        let provider = Provider::start().await;
        let http = crate::egress::Egress::new(&crate::config::EgressConfig::this_machine()).unwrap().client([]);
        provider.publish(&provider.url, "http://127.0.0.1:9/jwks");
        let endpoints = discover(&http, &provider.url).await.unwrap();
        assert_eq!(endpoints.jwks.as_str(), "http://127.0.0.1:9/jwks");
        for other in [format!("{}/", provider.url), "http://127.0.0.1".to_owned()] {
            provider.publish(&other, "http://127.0.0.1:9/jwks");
            assert!(matches!(discover(&http, &provider.url).await, Err(FetchError::Discovery(_))), "{other}");
        }
    }

    #[tokio::test]
    async fn what_a_document_said_last_stays_in_use_and_is_read_again_when_it_is_doubted() {
        let provider = Provider::start().await;
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
        let http = crate::egress::Egress::new(&crate::config::EgressConfig::this_machine()).unwrap().client([]);
        let discovery = Discovery::new(&provider.url, http, Arc::clone(&clock) as Arc<dyn Clock>);
        let jwks = async || discovery.endpoints().await.map(|endpoints| endpoints.jwks.path().to_owned());
        assert!(jwks().await.is_err(), "there is nothing to stay in use");
        provider.publish(&provider.url, "http://127.0.0.1/old");
        assert_eq!(jwks().await.unwrap(), "/old");
        provider.publish(&provider.url, "http://127.0.0.1/new");
        assert_eq!(jwks().await.unwrap(), "/old", "nobody doubts it");

        clock.advance(RETRY_EVERY);
        discovery.doubt().await;
        provider.document.store(Arc::new(None));
        let before = provider.reads.load(Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(jwks().await.unwrap(), "/old", "it cannot be read");
            discovery.doubt().await;
        }
        assert_eq!(provider.reads.load(Ordering::SeqCst), before + 1, "and is not tried each time");
        provider.publish(&provider.url, "http://127.0.0.1/new");
        clock.advance(RETRY_EVERY);
        assert_eq!(jwks().await.unwrap(), "/new");
    }
}
