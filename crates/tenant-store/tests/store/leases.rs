//! Credentials that are renewed: one at a time, each version once, and never over what somebody else did meanwhile.

use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{
    CredentialKind, CredentialOwner, CredentialSlot, SealedCredential, SecretName, TenantStore, UpstreamId,
};

use crate::support::{Bed, put_upstream, scope};

const LEASE: Duration = Duration::from_secs(30);

/// A principal's account at an upstream.
struct Slot {
    upstream: UpstreamId,
    owner: CredentialOwner,
    name: SecretName,
}

impl Slot {
    fn of(upstream: UpstreamId, who: &str) -> anyhow::Result<Self> {
        let owner = CredentialOwner::Principal { issuer: "corp".parse()?, subject: who.parse()? };
        Ok(Self { upstream, owner, name: "account".parse()? })
    }

    fn slot(&self) -> CredentialSlot<'_> {
        CredentialSlot { upstream: self.upstream, owner: &self.owner, name: &self.name, kind: CredentialKind::Tokens }
    }

    async fn put(&self, rows: &TenantStore, value: &str) -> anyhow::Result<SealedCredential> {
        rows.put_credential_in(self.slot(), &SecretString::from(value)).await?;
        self.find(rows).await?.context("it was put")
    }

    async fn find(&self, rows: &TenantStore) -> anyhow::Result<Option<SealedCredential>> {
        Ok(rows.find_credential(self.slot()).await?)
    }
}

async fn opened(rows: &TenantStore, sealed: &SealedCredential) -> anyhow::Result<String> {
    Ok(rows.open_credential(sealed).await?.expose_secret().to_owned())
}

#[tokio::test]
async fn one_has_a_version_to_itself_until_the_lease_ends_or_is_given_back() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let other = bed.away.again().await?.tenant(scope(&bed.acme));
    let slot = Slot::of(put_upstream(&acme, "jira").await?.id, "alice")?;
    let row = slot.put(&acme, "CANARY-one").await?;

    assert!(acme.lease_credential(&row, LEASE).await?);
    assert!(!acme.lease_credential(&row, LEASE).await? && !other.lease_credential(&row, LEASE).await?);
    other.release_credential(&row).await?;
    assert!(other.lease_credential(&row, LEASE).await?);
    bed.away.clock.advance(LEASE / 2);
    assert!(!acme.lease_credential(&row, LEASE).await?);
    bed.away.clock.advance(LEASE / 2);
    assert!(acme.lease_credential(&row, LEASE).await?, "whoever had it may have died");
    assert!(!bed.globex().lease_credential(&row, LEASE).await?, "another tenant has no such row");
    Ok(())
}

#[tokio::test]
async fn a_version_is_renewed_once_and_only_while_it_is_the_present_one() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let slot = Slot::of(put_upstream(&acme, "jira").await?.id, "alice")?;
    let first = slot.put(&acme, "CANARY-one").await?;
    assert!(acme.lease_credential(&first, LEASE).await?);
    bed.away.clock.advance(LEASE / 2);
    let second = acme.renew_credential(&first, &"CANARY-two".into()).await?.context("it is the present one")?;
    assert_eq!(opened(&acme, &second).await?, "CANARY-two");
    let found = slot.find(&acme).await?.context("a row")?;
    assert_eq!((found.version(), found.stored_at()), (second.version(), first.stored_at()));
    assert!(acme.lease_credential(&second, LEASE).await?, "the new version is nobody's yet");

    // What is outdated changes nothing.
    assert!(!acme.lease_credential(&first, LEASE).await?);
    assert!(acme.renew_credential(&first, &"CANARY-late".into()).await?.is_none());
    assert!(!acme.remove_credential_version(&first).await?);
    assert_eq!(opened(&acme, &slot.find(&acme).await?.context("a row")?).await?, "CANARY-two");

    // Nor does it bring back what was deleted.
    assert!(acme.remove_credential_version(&second).await?);
    assert!(acme.renew_credential(&second, &"CANARY-late".into()).await?.is_none());
    assert!(slot.find(&acme).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn accounts_are_listed_by_owner_and_are_no_secrets_of_the_tenant() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let acme = bed.acme();
    let upstream = put_upstream(&acme, "jira").await?.id;
    // The tenant's first credential makes its data key, which all replicas hear of.
    Slot::of(upstream, "bob")?.put(&acme, "CANARY-tokens").await?;
    let before = bed.revision().await?;
    Slot::of(upstream, "alice")?.put(&acme, "CANARY-tokens").await?;
    assert_eq!(bed.revision().await?, before, "no replica has to take anything over");
    let client = CredentialSlot {
        upstream,
        owner: &CredentialOwner::Tenant,
        name: &"registered-client".parse()?,
        kind: CredentialKind::Client,
    };
    acme.put_credential_in(client, &"CANARY-client".into()).await?;
    let owners: Vec<String> = acme.accounts().await?.iter().map(|account| account.owner.to_string()).collect();
    assert_eq!(owners, ["principal:corp/alice", "principal:corp/bob"]);
    assert!(acme.sealed_credentials().await?.is_empty() && bed.globex().accounts().await?.is_empty());
    Ok(())
}
