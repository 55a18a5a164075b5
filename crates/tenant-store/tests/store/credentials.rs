//! Credentials: sealed, bound to their place, and never in the clear in any file.

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{
    AuthorizationServer, ClientProof, CredentialKind, CredentialOwner, CredentialSlot, KekError, SealedCredential,
    StoreError, TenantStore, TokenRequest, UpstreamAuth, UpstreamProtocol, UpstreamSpec,
};

use crate::support::{Bed, put_upstream, scope};

async fn opened(tenant: &TenantStore) -> anyhow::Result<Vec<String>> {
    let mut opened = Vec::new();
    for sealed in tenant.sealed_credentials().await? {
        opened.push(tenant.open_credential(&sealed).await?.expose_secret().to_owned());
    }
    Ok(opened)
}

#[tokio::test]
async fn a_secret_opens_as_what_was_stored() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    let version = acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-ü\n".into()).await?;

    let sealed = acme.sealed_credentials().await?.remove(0);
    assert_eq!((sealed.tenant(), sealed.upstream(), sealed.version()), (bed.acme.id, upstream.id, version));
    assert_eq!((sealed.name().as_str(), sealed.destination()), ("token", "https://mcp.acme.example"));
    assert!(sealed.is_for(&upstream));
    assert_eq!(opened(&acme).await?, ["CANARY-ü\n"]);
    Ok(())
}

#[tokio::test]
async fn a_new_secret_replaces_the_old_and_no_version_comes_twice() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    let name = "token".parse()?;
    let before = bed.revision().await?;
    assert_eq!(acme.put_credential(upstream.id, &name, &"CANARY-one".into()).await?, 1);
    assert_eq!(acme.put_credential(upstream.id, &name, &"CANARY-two".into()).await?, 2);
    assert!(bed.revision().await? > before);
    assert_eq!(opened(&acme).await?, ["CANARY-two"]);

    assert!(acme.remove_credential(upstream.id, &name).await?);
    assert!(!acme.remove_credential(upstream.id, &name).await?);
    assert_eq!(acme.put_credential(upstream.id, &name, &"CANARY-three".into()).await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_secret_has_a_length() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    for value in [String::new(), "x".repeat(16 * 1024 + 1)] {
        let error = bed.acme().put_credential(upstream.id, &"token".parse()?, &value.into()).await.unwrap_err();
        assert_eq!(error.to_string(), "a secret must be 1 to 16384 bytes long");
    }
    Ok(())
}

#[tokio::test]
async fn a_changed_origin_drops_the_credentials() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    for (number, url) in
        ["http://mcp.acme.example/mcp", "https://mcp.acme.example:8443/mcp", "https://evil.example/mcp"]
            .into_iter()
            .enumerate()
    {
        let upstream = put_upstream(&acme, &format!("u{number}")).await?;
        acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-moved".into()).await?;
        acme.put_upstream(&upstream.slug, &UpstreamSpec { url: url.parse()?, ..upstream.spec }).await?;
        assert!(acme.sealed_credentials().await?.is_empty(), "{url}");
    }
    Ok(())
}

#[tokio::test]
async fn the_same_origin_keeps_the_credentials() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-kept".into()).await?;
    let url = "https://MCP.acme.example:443/other?x=1".parse()?;
    acme.put_upstream(&upstream.slug, &UpstreamSpec { url, auth: UpstreamAuth::None, ..upstream.spec }).await?;
    assert_eq!(opened(&acme).await?, ["CANARY-kept"]);
    Ok(())
}

#[tokio::test]
async fn what_an_upstream_speaks_and_where_its_document_is_keep_the_credentials_of_its_origin() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    acme.put_credential(upstream.id, &"token".parse()?, &"CANARY-kept".into()).await?;
    for document in ["https://mcp.acme.example/openapi.json", "https://evil.example/openapi.json"] {
        let protocol = UpstreamProtocol::OpenApi { document: document.parse()? };
        acme.put_upstream(&upstream.slug, &UpstreamSpec { protocol, ..upstream.spec.clone() }).await?;
        assert_eq!(opened(&acme).await?, ["CANARY-kept"], "{document}");
    }
    let protocol = UpstreamProtocol::OpenApi { document: "https://mcp.acme.example/openapi.json".parse()? };
    let url = "https://evil.example".parse()?;
    acme.put_upstream(&upstream.slug, &UpstreamSpec { protocol, url, ..upstream.spec }).await?;
    assert!(acme.sealed_credentials().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_secret_is_not_for_an_address_that_its_upstream_had_before() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let before = put_upstream(&acme, "jira").await?;
    let url = "https://new.example/mcp".parse()?;
    let (after, _) = acme.put_upstream(&before.slug, &UpstreamSpec { url, ..before.spec.clone() }).await?;
    acme.put_credential(after.id, &"token".parse()?, &"CANARY-new".into()).await?;
    let sealed = acme.sealed_credentials().await?.remove(0);
    assert!(sealed.is_for(&after) && !sealed.is_for(&before));
    assert!(!sealed.is_for(&put_upstream(&bed.globex(), "jira").await?));
    Ok(())
}

