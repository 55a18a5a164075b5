//! Prompts, resources and templates: stored byte for byte, and a prompt's name stays its own.

use tenant_store::{NewOffer, OfferKind, Replaced};

use crate::support::{Bed, put_upstream};

fn offer(key: &str, exposed: Option<&str>, definition: &str) -> anyhow::Result<NewOffer> {
    Ok(NewOffer {
        key: key.parse()?,
        exposed: exposed.map(str::parse).transpose()?,
        definition: serde_json::value::RawValue::from_string(definition.to_owned())?,
    })
}

async fn keys(bed: &Bed) -> anyhow::Result<Vec<String>> {
    Ok(bed.acme().offers().await?.iter().map(|offer| offer.key.to_string()).collect())
}

#[tokio::test]
async fn a_prompts_name_stays_its_own_while_it_is_not_listed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (desk, wiki) = (put_upstream(&bed.acme(), "desk").await?, put_upstream(&bed.acme(), "wiki").await?);
    let brief = offer("brief", Some("acme__brief"), r#"{"name":"brief"}"#)?;
    let acme = bed.acme();
    assert_eq!(acme.replace_offers(&desk, OfferKind::Prompt, std::slice::from_ref(&brief)).await?, Replaced::Changed);
    assert_eq!(acme.replace_offers(&desk, OfferKind::Prompt, &[]).await?, Replaced::Changed);
    assert_eq!(acme.replace_offers(&desk, OfferKind::Prompt, &[]).await?, Replaced::Unchanged);
    assert!(keys(&bed).await?.is_empty());
    let given = acme.prompt_names().await?;
    assert_eq!(
        given.iter().map(|name| (name.upstream, name.exposed.as_str())).collect::<Vec<_>>(),
        [(desk.id, "acme__brief")]
    );
    assert!(
        acme.replace_offers(&wiki, OfferKind::Prompt, std::slice::from_ref(&brief)).await.is_err(),
        "it is not free"
    );
    let other = offer("other", Some("acme__other"), "{}")?;
    acme.replace_offers(&desk, OfferKind::Prompt, &[other, brief]).await?;
    assert_eq!(keys(&bed).await?, ["other", "brief"]);
    assert_eq!(acme.prompt_names().await?.len(), 2);
    // What has no name for clients is not remembered.
    let note = offer("note://a", None, "{}")?;
    acme.replace_offers(&desk, OfferKind::Resource, &[note]).await?;
    assert_eq!(acme.replace_offers(&desk, OfferKind::Resource, &[]).await?, Replaced::Changed);
    assert_eq!(keys(&bed).await?, ["other", "brief"]);
    Ok(())
}

#[tokio::test]
async fn another_order_of_offers_alone_is_no_news() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let desk = put_upstream(&bed.acme(), "desk").await?;
    let [a, b] = [offer("note://a", None, "{}")?, offer("note://b", None, "{}")?];
    let acme = bed.acme();
    acme.replace_offers(&desk, OfferKind::Resource, &[a.clone(), b.clone()]).await?;
    assert_eq!(acme.replace_offers(&desk, OfferKind::Resource, &[b, a]).await?, Replaced::Unchanged);
    assert_eq!(keys(&bed).await?, ["note://a", "note://b"]);
    Ok(())
}
