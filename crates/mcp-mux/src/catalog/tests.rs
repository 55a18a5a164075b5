//! Who is looked at again when something changes: those whom it concerns, and nobody else.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crypto::{Key, KeyRing};
use secrecy::SecretString;
use tenant_store::testing::ThrowAway;
use tenant_store::{
    GrantSpec, Level, LocalKeys, NewOffer, NewTool, OfferKind, OnArguments, OnNewTool, OnToolChange, Store,
    SystemClock, TenantScope, TenantSpec, TenantStore, UpstreamAuth, UpstreamProtocol, UpstreamSpec,
};
use tokio::time::Instant;

use super::schedule::{Due, Schedules};
use super::snapshot::{Catalog, Shelf, Snapshot};
use crate::policy::Administration;

const EVERY: Duration = Duration::from_mins(5);

async fn store() -> Result<Store> {
    let keys = Arc::new(LocalKeys::new(KeyRing::new(Key::generate()?, Vec::new())));
    let store = Store::open(&SecretString::from("sqlite::memory:"), keys, Arc::new(SystemClock)).await?;
    store.migrate().await?;
    Ok(store)
}

/// A tenant with an upstream and a grant for the group of the same name.
async fn add(store: &Store, slug: &str) -> Result<TenantStore> {
    let change = store.begin().await?;
    let (tenant, _) = change.put_tenant(&slug.parse()?, &TenantSpec::named(slug)).await?;
    change.commit().await?;
    let rows = store.tenant(Administration::of_test().scope(tenant.id));
    rows.put_upstream(&"desk".parse()?, &spec(8)?).await?;
    rows.put_grant(&"team".parse()?, &grant(slug)?).await?;
    Ok(rows)
}

fn spec(concurrency: u32) -> Result<UpstreamSpec> {
    Ok(UpstreamSpec {
        url: "https://mcp.acme.example/mcp".parse()?,
        protocol: UpstreamProtocol::Mcp,
        prefix: None,
        auth: UpstreamAuth::None,
        call_timeout: Duration::from_secs(30),
        concurrency,
        on_tool_change: OnToolChange::Accept,
        on_new_tool: OnNewTool::Accept,
        on_arguments: OnArguments::Check,
        classes: BTreeMap::new(),
        enabled: true,
    })
}

fn grant(group: &str) -> Result<GrantSpec> {
    Ok(GrantSpec {
        issuer: "corp".parse()?,
        groups: vec![group.parse()?],
        subjects: Vec::new(),
        level: Level::Read,
        allow: vec!["*".parse()?],
        deny: Vec::new(),
    })
}

fn scope(rows: &TenantStore) -> TenantScope {
    Administration::of_test().scope(rows.id())
}

fn shelf<'s>(snapshot: &'s Snapshot, rows: &TenantStore) -> Result<&'s Shelf> {
    snapshot.shelf_in(scope(rows)).context("it is served")
}

#[tokio::test]
async fn only_tenants_that_changed_are_read_again() -> Result<()> {
    let store = store().await?;
    let (acme, globex) = (add(&store, "acme").await?, add(&store, "globex").await?);
    let catalog = Catalog::open(store.clone(), Administration::of_test()).await?;
    let before = catalog.snapshot();
    assert!(!catalog.reload().await?, "nothing changed");

    let team = acme.grants().await?.pop().context("it was put")?;
    acme.remove_grant(team.id).await?;
    acme.put_upstream(&"wiki".parse()?, &spec(8)?).await?;
    let initech = add(&store, "initech").await?;
    assert!(catalog.reload().await?);
    let after = catalog.snapshot();
    assert_eq!(shelf(&after, &acme)?.upstreams().count(), 2);
    assert_eq!(shelf(&after, &initech)?.upstreams().count(), 1);
    assert!(ptr::eq(shelf(&before, &globex)?, shelf(&after, &globex)?), "it is as it was");
    let names = |snapshot: &Snapshot, group: &str| -> Result<bool> {
        Ok(snapshot.grants().names(&"corp".parse()?, &group.parse()?))
    };
    assert!(names(&before, "acme")? && !names(&after, "acme")?);
    assert!(names(&after, "globex")? && names(&after, "initech")?);

    store.shred(&"globex".parse()?, "operator").await?;
    catalog.reload().await?;
    assert!(catalog.snapshot().shelf_in(scope(&globex)).is_none());
    assert!(!names(&catalog.snapshot(), "globex")?);
    assert!(ptr::eq(shelf(&after, &acme)?, shelf(&catalog.snapshot(), &acme)?));
    Ok(())
}