/// Alters the one credential of `acme` in a new store with `sql` and `values`, which are made from the ids of the two
/// tenants' upstreams, and answers why what is found then does not open.
async fn after(sql: &str, values: impl Fn(&Bed, [String; 2]) -> Vec<sea_orm::Value>) -> anyhow::Result<String> {
    let bed = Bed::new().await?;
    let upstreams = [put_upstream(&bed.acme(), "jira").await?, put_upstream(&bed.globex(), "jira").await?];
    bed.acme().put_credential(upstreams[0].id, &"token".parse()?, &"CANARY-moved".into()).await?;
    let altered = bed.sql(sql, values(&bed, upstreams.map(|upstream| upstream.id.to_string()))).await?;
    anyhow::ensure!(altered == 1, "{altered} rows were altered");

    for tenant in [bed.acme(), bed.globex()] {
        if let Some(sealed) = tenant.sealed_credentials().await?.pop() {
            return Ok(match tenant.open_credential(&sealed).await {
                Ok(_) => "it opened".to_owned(),
                Err(error) => error.to_string().replace(&sealed.upstream().to_string(), "UPSTREAM"),
            });
        }
    }
    Ok("it is gone".to_owned())
}

#[tokio::test]
async fn a_secret_that_was_moved_does_not_open() -> anyhow::Result<()> {
    let refused = "the secret `token` of upstream `UPSTREAM` does not open: set it again";
    let move_tenant = "UPDATE credential SET tenant_id = ?, upstream_id = ?";
    let moved = after(move_tenant, |bed, [_, theirs]| vec![bed.globex.id.to_string().into(), theirs.into()]).await?;
    assert_eq!(moved, "it is gone", "the other tenant has no such data key");

    let moved = after("UPDATE credential SET owner = 'principal:corp/mallory'", |_, _| vec![]).await?;
    assert_eq!(moved, "it is gone", "the tenant's own credentials are other ones");

    let moved = after("UPDATE credential SET kind = 'tokens'", |_, _| vec![]).await?;
    assert_eq!(moved, "it is gone", "it is no secret of an operator's any more");

    let moved = after("UPDATE credential SET version = version + 1", |_, _| vec![]).await?;
    assert_eq!(moved, refused);

    let moved = after("UPDATE credential SET name = ?", |_, _| vec!["other".into()]).await?;
    assert_eq!(moved, refused.replace("token", "other"));

    let moved = after("UPDATE upstream SET url = ? WHERE id = ?", |_, [ours, _]| {
        vec!["https://evil.example/mcp".into(), ours.into()]
    });
    assert_eq!(moved.await?, refused);

    let moved = after("UPDATE credential SET sealed = ?", |_, _| vec![vec![1_u8; 64].into()]).await?;
    assert_eq!(moved, refused);
    Ok(())
}

