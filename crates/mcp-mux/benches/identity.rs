//! What knowing a caller costs: a token that was seen a moment ago, and new ones of both usual kinds of signature.
//!
//! `cargo bench -p mcp-mux --bench identity`, or `just bench-parts`. The tokens have 25 groups and about 2 KB, as those of companies have.

#[path = "support/signer.rs"]
mod signer;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::routing::get;
use axum::{Json, Router};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{StatusCode, Uri};
use jsonwebtoken::Algorithm;
use mcp_mux::auth::Authenticator;
use mcp_mux::config::{
    AdminConfig, AuditConfig, CatalogConfig, Config, DatabaseConfig, EgressConfig, HttpConfig, IssuerConfig,
    KeysConfig, LimitsConfig, PublicUrl, TelemetryConfig,
};
use mcp_mux::lifecycle::Tasks;
use serde_json::json;
use tenant_store::SystemClock;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use signer::{Holder, Signer};

const ISSUER: &str = "https://idp.example.com";
const ENDPOINT: &str = "https://mcp.example.com/mcp";

/// The headers of a request with a token that differs from all others by its number.
fn headers(signer: &Signer, number: u64) -> Result<HeaderMap> {
    let subject = "0c5a1e34-0f55-4a8e-9f5e-2f6f1c7b9d02";
    let token = signer.token(Holder { issuer: ISSUER, audience: ENDPOINT, subject, groups: &[], number })?;
    let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// An authenticator that knows both keys, from a provider on this machine.
async fn authenticator(signers: &[&Signer], tasks: &Tasks) -> Result<Authenticator> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let keys = signers.iter().map(|signer| signer.jwk()).collect::<Result<Vec<_>>>()?;
    let url = format!("http://{}/jwks", listener.local_addr()?);
    let routes =
        Router::new().route("/jwks", get(move || async move { (StatusCode::OK, Json(json!({ "keys": keys }))) }));
    tasks.spawn(async move { drop(axum::serve(listener, routes).await) });
    let issuer = IssuerConfig { jwks_url: Some(url.parse()?), ..IssuerConfig::new("corp".parse()?, ISSUER) };
    let config = Config {
        public_url: PublicUrl::try_from("https://mcp.example.com".parse::<url::Url>()?).map_err(anyhow::Error::msg)?,
        // No load balancer takes it out, so none is waited for.
        http: HttpConfig { drain_delay_seconds: 0, ..HttpConfig::default() },
        admin: AdminConfig::default(),
        database: DatabaseConfig::default(),
        keys: KeysConfig::default(),
        issuers: vec![issuer],
        fronts: Vec::new(),
        directories: Vec::new(),
        limits: LimitsConfig::default(),
        egress: EgressConfig::this_machine(),
        catalog: CatalogConfig::default(),
        audit: AuditConfig::default(),
        telemetry: TelemetryConfig::default(),
    };
    Ok(Authenticator::new(&config, &mcp_mux::Egress::new(&config.egress)?, Arc::new(SystemClock), tasks)?)
}

fn verify(authenticator: &Authenticator, runtime: &Runtime, headers: &HeaderMap, audiences: &[String]) {
    let uri = Uri::from_static("/mcp");
    let identity = runtime.block_on(authenticator.authenticate((&uri, headers), audiences, None));
    assert!(black_box(identity).is_ok(), "the token is good");
}

fn identity(criterion: &mut Criterion) -> Result<()> {
    let runtime = Runtime::new()?;
    let tasks = Tasks::default();
    let (rs256, es256) = (Signer::new(Algorithm::RS256)?, Signer::new(Algorithm::ES256)?);
    let authenticator = runtime.block_on(authenticator(&[&rs256, &es256], &tasks))?;
    let endpoint = vec![ENDPOINT.to_owned()];

    let mut group = criterion.benchmark_group("identity");
    group.sample_size(50).measurement_time(Duration::from_secs(3));
    let known = headers(&rs256, 0)?;
    group.bench_function("a token that is known", |bench| {
        bench.iter(|| verify(&authenticator, &runtime, &known, &endpoint));
    });
    for (name, signer) in [("a new RS256 token", &rs256), ("a new ES256 token", &es256)] {
        // What is verified is remembered, so each round needs a token of its own. To sign it is the provider's work, and is not
        // measured; it takes far longer than what is.
        group.sample_size(20).measurement_time(Duration::from_secs(1));
        let mut number = 0_u64;
        let mut fresh = || {
            number += 1;
            headers(signer, number).expect("the key signs")
        };
        group.bench_function(name, |bench| {
            bench.iter_batched(
                &mut fresh,
                |token| verify(&authenticator, &runtime, &token, &endpoint),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    tasks.shutdown().cancel();
    Ok(())
}

fn benches(criterion: &mut Criterion) {
    identity(criterion).expect("the benchmark sets itself up");
}

criterion_group!(all, benches);
criterion_main!(all);
