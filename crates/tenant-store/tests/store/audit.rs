//! The audit record as it is kept: chains apart, rows that stay.

use tenant_store::testing::is_on_postgres;
use tenant_store::{
    AuditChain, AuditCheckpoint, AuditPart, AuditPruned, AuditRow, AuditWriterId, Clock as _, SystemClock, Timestamp,
};

use crate::support::{Bed, scope};

fn row(writer: AuditWriterId, seq: u64, line: &str) -> AuditRow {
    AuditRow { writer, seq, at: Timestamp::from_millis(1_000 + i64::try_from(seq).unwrap_or(0)), line: line.to_owned() }
}

fn checkpoint(writer: AuditWriterId, seq: u64) -> AuditCheckpoint {
    let (hash, key_id, signature) = ("00".repeat(32), "akey_1".to_owned(), vec![1, 2, 3]);
    AuditCheckpoint { writer, seq, at: Timestamp::from_millis(5_000), hash, key_id, signature }
}

fn part(chain: AuditChain, rows: &[AuditRow], checkpoints: &[AuditCheckpoint]) -> AuditPart {
    AuditPart { chain, rows: rows.to_vec(), checkpoints: checkpoints.to_vec() }
}

/// A bed with a line of each chain, of one writer.
async fn recorded() -> anyhow::Result<(Bed, AuditWriterId)> {
    let bed = Bed::new().await?;
    let writer = AuditWriterId::new(bed.now());
    let (acme, globex) = (AuditChain::Tenant(scope(&bed.acme)), AuditChain::Tenant(scope(&bed.globex)));
    let parts = [
        part(AuditChain::Platform, &[row(writer, 1, "of the platform")], &[checkpoint(writer, 1)]),
        part(acme, &[row(writer, 1, "of acme"), row(writer, 2, "more of acme")], &[checkpoint(writer, 2)]),
        part(globex, &[row(writer, 1, "of globex")], &[]),
    ];
    bed.append_audit(&parts).await?;
    Ok((bed, writer))
}

fn lines(rows: &[AuditRow]) -> Vec<&str> {
    rows.iter().map(|row| row.line.as_str()).collect()
}

#[tokio::test]
async fn each_chain_is_read_through_its_own_door_and_no_change_of_configuration() -> anyhow::Result<()> {
    let before = Bed::new().await?.revision().await?;
    let (bed, writer) = recorded().await?;
    assert_eq!(lines(&bed.acme().audit_rows(None).await?), ["of acme", "more of acme"]);
    assert_eq!(lines(&bed.acme().audit_rows(Some((writer, 1))).await?), ["more of acme"]);
    assert_eq!(lines(&bed.globex().audit_rows(None).await?), ["of globex"]);
    assert_eq!(bed.acme().audit_checkpoints(None).await?, [checkpoint(writer, 2)]);
    assert!(bed.globex().audit_checkpoints(None).await?.is_empty());
    let still = bed.still().await?;
    assert_eq!(lines(&still.platform_audit_rows(None).await?), ["of the platform"]);
    assert_eq!(still.platform_audit_checkpoints(None).await?, [checkpoint(writer, 1)]);
    assert_eq!(lines(&still.tenant(scope(&bed.globex)).audit_rows(None).await?), ["of globex"]);
    let newest = bed.acme().audit_rows_since(Timestamp::from_millis(0), 0).await?;
    assert_eq!(lines(&newest), ["more of acme", "of acme"]);
    assert_eq!(lines(&bed.acme().audit_rows_since(Timestamp::from_millis(1_002), 0).await?), ["more of acme"]);
    assert_eq!(lines(&bed.acme().audit_rows_since(Timestamp::from_millis(0), 1).await?), ["of acme"]);
    assert_eq!(bed.platform_audit_heads((5, 1_000)).await?, [checkpoint(writer, 1)]);
    assert_eq!(bed.revision().await?, before);
    Ok(())
}

#[tokio::test]
async fn whoever_signs_much_hides_no_other_writer() -> anyhow::Result<()> {
    let (bed, writer) = recorded().await?;
    let busy = AuditWriterId::new(bed.now());
    let later = |seq| AuditCheckpoint { at: Timestamp::from_millis(6_000), ..checkpoint(busy, seq) };
    let signed: Vec<AuditCheckpoint> = (1..=1_200).map(later).collect();
    bed.append_audit(&[part(AuditChain::Platform, &[], &signed)]).await?;
    assert_eq!(bed.platform_audit_heads((5, 2_000)).await?, [later(1_200), checkpoint(writer, 1)]);
    assert_eq!(bed.platform_audit_heads((1, 2_000)).await?, [later(1_200)]);
    Ok(())
}

#[tokio::test]
async fn what_is_added_twice_is_there_once_and_as_it_was_first() -> anyhow::Result<()> {
    let (bed, writer) = recorded().await?;
    let acme = AuditChain::Tenant(scope(&bed.acme));
    let again = part(acme, &[row(writer, 2, "something else"), row(writer, 3, "the last")], &[checkpoint(writer, 2)]);
    bed.append_audit(&[again]).await?;
    assert_eq!(lines(&bed.acme().audit_rows(None).await?), ["of acme", "more of acme", "the last"]);
    Ok(())
}

