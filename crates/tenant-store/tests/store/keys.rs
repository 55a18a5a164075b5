//! The key hierarchy: a wrong key is noticed at once, keys are turned over while everything goes on, and what is destroyed is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crypto::{Key, KeyRing};
use sea_orm::ConnectionTrait as _;
use secrecy::ExposeSecret as _;
use tenant_store::testing::is_on_postgres;
use tenant_store::{
    Asking, DataKeyState, KekError, KekId, KeyEncryption, KeyPlace, LocalKeys, Revision, Store, StoreError, Stuck,
    TenantSpec, TenantStore, Upstream,
};

use crate::support::{Bed, put_upstream, scope};

fn ring(primary: &Key, retired: &[&Key]) -> anyhow::Result<LocalKeys> {
    let copy = |key: &Key| Key::parse(&key.encode());
    let retired = retired.iter().map(|key| copy(key)).collect::<Result<_, _>>()?;
    Ok(LocalKeys::new(KeyRing::new(copy(primary)?, retired)))
}

async fn with(bed: &Bed, keys: LocalKeys) -> anyhow::Result<Store> {
    Ok(bed.away.with_keys(Arc::new(keys)).await?)
}

/// A store under a key that the test holds, in which `acme` has secrets.
async fn with_secrets(count: usize) -> anyhow::Result<(Bed, Key, Store, Upstream)> {
    let (bed, first) = (Bed::new().await?, Key::generate()?);
    let store = with(&bed, ring(&first, &[])?).await?;
    store.platform_keys().await?;
    let acme = store.tenant(scope(&bed.acme));
    let upstream = put_upstream(&acme, "jira").await?;
    for n in 0..count {
        acme.put_credential(upstream.id, &format!("s{n}").parse()?, &format!("CANARY-{n}").into()).await?;
    }
    Ok((bed, first, store, upstream))
}

/// Opens all of acme's secrets.
async fn open_all(rows: &TenantStore) -> Result<usize, StoreError> {
    let sealed = rows.sealed_credentials().await?;
    for sealed in &sealed {
        assert!(rows.open_credential(sealed).await?.expose_secret().starts_with("CANARY-"));
    }
    Ok(sealed.len())
}

#[tokio::test]
async fn the_right_key_passes_again_and_again() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let first = bed.platform_keys().await?.primary();
    for _ in 0..3 {
        assert_eq!(bed.platform_keys().await?.primary(), first);
    }
    assert_eq!(bed.away.again().await?.platform_keys().await?.primary(), first, "each replica has the same");
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_is_noticed_before_a_secret_is_needed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    bed.platform_keys().await?;
    let wrong = Key::generate()?;
    let error = with(&bed, ring(&wrong, &[])?).await?.platform_keys().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the database needs the key-encryption key {}, which is not among the configured ones ({}): add it to them, as \
             primary or as retired key, or use the database that belongs to them",
            bed.away.keys.primary(),
            wrong.id()
        )
    );
    // The wrong key has left no trace.
    bed.platform_keys().await?;
    Ok(())
}