#[tokio::test]
async fn each_is_listed_in_its_turn_and_at_once_when_it_is_configured_anew() -> Result<()> {
    let store = store().await?;
    let (acme, _globex) = (add(&store, "acme").await?, add(&store, "globex").await?);
    let catalog = Catalog::open(store, Administration::of_test()).await?;
    let (mut schedules, now) = (Schedules::new(EVERY), Instant::now());
    let look = |schedules: &mut Schedules, now: Instant, room: usize| -> Vec<Due> {
        let snapshot = catalog.snapshot();
        schedules.follow(&snapshot, now);
        schedules.begin(&snapshot, now, room)
    };
    let mut due = look(&mut schedules, now, 1);
    due.extend(look(&mut schedules, now, 2));
    assert_eq!(due.len(), 2, "one after the other");
    assert!(look(&mut schedules, now + EVERY, 9).is_empty(), "they are being listed");
    assert_eq!(schedules.next_due(), None);
    for one in due {
        schedules.end(&one, true, now);
    }
    assert!(look(&mut schedules, now + EVERY / 2, 9).is_empty());
    assert_eq!(schedules.next_due(), Some(now + EVERY));
    let due = look(&mut schedules, now + EVERY, 9);
    let (of_acme, of_globex): (Vec<_>, Vec<_>) = due.into_iter().partition(|one| one.upstream.tenant == acme.id());

    acme.put_upstream(&"desk".parse()?, &spec(9)?).await?;
    catalog.reload().await?;
    let now = now + EVERY;
    assert!(look(&mut schedules, now, 9).is_empty(), "it still runs");
    let [of_acme, of_globex] = [of_acme, of_globex].map(|mut due| due.pop());
    let (of_acme, of_globex) = (of_acme.context("acme's")?, of_globex.context("globex's")?);
    assert!(of_acme.superseded.is_cancelled() && !of_globex.superseded.is_cancelled());
    schedules.end(&of_acme, false, now);
    schedules.end(&of_globex, true, now);
    let again = look(&mut schedules, now, 9);
    assert_eq!(again.iter().map(|one| one.upstream.spec.concurrency).collect::<Vec<_>>(), [9]);

    for upstream in acme.upstreams().await? {
        acme.remove_upstream(upstream.id).await?;
    }
    catalog.reload().await?;
    assert!(look(&mut schedules, now, 9).is_empty());
    assert!(again.iter().all(|one| one.superseded.is_cancelled()));
    schedules.end(&again[0], true, now);
    assert_eq!(look(&mut schedules, now + EVERY, 9).len(), 1, "globex's");
    Ok(())
}

/// All that a snapshot says, tenant by tenant in the order of their names.
fn said(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let shelf = |shelf: &Shelf, id| {
        let mut upstreams: Vec<_> = shelf.upstreams().map(|upstream| format!("{upstream:?}")).collect();
        upstreams.sort();
        let mut grants: Vec<_> = snapshot.grants().all().filter(|grant| grant.tenant == id).collect();
        grants.sort_by_key(|grant| grant.id);
        format!("{upstreams:?} {:?} {:?} {:?} {grants:?}", shelf.entries(), shelf.items(), shelf.egress_hosts())
    };
    snapshot.shelves().map(|(id, of)| (of.tenant_slug().to_string(), shelf(of, id))).collect()
}

/// What leaves a tenant out: a state, or a row of each table that does not parse.
const LEFT_OUT: [&str; 8] = [
    "tenant SET state = 'suspended' WHERE id",
    "tenant SET egress_hosts = '[]' WHERE id",
    "upstream SET url = 'nowhere' WHERE tenant_id",
    "tenant_grant SET allow = '[]' WHERE tenant_id",
    "tool SET digest = '00' WHERE tenant_id",
    "tool SET position = -1 WHERE tenant_id",
    "offer SET definition = '{' WHERE tenant_id",
    "credential SET version = -1 WHERE tenant_id",
];

#[tokio::test]
async fn what_is_read_at_once_is_what_is_read_tenant_by_tenant() -> Result<()> {
    let away = ThrowAway::new().await;
    let (store, administration) = (&away.store, Administration::of_test());
    let mut one_by_one = Snapshot::load(store, administration).await?;
    let next = async |before: &Snapshot| before.next_of(&store.still().await?, administration).await;
    for number in 0..300 {
        let slug = format!("t{number}");
        if number % 7 == 0 {
            let change = store.begin().await?;
            change.put_tenant(&slug.parse()?, &TenantSpec::named("Empty")).await?;
            change.commit().await?;
        } else {
            let rows = add(store, &slug).await?;
            if number % 10 == 1 || number < 20 {
                let desk = rows.upstreams().await?.pop().context("it was put")?;
                rows.put_credential(desk.id, &"key".parse()?, &"CANARY-bulk".into()).await?;
                let definition = serde_json::from_str(r#"{"name":"a","inputSchema":{}}"#)?;
                let tool = NewTool {
                    local: "a".parse()?,
                    exposed: format!("{slug}__a").parse()?,
                    definition,
                    looks_like_another: false,
                };
                rows.replace_tools(&desk, &[tool]).await?;
                let note = serde_json::from_str(r#"{"uri":"note://a"}"#)?;
                let note = NewOffer { key: "note://a".parse()?, exposed: None, definition: note };
                rows.replace_offers(&desk, OfferKind::Resource, &[note]).await?;
            }
        }
        one_by_one = next(&one_by_one).await?;
    }
    assert_eq!(said(&one_by_one), said(&Snapshot::load(store, administration).await?));
    assert_eq!(said(&one_by_one).len(), 300);

    let mut left_out = vec!["t19".to_owned()];
    store.shred(&"t19".parse()?, "operator").await?;
    for (number, damage) in (8..).filter(|number| number % 7 != 0).zip(LEFT_OUT) {
        let sql = format!("UPDATE {damage} = (SELECT id FROM tenant WHERE slug = 't{number}')");
        assert!(away.database().alter(&sql).await? > 0, "{damage}");
        left_out.push(format!("t{number}"));
    }
    // Whoever alters rows by hand is heard with the next change.
    add(store, "last").await?;
    let mut wanted = said(&one_by_one);
    wanted.retain(|slug, _| !left_out.contains(slug));
    let (by_parts, at_once) = (next(&one_by_one).await?, Snapshot::load(store, administration).await?);
    assert_eq!(said(&by_parts), said(&at_once));
    let mut at_once = said(&at_once);
    assert!(at_once.remove("last").is_some());
    assert_eq!(at_once, wanted);
    Ok(())
}