#[tokio::test]
async fn a_secret_that_was_made_another_kind_opens_as_neither() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let (upstream, name) = (put_upstream(&acme, "jira").await?.id, "token".parse()?);
    acme.put_credential(upstream, &name, &"CANARY-kind".into()).await?;
    bed.sql("UPDATE credential SET kind = 'tokens'", vec![]).await?;
    let slot = |kind| CredentialSlot { upstream, owner: &CredentialOwner::Tenant, name: &name, kind };
    assert!(acme.find_credential(slot(CredentialKind::Secret)).await?.is_none());
    let sealed = acme.find_credential(slot(CredentialKind::Tokens)).await?.context("a row")?;
    let error = acme.open_credential(&sealed).await.unwrap_err();
    assert!(matches!(error, StoreError::Unopened { .. }), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_secret_does_not_open_for_another_tenant_though_all_of_its_rows_were_moved_with_it() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    bed.acme().put_credential(upstream.id, &"token".parse()?, &"CANARY-moved".into()).await?;
    for table in ["upstream", "tenant_key", "credential"] {
        let sql = format!("UPDATE {table} SET tenant_id = ?");
        assert_eq!(bed.sql(&sql, vec![bed.globex.id.to_string().into()]).await?, 1);
    }
    let sealed = bed.globex().sealed_credentials().await?.remove(0);
    assert_eq!((sealed.tenant(), sealed.upstream()), (bed.globex.id, upstream.id));
    // The data key is bound to its tenant too, and so does not even unwrap. A process that holds it still cannot open the secret.
    let elsewhere = bed.away.again().await?;
    let error = elsewhere.tenant(scope(&bed.globex)).open_credential(&sealed).await.unwrap_err();
    assert!(matches!(error, StoreError::DataKey { source: KekError::Refused, .. }), "{error}");
    assert!(bed.globex().open_credential(&sealed).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_secret_that_was_meant_for_another_address_is_not_stored() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let seen = put_upstream(&acme, "jira").await?;
    acme.put_credential_for(&seen, &"token".parse()?, &"CANARY-right".into()).await?;
    let elsewhere = UpstreamSpec { url: "https://evil.example/mcp".parse()?, ..seen.spec.clone() };
    acme.put_upstream(&seen.slug, &elsewhere).await?;
    let error = acme.put_credential_for(&seen, &"token".parse()?, &"CANARY-late".into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Moved), "{error}");
    assert!(acme.sealed_credentials().await?.iter().all(|sealed| sealed.version() == 1));
    Ok(())
}

#[tokio::test]
async fn a_secret_does_not_open_under_another_data_key() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (acme, globex) = (bed.acme(), bed.globex());
    let (ours, theirs) = (put_upstream(&acme, "jira").await?, put_upstream(&globex, "jira").await?);
    acme.put_credential(ours.id, &"token".parse()?, &"CANARY-ours".into()).await?;
    globex.put_credential(theirs.id, &"token".parse()?, &"CANARY-theirs".into()).await?;
    let key = globex.data_keys().await?.remove(0).id.to_string();
    // Somebody gives the row another key's id, with that key's row copied beside it.
    let copy = "INSERT INTO tenant_key SELECT ?, id, kek_id, wrapped, 'decrypt-only', created_ms, seals, wrapped_before FROM tenant_key WHERE id = ?";
    assert_eq!(bed.sql(copy, vec![bed.acme.id.to_string().into(), key.clone().into()]).await?, 1);
    let named = "UPDATE credential SET key_id = ? WHERE tenant_id = ?";
    assert_eq!(bed.sql(named, vec![key.into(), bed.acme.id.to_string().into()]).await?, 1);
    let sealed = acme.sealed_credentials().await?.remove(0);
    assert!(acme.open_credential(&sealed).await.is_err());
    Ok(())
}

#[tokio::test]
async fn what_a_principal_owns_is_nobody_elses() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    let name = "account".parse()?;
    let owner =
        |subject: &str| anyhow::Ok(CredentialOwner::Principal { issuer: "corp".parse()?, subject: subject.parse()? });
    let (alice, bob) = (owner("alice")?, owner("bob")?);
    let slot = |owner| CredentialSlot { upstream: upstream.id, owner, name: &name, kind: CredentialKind::Tokens };
    let before = bed.revision().await?;
    acme.put_credential_in(slot(&alice), &"CANARY-alice".into()).await?;
    acme.put_credential_in(slot(&bob), &"CANARY-bob".into()).await?;
    let made_key = bed.revision().await?;
    acme.put_credential_in(slot(&bob), &"CANARY-bob-2".into()).await?;
    assert_eq!(bed.revision().await?, made_key, "replicas need not hear of it");
    assert!(made_key > before, "but of the tenant's first data key");
    assert!(acme.sealed_credentials().await?.is_empty(), "the tenant's own are other ones");

    for (owner, secret) in [(&alice, "CANARY-alice"), (&bob, "CANARY-bob-2")] {
        let sealed = acme.find_credential(slot(owner)).await?.context("it was stored")?;
        assert_eq!(acme.open_credential(&sealed).await?.expose_secret(), secret);
    }
    assert!(acme.find_credential(CredentialSlot { kind: CredentialKind::Secret, ..slot(&bob) }).await?.is_none());
    // Swapped in the database, neither opens.
    let swap = "UPDATE credential SET owner = CASE owner WHEN 'principal:corp/alice' THEN 'principal:corp/bob' ELSE 'x' END \
                WHERE owner = 'principal:corp/alice'";
    assert!(acme.remove_credential_of(upstream.id, &bob, &name).await?);
    assert_eq!(bed.sql(swap, vec![]).await?, 1);
    let stolen = acme.find_credential(slot(&bob)).await?.context("it was moved there")?;
    assert!(matches!(acme.open_credential(&stolen).await, Err(StoreError::Unopened { .. })));
    Ok(())
}

