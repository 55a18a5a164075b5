//! The queue when it is full, and the canonical line whatever it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tenant_store::testing::ThrowAway;
use tenant_store::{AuditChain, AuditPart, AuditWriterId, TenantSpec, Timestamp};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::content::ContentRoom;
use super::event::{Administered, Event, What};
use super::heads::Heads;
use super::killed::{Killed, sign_in};
use super::line::{self, NONE_BEFORE};
use super::once::record_once;
use super::verify::Verifier;
use super::whole::{check_platform, verify_store};
use super::writer::Writer;
use super::{Audit, Full, Pressure, ROOM_TIMEOUT, Signer, Wrong};
use crate::config::{AuditConfig, OnFull};
use crate::lifecycle::Tasks;
use crate::policy::Administration;

fn done(name: &str) -> Event {
    let (operator, name) = ("somebody (uid 0)".to_owned(), name.to_owned());
    let what = Administered { operator, action: "apply", kind: "manifests", name, became: None, revision: None };
    Event {
        at: Timestamp::from_millis(1_780_000_000_000),
        chain: AuditChain::Platform,
        what: What::Administration(what),
    }
}

#[tokio::test]
async fn what_finds_no_room_is_waited_for_counted_and_then_recorded_as_lost() -> anyhow::Result<()> {
    let away = ThrowAway::new().await;
    let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
    let (queue, mut events) = mpsc::channel(2);
    let lost = Arc::new(AtomicU64::new(0));
    let audit = Audit {
        queue,
        signer: Arc::clone(&signer),
        lost: Arc::clone(&lost),
        pressure: Pressure::default(),
        on_full: OnFull::Spool,
        contents: ContentRoom::default(),
    };

    // Whoever has room keeps it, whatever comes meanwhile.
    let room = audit.room().await;
    audit.push(done("first"));
    audit.push(done("no room"));
    let began = Instant::now();
    let without = audit.room().await;
    assert!(began.elapsed() >= ROOM_TIMEOUT, "it is waited for");
    without.put(done("no room either"));
    room.put(done("second"));
    // Once there is room again, nobody waits.
    assert!(events.recv().await.is_some());
    let began = Instant::now();
    let room = audit.room().await;
    assert!(began.elapsed() < ROOM_TIMEOUT);
    room.put(done("third"));

    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    assert_eq!(seen.len(), 2);
    let mut writer = Writer::new(away.store.clone(), signer, Arc::clone(&away.clock) as _, Duration::MAX);
    writer.take_all(&mut seen, &lost).await;
    writer.add_once().await?;
    let rows = away.store.still().await?.platform_audit_rows(None).await?;
    assert!(rows[0].line.contains("second") && rows[1].line.contains("third"));
    assert!(rows[2].line.ends_with(r#""event":"lost","count":2}"#), "{}", rows[2].line);
    Ok(())
}

#[tokio::test]
async fn whoever_lists_again_and_again_leaves_half_of_the_queue_to_calls() -> anyhow::Result<()> {
    let away = ThrowAway::new().await;
    let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
    let (queue, mut events) = mpsc::channel(8);
    let audit = Audit {
        queue,
        signer,
        lost: Arc::new(AtomicU64::new(0)),
        pressure: Pressure::default(),
        on_full: OnFull::Spool,
        contents: ContentRoom::default(),
    };
    for _ in 0..20 {
        audit.push(done("a list"));
    }
    let began = Instant::now();
    audit.room().await.put(done("a call"));
    assert!(began.elapsed() < ROOM_TIMEOUT, "it has room at once");
    let lost = usize::try_from(audit.lost.load(Ordering::Relaxed))?;
    let mut seen = 0;
    while events.try_recv().is_ok() {
        seen += 1;
    }
    assert_eq!((lost + seen, seen), (21, 6));
    Ok(())
}

#[tokio::test]
async fn a_call_that_cannot_be_recorded_waits_for_room_or_is_not_made_where_the_configuration_says_so()
-> anyhow::Result<()> {
    let away = ThrowAway::new().await;
    let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
    let (queue, mut events) = mpsc::channel(1);
    let lost = Arc::new(AtomicU64::new(0));
    let refuses = Audit {
        queue,
        signer,
        lost,
        pressure: Pressure::default(),
        on_full: OnFull::Refuse,
        contents: ContentRoom::default(),
    };
    let blocks = Audit { on_full: OnFull::Block, ..refuses.clone() };
    let soon = || Instant::now() + Duration::from_millis(20);
    let room = refuses.room_until(soon()).await.map_err(|Full| anyhow::anyhow!("there is room"))?;
    assert!(matches!(refuses.room_until(Instant::now() + ROOM_TIMEOUT * 100).await, Err(Full)), "at once");
    assert!(matches!(blocks.room_until(soon()).await, Err(Full)), "when its time is over");
    room.put(done("it has room"));
    let waits = blocks.room_until(Instant::now() + ROOM_TIMEOUT * 100);
    let (room, event) = tokio::join!(waits, events.recv());
    assert!(room.is_ok() && event.is_some());
    Ok(())
}

#[tokio::test]
async fn a_call_that_outlives_its_server_is_recorded_as_lost() -> anyhow::Result<()> {
    let away = ThrowAway::new().await;
    let keys = away.store.platform_keys().await?;
    let tasks = Tasks::default();
    let clock = || Arc::clone(&away.clock) as _;
    let audit = Audit::start(&away.store, &keys, &AuditConfig::default(), (clock(), &tasks)).await?;
    let (ended, outlives) = (audit.room().await, audit.room().await);
    ended.put(done("it ended"));
    tasks.stop().await;
    outlives.put(done("too late"));
    let rows = away.store.still().await?.platform_audit_rows(None).await?;
    let lines: Vec<&str> = rows.iter().map(|row| row.line.as_str()).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[3].ends_with(r#""event":"ended"}"#), "{lines:?}");
    assert!(lines[1].contains("it ended") && lines[2].ends_with(r#""event":"lost","count":1}"#), "{lines:?}");
    let signer = Signer::of(&away.store, &keys).await?;
    let checked = check_platform(&away.store.still().await?, (&signer, away.store.now())).await?;
    assert_eq!((checked.wrong.len(), checked.found.unsigned, checked.found.lost), (0, 0, 1));
    Ok(())
}

#[tokio::test]
async fn what_a_killed_writer_left_is_signed_by_another_as_it_was_found() -> anyhow::Result<()> {
    let away = ThrowAway::new().await;
    let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
    let mut killed = Writer::new(away.store.clone(), Arc::clone(&signer), Arc::clone(&away.clock) as _, Duration::MAX);
    for name in ["signed at once", "left", "left, too"] {
        killed.take(&done(name));
    }
    killed.add_once().await?;
    let long_after = Timestamp::from_millis(1_780_000_000_000).plus(Duration::from_hours(24));
    let check = async || check_platform(&away.store.still().await?, (&signer, long_after)).await;
    let found = check().await?;
    assert!(matches!(found.wrong[..], [Wrong::Unsigned { seq: 2, .. }]), "{:?}", found.wrong);

    // What one left that was killed too, however much it is; and one that has ended, behind which somebody added something.
    let mut other = Writer::new(away.store.clone(), Arc::clone(&signer), Arc::clone(&away.clock) as _, Duration::MAX);
    for number in 0..300 {
        other.take(&done(&number.to_string()));
    }
    other.add_once().await?;
    let silent = async |before| Killed::before((&away.store, &signer), before).await;
    let sign =
        async |before| sign_in(&away.store, &signer, AuditChain::Platform, (&silent(before).await?, long_after)).await;
    assert_eq!(sign(Timestamp::from_millis(1_780_000_000_000)).await?, [], "it may be alive");
    assert_eq!(sign(long_after).await?.len(), 2);
    assert_eq!(sign(long_after).await?, [], "it is signed");
    let found = check().await?;
    assert_eq!((found.wrong.len(), found.found.vouched, found.found.unsigned), (0, 301, 0));

    // One that has ended left nothing: what is behind its end is signed by nobody, and would be found if it were.
    let mut ended = Writer::new(away.store.clone(), Arc::clone(&signer), Arc::clone(&away.clock) as _, Duration::MAX);
    ended.take(&done("the first"));
    ended.sign_last();
    ended.add_once().await?;
    ended.take(&done("forged"));
    ended.add_once().await?;
    assert_eq!(sign(long_after).await?, []);
    let forged = away.store.audit_rows_left(AuditChain::Platform, &[ended.id]).await?;
    let checkpoints = forged.iter().map(|row| signer.vouch(AuditChain::Platform, row, long_after)).collect();
    let part = AuditPart { chain: AuditChain::Platform, rows: Vec::new(), checkpoints };
    away.store.append_audit(&[part]).await?;
    assert!(matches!(check().await?.wrong[..], [Wrong::Added { seq: 3, .. }]), "{:?}", check().await?.wrong);
    Ok(())
}

/// A writer that loses its database and ends without it is taken for killed; then its own word comes after all.
#[tokio::test]
async fn whose_end_comes_late_is_sound_and_what_is_forged_behind_it_is_found() -> anyhow::Result<()> {
    for is_forged in [false, true] {
        let away = ThrowAway::new().await;
        let change = away.store.begin().await?;
        let (tenant, _) = change.put_tenant(&"acme".parse()?, &TenantSpec::named("Acme")).await?;
        change.commit().await?;
        let signer = Arc::new(Signer::of(&away.store, &away.store.platform_keys().await?).await?);
        let new = || Writer::new(away.store.clone(), Arc::clone(&signer), Arc::clone(&away.clock) as _, Duration::MAX);
        let acme = AuditChain::Tenant(Administration::of_test().scope(tenant.id));
        let mut late = new();
        late.begin().await?;
        late.take(&Event { chain: acme, ..done("first") });
        late.take(&Event { chain: acme, ..done("second") });
        late.add_once().await?;
        let long_after = Timestamp::from_millis(1_780_000_000_000).plus(Duration::from_hours(24));
        let mut other = new();
        other.begin().await?;
        if is_forged {
            late.sign_last();
            late.add_once().await?;
            let rows = away.store.audit_rows_of((acme, late.id), 1).await?;
            let prev = line::hash(&rows[0].line);
            let rows = vec![line::row(&Event { chain: acme, ..done("forged") }, late.id, (3, &prev))?];
            away.store.append_audit(&[AuditPart { chain: acme, rows, checkpoints: Vec::new() }]).await?;
        }
        let killed = Killed { writers: vec![late.id], before: long_after };
        let heads = sign_in(&away.store, &signer, acme, (&killed, long_after)).await?;
        assert_eq!(heads.len(), 1);
        other.take(&Event { at: long_after, chain: AuditChain::Platform, what: What::Checkpoint { heads } });
        other.add_once().await?;
        if !is_forged {
            late.sign_last();
            late.add_once().await?;
        }
        other.sign_last();
        other.add_once().await?;
        let report = verify_store(&away.store, &signer, Administration::of_test()).await?;
        let wrong: Vec<_> = report.iter().flat_map(|checked| &checked.wrong).collect();
        let is_found = matches!(wrong[..], [Wrong::Added { seq: 3, .. }]);
        assert!(if is_forged { is_found } else { wrong.is_empty() }, "{is_forged}: {wrong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn however_much_an_operator_did_at_once_all_of_it_is_recorded() -> anyhow::Result<()> {
    let away = ThrowAway::new().await;
    let name = "x".repeat(10_000);
    let events = (0..600).map(|_| done(&name)).collect();
    record_once(&away.store, Arc::clone(&away.clock) as _, events).await?;
    let signer = Signer::of(&away.store, &away.store.platform_keys().await?).await?;
    let checked = check_platform(&away.store.still().await?, (&signer, away.store.now())).await?;
    assert_eq!((checked.wrong.len(), checked.found.unsigned, checked.found.events), (0, 0, 601));
    Ok(())
}

#[test]
fn the_first_line_is_this_one() -> anyhow::Result<()> {
    let writer: AuditWriterId = "wri_0198a2f4c1a07d3e8f5b6c7d8e9f0a1b".parse()?;
    let row = line::row(&done("team \"a\""), writer, (1, NONE_BEFORE))?;
    insta::assert_snapshot!(row.line, @r#"{"v":1,"chain":"platform","writer":"wri_0198a2f4c1a07d3e8f5b6c7d8e9f0a1b","seq":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","at":"2026-05-28T20:26:40.000Z","event":"administration","operator":"somebody (uid 0)","action":"apply","kind":"manifests","name":"team \"a\""}"#);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_line_is_one_line_that_reads_back_and_each_byte_of_it_counts(
        names in prop::collection::vec(any::<String>(), 2..5),
        place in any::<prop::sample::Index>(),
        other in any::<u8>(),
    ) {
        let writer = AuditWriterId::new(Timestamp::from_millis(1));
        let (mut prev, mut lines) = (NONE_BEFORE.to_owned(), Vec::new());
        for (seq, name) in (1..).zip(&names) {
            let row = line::row(&done(name), writer, (seq, &prev)).unwrap();
            prop_assert!(!row.line.chars().any(|char| char.is_ascii_control()), "{:?}", row.line);
            let read: Value = serde_json::from_str(&row.line).unwrap();
            prop_assert_eq!(read["name"].as_str(), Some(name.as_str()));
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), row.line.clone());
            prev = line::hash(&row.line);
            lines.push(row);
        }
        let verify = |change: Option<(usize, u8)>| {
            let mut verifier = Verifier::new("platform", &[], &Heads::default(), None);
            lines.iter().enumerate().try_for_each(|(number, row)| {
                let mut row = row.clone();
                if let (0, Some((place, other))) = (number, change) {
                    let mut bytes = row.line.into_bytes();
                    bytes[place] = other;
                    let Ok(text) = String::from_utf8(bytes) else { return Err(Wrong::NotALine) };
                    row.line = text;
                }
                verifier.row(&row)
            })
        };
        prop_assert_eq!(verify(None), Ok(()));
        let place = place.index(lines[0].line.len());
        if lines[0].line.as_bytes()[place] != other {
            prop_assert!(verify(Some((place, other))).is_err(), "byte {} to {}", place, other);
        }
    }
}