#[tokio::test]
async fn an_altered_canary_is_noticed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    bed.platform_keys().await?;
    assert_eq!(bed.sql("UPDATE platform_key SET wrapped = ?", vec![vec![1_u8; 69].into()]).await?, 1);
    let error = bed.platform_keys().await.unwrap_err();
    assert!(matches!(error, StoreError::KekWrong { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn each_tenant_has_a_data_key_of_its_own_and_seals_are_counted() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    for tenant in [bed.acme(), bed.globex()] {
        let upstream = put_upstream(&tenant, "jira").await?;
        for name in ["a", "b", "a"] {
            tenant.put_credential(upstream.id, &name.parse()?, &"CANARY-x".into()).await?;
        }
    }
    let (acme, globex) = (bed.acme().data_keys().await?, bed.globex().data_keys().await?);
    assert_eq!((acme.len(), globex.len()), (1, 1));
    assert_ne!(acme[0].id, globex[0].id);
    assert_eq!((acme[0].state, acme[0].seals, acme[0].credentials), (DataKeyState::Active, 3, 2));
    Ok(())
}

#[tokio::test]
async fn the_outer_key_is_turned_over_and_the_old_one_is_needed_no_more() -> anyhow::Result<()> {
    let (bed, first, _, _) = with_secrets(3).await?;
    let second = Key::generate()?;
    // Readers first: a process that knows both, and still wraps with the old one.
    let readers = with(&bed, ring(&first, &[&second])?).await?;
    readers.platform_keys().await?;
    // Then writers.
    let writers = with(&bed, ring(&second, &[&first])?).await?;
    writers.platform_keys().await?;
    assert_eq!(
        writers.kek_uses().await?.iter().map(|used| used.kek.to_string()).collect::<Vec<_>>(),
        [first.id().to_string()]
    );
    while writers.rewrap_some(&mut Stuck::default()).await?.left > 0 {}
    let uses = writers.kek_uses().await?;
    assert_eq!(uses.len(), 1, "nothing is left under the old key: {uses:?}");
    assert_eq!((uses[0].kek.to_string(), uses[0].tenant_keys, uses[0].platform_keys), (second.id().to_string(), 1, 1));

    let alone = with(&bed, ring(&second, &[])?).await?;
    alone.platform_keys().await?;
    assert_eq!(open_all(&alone.tenant(scope(&bed.acme))).await?, 3);
    let stranger = with(&bed, ring(&first, &[])?).await?;
    assert!(matches!(stranger.platform_keys().await, Err(StoreError::KekMissing { .. })));
    Ok(())
}

#[tokio::test]
async fn a_data_key_is_turned_over_and_destroyed_only_when_nothing_is_left_under_it() -> anyhow::Result<()> {
    let (bed, _, store, upstream) = with_secrets(120).await?;
    let acme = store.tenant(scope(&bed.acme));
    let held_before = acme.sealed_credentials().await?;
    let old = acme.data_keys().await?[0].id;
    bed.away.clock.advance(Duration::from_secs(1));
    let new = acme.begin_rotation().await?;
    // Halfway: some are sealed with the new key, some with the old one, and all open.
    let progress = acme.reseal_some(&mut Stuck::default()).await?;
    assert!(progress.done > 0 && progress.left > 0, "{progress:?}");
    assert!(acme.is_rotating().await?);
    assert_eq!(open_all(&acme).await?, 120);
    acme.put_credential(upstream.id, &"late".parse()?, &"CANARY-late".into()).await?;

    // The process that did this is gone; another one goes on.
    let other = with_same(&bed, &store).await?;
    let acme = other.tenant(scope(&bed.acme));
    while acme.reseal_some(&mut Stuck::default()).await?.left > 0 {}
    assert!(!acme.is_rotating().await?);
    let keys = acme.data_keys().await?;
    let states: Vec<_> = keys.iter().map(|key| (key.id, key.state, key.credentials)).collect();
    assert_eq!(states, [(old, DataKeyState::Destroyed, 0), (new, DataKeyState::Active, 121)]);
    assert_eq!(open_all(&acme).await?, 121);
    // Who read before the rotation can still use what it read.
    for sealed in &held_before {
        store.tenant(scope(&bed.acme)).open_credential(sealed).await?;
    }
    Ok(())
}

/// Another process on the same database: `bed.away` has other keys than these tests use, so they are handed on.
async fn with_same(bed: &Bed, store: &Store) -> anyhow::Result<Store> {
    Ok(bed.away.with_keys(store.key_encryption()).await?)
}

#[tokio::test]
async fn two_rotations_at_once_end_as_one() -> anyhow::Result<()> {
    let (bed, _, store, _) = with_secrets(80).await?;
    let acme = store.tenant(scope(&bed.acme));
    acme.begin_rotation().await?;
    let other = with_same(&bed, &store).await?.tenant(scope(&bed.acme));
    let turn = async |rows: &TenantStore| -> Result<u64, StoreError> {
        let mut done = 0;
        loop {
            let progress = rows.reseal_some(&mut Stuck::default()).await?;
            done += progress.done;
            if progress.left == 0 {
                return Ok(done);
            }
        }
    };
    let (one, two) = tokio::join!(turn(&acme), turn(&other));
    assert_eq!(one? + two?, 80, "each secret was sealed anew once");
    assert_eq!(open_all(&acme).await?, 80);
    Ok(())
}

#[tokio::test]
async fn what_is_shredded_does_not_come_back() -> anyhow::Result<()> {
    let (bed, first, store, upstream) = with_secrets(4).await?;
    let acme = store.tenant(scope(&bed.acme));
    let read_before = acme.sealed_credentials().await?.remove(0);
    let before = tempfile::tempdir()?;
    let old_copy = bed.away.database().copy(&before.path().join("old.db")).await?;

    let certificate = store.shred(&bed.acme.slug, "operator").await?;
    assert_eq!((certificate.ciphertexts, certificate.key_ids.len()), (4, 1));
    assert_eq!(certificate.wrapped_under.iter().map(ToString::to_string).collect::<Vec<_>>(), [first.id().to_string()]);
    assert_eq!(store.erasure(bed.acme.id).await?, Some(certificate), "it is kept");
    assert_eq!(store.erasure(bed.globex.id).await?, None);

    // Whoever still holds what was sealed, and its wrapped key, gets nothing for it.
    let error = acme.open_credential(&read_before).await.unwrap_err();
    assert!(matches!(error, StoreError::DataKey { source: KekError::Refused, .. }), "{error}");
    let replica = with_same(&bed, &store).await?;
    let its_acme = replica.tenant(scope(&bed.acme));
    its_acme.open_credential(&read_before).await?;
    replica.drop_dead_keys(Revision(0)).await?;
    assert!(its_acme.open_credential(&read_before).await.is_err(), "another replica, once it has looked");

    assert!(acme.sealed_credentials().await?.is_empty());
    let error = acme.put_credential(upstream.id, &"s".parse()?, &"CANARY-new".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Shredded { .. }), "{error}");
    let change = store.begin().await?;
    assert!(matches!(
        change.put_tenant(&bed.acme.slug, &TenantSpec::named("Acme again")).await,
        Err(StoreError::Shredded { .. })
    ));
    drop(change);
    assert!(matches!(store.shred(&bed.acme.slug, "operator").await, Err(StoreError::Shredded { .. })));

    // The outer key is turned over, as the certificate says, and the old one is gone.
    let second = Key::generate()?;
    let writers = with(&bed, ring(&second, &[&first])?).await?;
    while writers.rewrap_some(&mut Stuck::default()).await?.left > 0 {}
    let current = || ring(&second, &[]);
    let restored = Store::open(&old_copy.url, Arc::new(current()?), bed.away.clock.clone()).await?;
    let rows = restored.tenant(scope(&bed.acme));
    let sealed = rows.sealed_credentials().await?;
    assert_eq!(sealed.len(), 4, "the old copy has them");
    for sealed in sealed.iter().chain([&read_before]) {
        let error = rows.open_credential(sealed).await.unwrap_err();
        assert!(matches!(error, StoreError::DataKey { source: KekError::Unknown(_), .. }), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_destroyed_key_is_in_no_file_of_the_database() -> anyhow::Result<()> {
    let (bed, _, store, _) = with_secrets(2).await?;
    let other = bed.other().await?;
    let select = sea_orm::Statement::from_string(other.get_database_backend(), "SELECT wrapped FROM tenant_key");
    let row = other.query_one_raw(select);
    let wrapped: Vec<u8> = row.await?.ok_or_else(|| anyhow::anyhow!("there is one"))?.try_get("", "wrapped")?;
    other.close().await?;
    if is_on_postgres() {
        // What its files hold is not ours to say; a dump has what there is.
        let digits = wrapped.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
        let holds = || anyhow::Ok(String::from_utf8(bed.away.database().stolen()?)?.contains(&digits));
        assert!(holds()?, "it was there");
        store.shred(&bed.acme.slug, "operator").await?;
        assert!(!holds()?, "it is gone");
        return Ok(());
    }
    let holds = |wrapped: &[u8]| {
        let stolen = bed.away.database().stolen()?;
        anyhow::Ok(stolen.windows(wrapped.len()).any(|window| window == wrapped))
    };
    assert!(holds(&wrapped)?, "it was there");
    // Somebody reads what was there before, as a backup does.
    let backup = bed.other().await?;
    let reading = sea_orm::TransactionTrait::begin(&backup).await?;
    reading.execute_unprepared("SELECT * FROM tenant_key").await?;
    store.shred(&bed.acme.slug, "operator").await?;
    assert!(!store.forget_deleted().await?, "it is said that it is still there");
    assert!(holds(&wrapped)?, "and it is");
    reading.rollback().await?;
    assert!(store.forget_deleted().await?);
    assert!(!holds(&wrapped)?, "it is overwritten");
    Ok(())
}

#[tokio::test]
async fn the_certificate_names_every_key_that_ever_wrapped_what_was_destroyed() -> anyhow::Result<()> {
    let (bed, first, _, _) = with_secrets(1).await?;
    let (second, third) = (Key::generate()?, Key::generate()?);
    for (primary, retired) in [(&second, &first), (&third, &second), (&second, &third)] {
        let writers = with(&bed, ring(primary, &[retired])?).await?;
        while writers.rewrap_some(&mut Stuck::default()).await?.left > 0 {}
    }
    let store = with(&bed, ring(&second, &[])?).await?;
    let named = store.shred(&bed.acme.slug, "operator").await?.wrapped_under;
    let mut expected = [&first, &second, &third].map(|key| key.id().to_string());
    expected.sort();
    assert_eq!(named.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    Ok(())
}

#[tokio::test]
async fn what_was_damaged_stops_no_other_from_being_turned_over() -> anyhow::Result<()> {
    let (bed, first, store, upstream) = with_secrets(3).await?;
    let globex = store.tenant(scope(&bed.globex));
    let theirs = put_upstream(&globex, "jira").await?;
    globex.put_credential(theirs.id, &"token".parse()?, &"CANARY-globex".into()).await?;

    // One secret of acme's does not open: the others are sealed anew, and the old key stays.
    let acme = store.tenant(scope(&bed.acme));
    bed.sql("UPDATE credential SET version = 77 WHERE name = 's1'", vec![]).await?;
    let new = acme.begin_rotation().await?;
    let mut stuck = Stuck::default();
    let progress = acme.reseal_some(&mut stuck).await?;
    assert_eq!((progress.done, progress.left), (2, 1));
    let names: Vec<_> = stuck.iter().map(|(what, _)| what.to_owned()).collect();
    assert_eq!(names, [format!("{}/tenant/s1", upstream.id)]);
    assert_eq!(acme.reseal_some(&mut stuck).await?.left, 1);
    assert!(acme.is_rotating().await?);
    let rows = acme.data_keys().await?;
    let old = rows.iter().find(|key| key.id != new).ok_or_else(|| anyhow::anyhow!("it is there"))?;
    assert_eq!((old.state, old.credentials), (DataKeyState::DecryptOnly, 1));

    // One data key does not unwrap: the others are wrapped anew, and so is the platform's.
    let broken = vec![vec![0_u8].into(), new.to_string().into()];
    bed.sql("UPDATE tenant_key SET wrapped = ? WHERE id = ?", broken).await?;
    let second = Key::generate()?;
    let writers = with(&bed, ring(&second, &[&first])?).await?;
    let mut stuck = Stuck::default();
    let progress = writers.rewrap_some(&mut stuck).await?;
    assert_eq!((progress.done, progress.left), (3, 1));
    assert_eq!(stuck.iter().map(|(what, _)| what.to_owned()).collect::<Vec<_>>(), [new.to_string()]);
    let alone = with(&bed, ring(&second, &[])?).await?;
    alone.platform_keys().await?;
    assert_eq!(open_all(&alone.tenant(scope(&bed.globex))).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_tenant_whose_outer_key_is_gone_costs_nobody_else_anything() -> anyhow::Result<()> {
    let (bed, _, store, _) = with_secrets(1).await?;
    let globex = store.tenant(scope(&bed.globex));
    let upstream = put_upstream(&globex, "jira").await?;
    globex.put_credential(upstream.id, &"token".parse()?, &"CANARY-globex".into()).await?;
    bed.sql(
        "UPDATE tenant_key SET kek_id = 'key_0000000000000000' WHERE tenant_id = ?",
        vec![bed.acme.id.to_string().into()],
    )
    .await?;

    let replica = with_same(&bed, &store).await?;
    replica.platform_keys().await?;
    let locked = replica.locked_tenants().await?;
    assert_eq!(locked, [(bed.acme.id, "key_0000000000000000".parse()?)]);
    assert_eq!(open_all(&replica.tenant(scope(&bed.globex))).await?, 1);
    let error = open_all(&replica.tenant(scope(&bed.acme))).await.unwrap_err();
    assert!(matches!(error, StoreError::DataKey { source: KekError::Unknown(_), .. }), "{error}");
    let certificate = replica.shred(&bed.acme.slug, "operator").await?;
    assert_eq!(certificate.wrapped_under, ["key_0000000000000000".parse()?]);
    Ok(())
}

#[tokio::test]
async fn a_turn_over_that_was_stopped_is_gone_on_with_by_another_process() -> anyhow::Result<()> {
    let (bed, first, store, _) = with_secrets(1).await?;
    let change = store.begin().await?;
    let mut tenants = vec![bed.acme.clone()];
    for n in 0..60 {
        tenants.push(change.put_tenant(&format!("t{n}").parse()?, &TenantSpec::named("T")).await?.0);
    }
    change.commit().await?;
    for tenant in &tenants[1..] {
        let rows = store.tenant(scope(tenant));
        let upstream = put_upstream(&rows, "jira").await?;
        rows.put_credential(upstream.id, &"token".parse()?, &"CANARY-t".into()).await?;
    }
    let second = Key::generate()?;
    let writers = with(&bed, ring(&second, &[&first])?).await?;
    let progress = writers.rewrap_some(&mut Stuck::default()).await?;
    assert!(progress.done > 0 && progress.left > 0, "it was stopped half way: {progress:?}");
    drop(writers);

    let again = with(&bed, ring(&second, &[&first])?).await?;
    while again.rewrap_some(&mut Stuck::default()).await?.left > 0 {}
    let alone = with(&bed, ring(&second, &[])?).await?;
    for tenant in &tenants {
        assert_eq!(open_all(&alone.tenant(scope(tenant))).await?, 1, "{}", tenant.slug);
    }
    Ok(())
}

/// A provider that can be told to be out of reach, and counts what it is asked.
#[derive(Debug)]
struct Provider {
    keys: LocalKeys,
    is_out: AtomicBool,
    unwraps: AtomicUsize,
}

impl KeyEncryption for Provider {
    fn primary(&self) -> Asking<'_, KekId> {
        self.keys.primary()
    }

    fn wrap<'a>(&'a self, place: KeyPlace, key: &'a Key) -> Asking<'a, (KekId, Vec<u8>)> {
        if self.is_out.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(KekError::Unreachable)));
        }
        self.keys.wrap(place, key)
    }

    fn unwrap<'a>(&'a self, place: KeyPlace, kek: &'a KekId, wrapped: &'a [u8]) -> Asking<'a, Key> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        if self.is_out.load(Ordering::SeqCst) {
            return Box::pin(std::future::ready(Err(KekError::Unreachable)));
        }
        self.keys.unwrap(place, kek, wrapped)
    }

    fn knows(&self, kek: &KekId) -> bool {
        self.keys.knows(kek)
    }

    fn describe(&self) -> String {
        self.keys.describe()
    }
}