#[tokio::test]
async fn a_secret_that_was_moved_to_a_sibling_does_not_open() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let (jira, wiki) = (put_upstream(&acme, "jira").await?, put_upstream(&acme, "wiki").await?);
    acme.put_credential(jira.id, &"token".parse()?, &"CANARY-moved".into()).await?;
    let values = vec![wiki.id.to_string().into()];
    assert_eq!(bed.sql("UPDATE credential SET upstream_id = ?", values).await?, 1);
    let sealed = acme.sealed_credentials().await?.remove(0);
    assert_eq!(sealed.upstream(), wiki.id);
    assert!(matches!(acme.open_credential(&sealed).await, Err(StoreError::Unopened { .. })));
    Ok(())
}

#[tokio::test]
async fn a_secret_is_never_printed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let upstream = put_upstream(&bed.acme(), "jira").await?;
    bed.acme().put_credential(upstream.id, &"token".parse()?, &"CANARY-printed".into()).await?;
    let sealed: SealedCredential = bed.acme().sealed_credentials().await?.remove(0);
    let shown = format!("{sealed:?} {:?} {:?} {:?}", bed.away, bed.acme(), bed.begin().await?);
    assert!(shown.contains(":token@https://mcp.acme.example"), "{shown}");
    assert!(!shown.contains("CANARY-printed") && !shown.contains("sealed: "), "{shown}");
    Ok(())
}

#[tokio::test]
async fn who_steals_the_database_has_no_secret_in_the_clear() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?;
    for round in 0..3 {
        let secret = SecretString::from(format!("CANARY-in-the-file-{round}"));
        acme.put_credential(upstream.id, &"token".parse()?, &secret).await?;
    }
    let stolen = bed.away.database().stolen()?;
    let holds = |text: &[u8]| stolen.windows(text.len()).any(|window| window == text);
    assert!(holds(b"jira") && holds(b"token"), "it is all there");
    // Bytes stand in a dump in hexadecimal digits.
    assert!(!holds(b"CANARY-") && !holds(b"43414e4152592d"));
    Ok(())
}

/// Client credentials from `server`.
fn client_credentials(server: AuthorizationServer) -> anyhow::Result<UpstreamAuth> {
    Ok(UpstreamAuth::ClientCredentials(Box::new(TokenRequest {
        server,
        client_id: "mux".parse()?,
        proof: ClientProof::Basic { secret: "token".parse()? },
        scope: None,
        resource: None,
        audience: None,
    })))
}

#[tokio::test]
async fn a_changed_authorization_server_drops_the_credentials() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let here = client_credentials(AuthorizationServer::TokenUrl("https://as.example/token".parse()?))?;
    let upstream = put_upstream(&acme, "jira").await?;
    let spec = UpstreamSpec { auth: here, ..upstream.spec };
    for (auth, kept) in [
        (client_credentials(AuthorizationServer::TokenUrl("https://as.example/token".parse()?))?, true),
        (client_credentials(AuthorizationServer::TokenUrl("https://as.example/other".parse()?))?, false),
        (client_credentials(AuthorizationServer::Issuer("https://as.example".parse()?))?, false),
        (client_credentials(AuthorizationServer::TokenUrl("https://evil.example/token".parse()?))?, false),
        (client_credentials(AuthorizationServer::Issuer("https://as.example:8443".parse()?))?, false),
        (UpstreamAuth::Bearer { secret: "token".parse()? }, false),
    ] {
        let (before, _) = acme.put_upstream(&upstream.slug, &spec).await?;
        acme.put_credential(before.id, &"token".parse()?, &"CANARY-client".into()).await?;
        acme.put_upstream(&upstream.slug, &UpstreamSpec { auth: auth.clone(), ..spec.clone() }).await?;
        assert_eq!(acme.sealed_credentials().await?.len(), usize::from(kept), "{auth:?}");
    }
    Ok(())
}
