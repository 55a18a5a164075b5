//! What the parts of a request cost: the look-up of a name, the decision, the encoding of a list, sealing and opening.
//!
//! `cargo bench -p mcp-mux --bench parts`, or `just bench-parts`.

#[path = "support/tenants.rs"]
mod tenants;

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use crypto::{Key, KeyRing, Place};
use mcp_mux::caller::{Bounds, Caller, Principal};
use mcp_mux::catalog::{Face, Snapshot};
use mcp_mux::policy::{Action, Administration, Reach, decide};
use tenant_store::{Group, LocalKeys, Store, SystemClock};
use tokio::runtime::Runtime;

const TOOLS: usize = 1_000;
/// So many tenants have nothing; each combination of their groups is another view.
const EMPTY_TENANTS: usize = 16;

fn caller(groups: &[String]) -> Result<Caller> {
    let groups = groups.iter().map(|group| group.parse()).collect::<Result<Vec<Group>, _>>()?;
    let principal = Principal { issuer: "corp".parse()?, subject: "somebody".parse()? };
    Ok(Caller::supposed(principal, groups.into(), Bounds::Everything))
}

/// A snapshot with a tenant that has many tools, and some that have none.
async fn snapshot() -> Result<Snapshot> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("parts.db").display());
    let keys = LocalKeys::new(KeyRing::new(Key::generate()?, Vec::new()));
    let store = Store::open(&url.into(), Arc::new(keys), Arc::new(SystemClock)).await?;
    store.migrate().await?;
    let change = store.begin().await?;
    tenants::add(&change, "acme", "https://mcp.acme.example/mcp", TOOLS).await?;
    for number in 0..EMPTY_TENANTS {
        tenants::add(&change, &format!("t{number}"), "https://mcp.example.com/mcp", 0).await?;
    }
    change.commit().await?;
    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the database as the server does")]
    Ok(Snapshot::load(&store, Administration::for_the_platform()).await?)
}

/// The reach of somebody in acme and in those of the empty tenants whose bit is set.
fn reach(snapshot: &Snapshot, bits: usize) -> Result<Reach> {
    let others = (0..EMPTY_TENANTS).filter(|number| bits & (1 << number) != 0).map(|number| format!("t{number}"));
    let groups: Vec<String> = std::iter::once("acme".to_owned()).chain(others).collect();
    Ok(snapshot.grants().reach(&caller(&groups)?))
}

fn requests(criterion: &mut Criterion) -> Result<()> {
    let snapshot = Runtime::new()?.block_on(snapshot())?;
    let somebody = reach(&snapshot, 0)?;
    let view = snapshot.view(Face::Aggregate, &somebody);
    let entry = Arc::clone(view.tools.get("acme__tool_500").context("the tool is there")?);
    let groups: Vec<String> = (0..24).map(|number| format!("other-{number}")).chain(["acme".to_owned()]).collect();
    let member = caller(&groups)?;

    criterion.bench_function("the reach of a caller with 25 groups", |bench| {
        bench.iter(|| black_box(snapshot.grants().reach(black_box(&member))));
    });
    criterion.bench_function("a view that is known", |bench| {
        bench.iter(|| black_box(snapshot.view(Face::Aggregate, black_box(&somebody))));
    });
    criterion.bench_function("the look-up of a name among 1,000", |bench| {
        bench.iter(|| black_box(view.tools.get(black_box("acme__tool_500"))));
    });
    criterion.bench_function("the decision about a call", |bench| {
        bench.iter(|| black_box(decide(black_box(&somebody), Action::Call, &entry.facts())));
    });
    let mut combination = 0;
    let mut new_reach = || {
        combination += 1;
        reach(&snapshot, combination).expect("the names are names")
    };
    criterion.bench_function("the encoding of a list of 1,000 tools", |bench| {
        bench.iter_batched(
            &mut new_reach,
            |reach| black_box(snapshot.view(Face::Aggregate, &reach)),
            BatchSize::SmallInput,
        );
    });
    Ok(())
}

fn secrets(criterion: &mut Criterion) -> Result<()> {
    let keys = KeyRing::new(Key::generate()?, Vec::new());
    let place = Place {
        tenant: "ten_0c5a1e34",
        table: "credential",
        column: "sealed",
        row: "ups_0c5a1e34/6:tenant/3:key@https://mcp.acme.example",
        kind: "secret",
        version: 1,
    };
    let secret = tenants::BEARER.as_bytes();
    let sealed = crypto::seal(&keys, &place, secret)?;
    criterion.bench_function("sealing a key", |bench| {
        bench.iter(|| black_box(crypto::seal(&keys, &place, black_box(secret))));
    });
    criterion.bench_function("opening a key", |bench| {
        bench.iter(|| black_box(crypto::open(&keys, &place, black_box(&sealed))));
    });
    Ok(())
}

fn benches(criterion: &mut Criterion) {
    requests(criterion).expect("the benchmark sets itself up");
    secrets(criterion).expect("the benchmark sets itself up");
}

criterion_group!(all, benches);
criterion_main!(all);
