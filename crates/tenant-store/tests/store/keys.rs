//! A wrong key is noticed when the server starts.

use crypto::{Key, KeyRing};
use tenant_store::{Store, StoreError};

use crate::support::{Bed, put_upstream};

async fn with_keys(bed: &Bed, keys: KeyRing) -> anyhow::Result<Store> {
    Ok(Store::open(&bed.away.url(), keys, bed.away.clock.clone()).await?)
}

/// Two rings with the same new key, which cannot be cloned: the second holds the old one too.
fn new_key() -> anyhow::Result<(Key, Key)> {
    let key = Key::generate()?;
    let copy = Key::parse(&key.encode())?;
    Ok((key, copy))
}

#[tokio::test]
async fn the_right_key_passes_again_and_again() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let before = bed.revision().await?;
    for _ in 0..3 {
        bed.check_keys().await?;
    }
    assert_eq!(bed.revision().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_is_noticed_before_a_secret_is_needed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    bed.check_keys().await?;
    let wrong = KeyRing::new(Key::generate()?, Vec::new());
    let error = with_keys(&bed, wrong.clone()).await?.check_keys().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the database was sealed with {}, which is not among the configured keys ({}): add it to them, as primary or as \
             retired key, or use the database that belongs to them",
            bed.away.keys.primary(),
            wrong.primary()
        )
    );
    // The wrong key has left no trace.
    bed.check_keys().await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_key_is_noticed_though_it_was_never_checked_before() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    bed.acme().put_credential(upstream.id, &"token".parse()?, &"CANARY-key".into()).await?;
    let wrong = KeyRing::new(Key::generate()?, Vec::new());
    let error = with_keys(&bed, wrong).await?.check_keys().await.unwrap_err();
    assert!(matches!(error, StoreError::KeyMissing { needed, .. } if needed == bed.away.keys.primary()), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_key_is_replaced_by_one_that_joined_beside_it() -> anyhow::Result<()> {
    let first = Key::generate()?;
    let bed = Bed::new().await?;
    let copy = || Key::parse(&first.encode());
    let old = with_keys(&bed, KeyRing::new(copy()?, Vec::new())).await?;
    old.check_keys().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    let acme = crate::support::scope(&bed.acme);
    old.tenant(acme).put_credential(upstream.id, &"token".parse()?, &"CANARY-key".into()).await?;

    let (new, alone) = new_key()?;
    let both = with_keys(&bed, KeyRing::new(new, vec![copy()?])).await?;
    both.check_keys().await?;
    let alone = with_keys(&bed, KeyRing::new(alone, Vec::new())).await?;
    assert!(matches!(alone.check_keys().await, Err(StoreError::KeyMissing { needed, .. }) if needed == first.id()));

    // Sealed again with the new key, the old one is needed no more, and is a stranger from then on.
    both.tenant(acme).put_credential(upstream.id, &"token".parse()?, &"CANARY-key".into()).await?;
    alone.check_keys().await?;
    assert_eq!(bed.sql("DELETE FROM key_check WHERE key_id = ?", vec![first.id().to_string().into()]).await?, 0);
    assert!(matches!(old.check_keys().await, Err(StoreError::KeyMissing { needed, .. }) if needed != first.id()));
    Ok(())
}

#[tokio::test]
async fn an_altered_check_value_is_noticed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    bed.check_keys().await?;
    assert_eq!(bed.sql("UPDATE key_check SET sealed = ?", vec![vec![1_u8; 64].into()]).await?, 1);
    let error = bed.check_keys().await.unwrap_err().to_string();
    let key = bed.away.keys.primary();
    assert_eq!(
        error,
        format!("the check value of {key} does not open: the table `key_check` was altered; restore it from a backup")
    );
    Ok(())
}