#[tokio::test]
async fn an_outage_of_the_provider_leaves_known_tenants_working_and_others_closed() -> anyhow::Result<()> {
    let (bed, first, store, _) = with_secrets(1).await?;
    let globex = store.tenant(scope(&bed.globex));
    let upstream = put_upstream(&globex, "jira").await?;
    globex.put_credential(upstream.id, &"token".parse()?, &"CANARY-globex".into()).await?;

    let provider =
        Arc::new(Provider { keys: ring(&first, &[])?, is_out: AtomicBool::new(false), unwraps: AtomicUsize::new(0) });
    let replica = bed.away.with_keys(Arc::clone(&provider) as Arc<dyn KeyEncryption>).await?;
    let (acme, globex) = (replica.tenant(scope(&bed.acme)), replica.tenant(scope(&bed.globex)));
    let (ours, theirs) = (acme.sealed_credentials().await?.remove(0), globex.sealed_credentials().await?.remove(0));
    acme.open_credential(&ours).await?;
    acme.open_credential(&ours).await?;
    assert_eq!(provider.unwraps.load(Ordering::SeqCst), 1, "a key that is held is not asked for again");

    provider.is_out.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(Duration::from_mins(6)).await;
    acme.open_credential(&ours).await?;
    assert_eq!(provider.unwraps.load(Ordering::SeqCst), 2, "it is asked for again after minutes");
    let error = globex.open_credential(&theirs).await.unwrap_err();
    assert!(matches!(error, StoreError::DataKey { source: KekError::Unreachable, .. }), "{error}");

    // Not for ever: a key that nobody vouched for within the hour is not used.
    for _ in 0..7 {
        tokio::time::advance(Duration::from_mins(8)).await;
        drop(acme.open_credential(&ours).await);
    }
    assert!(acme.open_credential(&ours).await.is_err());
    provider.is_out.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(3)).await;
    acme.open_credential(&ours).await?;
    globex.open_credential(&theirs).await?;
    Ok(())
}

#[tokio::test]
async fn however_many_need_a_key_one_asks_for_it() -> anyhow::Result<()> {
    let (bed, first, _, _) = with_secrets(1).await?;
    let provider =
        Arc::new(Provider { keys: ring(&first, &[])?, is_out: AtomicBool::new(false), unwraps: AtomicUsize::new(0) });
    let replica = bed.away.with_keys(Arc::clone(&provider) as Arc<dyn KeyEncryption>).await?;
    let acme = replica.tenant(scope(&bed.acme));
    let sealed = acme.sealed_credentials().await?.remove(0);
    let opened = futures::future::join_all((0..50).map(|_| acme.open_credential(&sealed))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(provider.unwraps.load(Ordering::SeqCst), 1);
    Ok(())
}
