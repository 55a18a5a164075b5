//! Key sets that rotate, vanish and are asked for keys they never had.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tenant_store::ManualClock;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;

/// A key set that a test can change, and how often it was asked for.
#[derive(Clone, Default)]
struct Provider {
    keys: Arc<Mutex<Option<Vec<&'static str>>>>,
    fetches: Arc<AtomicUsize>,
    /// Answers only when told to, once told to wait.
    slow: Arc<Mutex<Option<Arc<Notify>>>>,
    asked: Arc<Notify>,
}

/// A point on P-256 (RFC 7517 appendix A.1); the tests verify no signature.
fn jwk(id: &str) -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "kid": id,
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    })
}

async fn serve(State(provider): State<Provider>) -> Result<Json<Value>, StatusCode> {
    provider.fetches.fetch_add(1, Ordering::SeqCst);
    let slow = provider.slow.lock().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.clone();
    if let Some(release) = slow {
        provider.asked.notify_one();
        release.notified().await;
    }
    let keys = provider.keys.lock().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.clone();
    let keys = keys.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({ "keys": keys.into_iter().map(jwk).collect::<Vec<_>>() })))
}

impl Provider {
    fn publish(&self, keys: Option<Vec<&'static str>>) {
        *self.keys.lock().unwrap() = keys;
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own server ends with its process")]
async fn start(keys: Vec<&'static str>) -> (Provider, Arc<ManualClock>, Arc<IssuerKeys>) {
    let provider = Provider::default();
    provider.publish(Some(keys));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let routes = Router::new().route("/jwks", get(serve)).with_state(provider.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let config = serde_json::from_value(json!({ "name": "corp", "url": "https://idp.example.com", "jwks_url": url }));
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let http = crate::egress::Egress::new(&crate::config::EgressConfig::this_machine()).unwrap().client([]);
    let keys = IssuerKeys::new(&config.unwrap(), http, Arc::clone(&clock) as Arc<dyn Clock>, Tasks::default());
    (provider, clock, Arc::new(keys))
}

async fn find(keys: &Arc<IssuerKeys>, id: &str) -> Result<(), AuthError> {
    keys.find(Some(id), SigningAlgorithm::Es256).await.map(drop)
}

#[tokio::test]
async fn invented_key_ids_cost_one_fetch_per_gate() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    for round in 1..=3 {
        assert_eq!(find(&keys, &format!("invented-{round}")).await, Err(Refusal::UnknownKey.into()));
        for id in 0..500 {
            let id = format!("invented-{round}-{id}");
            assert_eq!(find(&keys, &id).await, Err(AuthError::ProviderUnavailable), "nobody has looked for it");
        }
        assert_eq!(provider.fetches.load(Ordering::SeqCst), round);
        clock.advance(GATE);
    }
}

#[tokio::test]
async fn a_key_that_was_looked_for_in_vain_leaves_the_gate_to_others() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    assert_eq!(find(&keys, "invented").await, Err(Refusal::UnknownKey.into()));
    clock.advance(GATE);
    assert_eq!(find(&keys, "invented").await, Err(Refusal::UnknownKey.into()));
    provider.publish(Some(vec!["k1", "k2"]));
    assert_eq!(find(&keys, "k2").await, Ok(()), "the gate was open");
    provider.publish(Some(vec!["k1", "k2", "invented"]));
    clock.advance(MISSING_LIFE);
    assert_eq!(find(&keys, "invented").await, Ok(()), "it is not forgotten for good");
}

#[tokio::test]
async fn a_new_key_is_told_from_an_invented_one_as_soon_as_the_gate_opens() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    assert_eq!(find(&keys, "invented").await, Err(Refusal::UnknownKey.into()));
    provider.publish(Some(vec!["k1", "k2"]));
    assert_eq!(find(&keys, "k2").await, Err(AuthError::ProviderUnavailable), "it may be good: nobody can say");
    clock.advance(GATE);
    assert_eq!(find(&keys, "k2").await, Ok(()));
}