#[tokio::test]
async fn the_database_lets_nobody_change_or_delete_what_is_recorded() -> anyhow::Result<()> {
    let (bed, _) = recorded().await?;
    let database = bed.away.database();
    for table in ["audit_event", "audit_checkpoint"] {
        // As somebody to whom everything is open, but for the triggers.
        for sql in [format!("UPDATE {table} SET at_ms = 0"), format!("DELETE FROM {table}")] {
            let error = database.alter(&sql).await.unwrap_err().to_string();
            assert!(error.contains("the audit record is added to and never changed"), "{sql}: {error}");
        }
        if is_on_postgres() {
            let error = database.alter(&format!("TRUNCATE {table}")).await.unwrap_err().to_string();
            assert!(error.contains("never changed"), "{error}");
        }
    }
    // What replaces a row deletes it. Its line stays as it was, be that refused or passed over.
    let replacing = if is_on_postgres() {
        "INSERT INTO audit_event SELECT chain, writer, seq, at_ms, 'x' FROM audit_event \
         ON CONFLICT (chain, writer, seq) DO UPDATE SET line = 'x'"
    } else {
        "INSERT OR REPLACE INTO audit_event SELECT chain, writer, seq, at_ms, 'x' FROM audit_event"
    };
    assert_eq!(database.alter(replacing).await.is_err(), is_on_postgres());
    assert_eq!(lines(&bed.acme().audit_rows(None).await?), ["of acme", "more of acme"]);
    Ok(())
}

#[tokio::test]
async fn what_is_over_is_deleted_up_to_where_that_is_written_down_and_never_comes_back() -> anyhow::Result<()> {
    let (bed, writer) = recorded().await?;
    let acme = AuditChain::Tenant(scope(&bed.acme));
    let up_to = |seq| AuditPruned(checkpoint(writer, seq));
    bed.prune_audit(acme, &up_to(1)).await?;
    assert_eq!(lines(&bed.acme().audit_rows(None).await?), ["more of acme"]);
    assert_eq!(bed.acme().audit_checkpoints(None).await?, [checkpoint(writer, 2)]);
    assert_eq!(bed.acme().audit_pruned(None).await?, [up_to(1)]);
    // A server that does not know whether it was added adds it again.
    let again = part(acme, &[row(writer, 1, "of acme"), row(writer, 3, "the last")], &[checkpoint(writer, 1)]);
    bed.append_audit(&[again]).await?;
    assert_eq!(lines(&bed.acme().audit_rows(None).await?), ["more of acme", "the last"]);
    assert_eq!(bed.acme().audit_checkpoints(None).await?, [checkpoint(writer, 2)]);
    bed.prune_audit(acme, &up_to(2)).await?;
    // It never goes back.
    bed.prune_audit(acme, &up_to(1)).await?;
    assert_eq!(lines(&bed.acme().audit_rows(None).await?), ["the last"]);
    assert_eq!(bed.acme().audit_pruned(None).await?, [up_to(2)]);
    assert_eq!(bed.acme().audit_pruned(Some(writer)).await?, []);
    // Neighbours, and what is not 30 days old, stay.
    assert_eq!(lines(&bed.globex().audit_rows(None).await?), ["of globex"]);
    assert_eq!(lines(&bed.still().await?.platform_audit_rows(None).await?), ["of the platform"]);
    let young = AuditRow { at: SystemClock.now(), ..row(writer, 2, "young") };
    bed.append_audit(&[part(AuditChain::Platform, &[young], &[])]).await?;
    assert!(bed.prune_audit(AuditChain::Platform, &up_to(2)).await.is_err());
    assert_eq!(bed.still().await?.platform_audit_rows(None).await?.len(), 2, "all of it or nothing");
    assert_eq!(bed.still().await?.platform_audit_pruned(None).await?, []);
    // Whoever says beforehand that new ones were deleted makes none pass unseen.
    let forged = format!(
        "INSERT INTO audit_pruned SELECT chain, writer, 9000, at_ms, hash, key_id, signature FROM audit_checkpoint \
         WHERE chain = '{}' AND writer = '{writer}'",
        AuditChain::Platform
    );
    bed.away.database().alter(&forged).await?;
    let new = AuditRow { at: SystemClock.now(), ..row(writer, 3, "new") };
    assert!(bed.append_audit(&[part(AuditChain::Platform, &[new], &[])]).await.is_err());
    for sql in ["DELETE FROM audit_pruned", "UPDATE audit_pruned SET hash = ''"] {
        let error = bed.away.database().alter(sql).await.unwrap_err().to_string();
        assert!(error.contains("the audit record is added to and never changed"), "{sql}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_has_signed_and_is_gone_is_not_replaced_by_itself() -> anyhow::Result<()> {
    let (bed, _) = recorded().await?;
    let platform = bed.platform_keys().await?;
    let gone = bed.audit_seeds(&platform).await.unwrap_err().to_string();
    assert!(gone.contains("mcp-mux audit key --new"), "{gone}");
    assert!(bed.renew_audit_key(&platform).await?);
    assert!(!bed.renew_audit_key(&platform).await?, "one that is there stays");
    assert_eq!(bed.audit_seeds(&platform).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_signs_is_made_once_and_lies_sealed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let platform = bed.platform_keys().await?;
    let seeds = bed.audit_seeds(&platform).await?;
    let again = bed.away.again().await?.audit_seeds(&platform).await?;
    assert_eq!((seeds.len(), again.len()), (1, 1));
    assert_eq!(seeds[0].bytes(), again[0].bytes());
    let stolen = bed.away.database().stolen()?;
    assert!(!stolen.windows(32).any(|bytes| bytes == seeds[0].bytes()));
    let digits: String = seeds[0].bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert!(!String::from_utf8_lossy(&stolen).contains(&digits));
    // A row that was put there from outside opens nothing.
    bed.sql("UPDATE audit_key SET id = 'key_0000000000000000'", Vec::new()).await?;
    assert!(bed.audit_seeds(&platform).await.is_err());
    Ok(())
}
