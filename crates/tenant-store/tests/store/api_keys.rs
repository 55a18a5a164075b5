//! API keys.

use sea_orm::Value;
use secrecy::SecretString;
use tenant_store::{ApiKey, ApiKeyDigest, NewApiKey, TenantId, Timestamp};

use crate::support::Bed;

fn new_key(secret: &str) -> anyhow::Result<NewApiKey> {
    Ok(NewApiKey {
        name: "nightly".parse()?,
        issuer: "corp".parse()?,
        subject: "robot".parse()?,
        digest: ApiKeyDigest::of(&SecretString::from(secret)),
        tenants: None,
        expires_at: None,
    })
}

/// All keys, each of which parses.
async fn keys(bed: &Bed) -> anyhow::Result<Vec<ApiKey>> {
    Ok(bed.api_keys().await?.into_iter().collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn a_key_is_stored_listed_and_taken_back_once() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let before = bed.revision().await?;
    let expires_at = Some(Timestamp::from_millis(5_000));
    let narrow = NewApiKey { tenants: Some(vec![bed.acme.id]), expires_at, ..new_key("one")? };
    let one = bed.add_api_key(&narrow).await?;
    let two = bed.add_api_key(&new_key("two")?).await?;
    let all = keys(&bed).await?;
    assert!(all.len() == 2 && all.contains(&one) && all.contains(&two));
    assert_eq!((one.tenants.as_deref(), one.expires_at), (Some([bed.acme.id].as_slice()), expires_at));
    assert!(one.is_good(Timestamp::from_millis(4_999)) && !one.is_good(Timestamp::from_millis(5_000)));
    let added = bed.revision().await?;
    assert!(added > before, "replicas hear of it");

    assert!(bed.revoke_api_key(one.id).await?);
    let revoked = bed.revision().await?;
    assert!(revoked > added, "replicas hear of it");
    assert!(!bed.revoke_api_key(one.id).await?, "once is enough");
    assert_eq!(bed.revision().await?, revoked);
    let good = keys(&bed).await?.into_iter().filter(|key| key.is_good(Timestamp::from_millis(0)));
    assert_eq!(good.map(|key| key.id).collect::<Vec<_>>(), [two.id]);
    Ok(())
}

#[tokio::test]
async fn a_key_for_a_tenant_that_does_not_exist_is_not_stored() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let nobody = TenantId::new(Timestamp::from_millis(1));
    let new = NewApiKey { tenants: Some(vec![bed.acme.id, nobody]), ..new_key("one")? };
    let error = bed.add_api_key(&new).await.unwrap_err().to_string();
    assert_eq!(error, format!("there is no tenant `{nobody}`"));
    assert_eq!(keys(&bed).await?, []);
    Ok(())
}

#[tokio::test]
async fn no_two_keys_are_the_same() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    bed.add_api_key(&new_key("one")?).await?;
    assert!(bed.add_api_key(&new_key("one")?).await.is_err());
    assert_eq!(keys(&bed).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_key_that_was_altered_from_outside_is_noticed_and_costs_only_itself() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let one = bed.add_api_key(&new_key("one")?).await?;
    let two = bed.add_api_key(&new_key("two")?).await?;
    for (column, value) in [("digest", Value::from(vec![0_u8])), ("tenants", "all".into()), ("subject", "".into())] {
        let sql = format!("UPDATE api_key SET {column} = ? WHERE id = ?");
        bed.sql(&sql, vec![value, one.id.to_string().into()]).await?;
        let (good, bad): (Vec<_>, Vec<_>) = bed.api_keys().await?.into_iter().partition(Result::is_ok);
        assert_eq!(good.into_iter().flatten().collect::<Vec<_>>(), std::slice::from_ref(&two), "{column}");
        assert!(bad[0].as_ref().unwrap_err().to_string().contains("api_key"), "{column}");
    }
    Ok(())
}