#[tokio::test]
async fn a_fetch_runs_on_when_whoever_caused_it_has_gone() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    assert_eq!(find(&keys, "k1").await, Ok(()));
    provider.publish(Some(vec!["k1", "k2"]));
    clock.advance(GATE);
    let release = Arc::new(Notify::new());
    *provider.slow.lock().unwrap() = Some(Arc::clone(&release));
    tokio::select! {
        _ = find(&keys, "k2") => panic!("the provider has not answered"),
        () = provider.asked.notified() => {}
    }
    release.notify_one();
    assert_eq!(find(&keys, "k2").await, Ok(()));
    assert_eq!(provider.fetches.load(Ordering::SeqCst), 2, "it was fetched once for both");
}

#[tokio::test]
async fn a_new_key_is_found_and_a_removed_one_forgotten() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    assert_eq!(find(&keys, "k1").await, Ok(()));
    provider.publish(Some(vec!["k2"]));
    clock.advance(GATE);
    assert_eq!(find(&keys, "k2").await, Ok(()));
    assert_eq!(find(&keys, "k1").await, Err(Refusal::UnknownKey.into()));
}

#[tokio::test]
async fn known_keys_outlive_an_outage_of_a_day_and_no_longer() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    assert_eq!(find(&keys, "k1").await, Ok(()));
    provider.publish(None);
    clock.advance(STALE_MAX.checked_sub(Duration::from_secs(1)).unwrap());
    assert_eq!(find(&keys, "k1").await, Ok(()));
    clock.advance(Duration::from_secs(1));
    assert_eq!(find(&keys, "k1").await, Err(AuthError::ProviderUnavailable));
}

#[tokio::test]
async fn a_key_is_good_for_its_own_kind_of_algorithm_only() {
    let (_provider, _clock, keys) = start(vec!["k1"]).await;
    assert!(keys.find(Some("k1"), SigningAlgorithm::Rs256).await.is_err());
    assert!(keys.find(None, SigningAlgorithm::Es256).await.is_ok(), "without an id, the only key will do");
}

#[tokio::test]
async fn a_set_with_one_id_twice_is_refused() {
    let (_provider, _clock, keys) = start(vec!["k1", "k1"]).await;
    assert_eq!(find(&keys, "k1").await, Err(AuthError::ProviderUnavailable));
}

#[tokio::test]
async fn a_slow_provider_delays_only_tokens_of_unknown_keys() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    assert_eq!(find(&keys, "k1").await, Ok(()));
    provider.publish(Some(vec!["k1", "k2"]));
    clock.advance(GATE);
    let release = Arc::new(Notify::new());
    *provider.slow.lock().unwrap() = Some(Arc::clone(&release));
    let unknown = find(&keys, "k2");
    let others = async {
        provider.asked.notified().await;
        for _ in 0..1_000 {
            assert_eq!(find(&keys, "k1").await, Ok(()), "the fetch has not ended");
        }
        release.notify_one();
    };
    let (unknown, ()) = tokio::join!(unknown, others);
    assert_eq!(unknown, Ok(()));
}

#[tokio::test]
async fn a_key_that_is_taken_away_makes_a_new_generation_and_one_that_is_added_does_not() {
    let (provider, clock, keys) = start(vec!["k1"]).await;
    assert_eq!(find(&keys, "k1").await, Ok(()));
    let first = keys.generation();
    provider.publish(Some(vec!["k1", "k2"]));
    clock.advance(GATE);
    assert_eq!(find(&keys, "k2").await, Ok(()));
    assert_eq!(keys.generation(), first);
    provider.publish(Some(vec!["k2", "k3"]));
    clock.advance(GATE);
    assert_eq!(find(&keys, "k3").await, Ok(()));
    assert_ne!(keys.generation(), first);
}
