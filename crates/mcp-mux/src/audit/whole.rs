//! Checking all that a database holds: each chain by itself, and what the platform's says of the others.

use std::collections::{BTreeMap, BTreeSet};

use tenant_store::{Still, Store, StoreError, TenantId, TenantScope};

use super::event::Head;
use super::export::{Piece, Reader};
use super::signer::Signer;
use super::verify::{Found, Verifier, Wrong};
use crate::policy::Administration;

/// What became of the check of each chain, by its name.
pub type Report = Vec<(String, Result<Found, Wrong>)>;

/// Checks every chain. What writers said in the platform's chain of how far they had come in tenants' must be there.
pub async fn verify_store(
    store: &Store,
    signer: &Signer,
    administration: Administration,
) -> Result<Report, StoreError> {
    let still = store.still().await?;
    // Writers name in their first event how far others had come in this very chain.
    let first = check(&still, None, signer, &[]).await?;
    let heads = first.as_ref().map(|found| found.heads.clone()).unwrap_or_default();
    let platform = match first {
        Ok(_) => check(&still, None, signer, &heads).await?,
        wrong => wrong,
    };
    let mut chains: BTreeMap<TenantId, String> = BTreeMap::new();
    // A tenant that is in no list any more may have a record still.
    let named: BTreeSet<&str> = heads.iter().map(|head: &Head| head.chain.as_str()).collect();
    chains.extend(named.into_iter().filter_map(|chain| Some((chain.parse().ok()?, chain.to_owned()))));
    chains.extend(store.tenants().await?.into_iter().map(|tenant| (tenant.id, tenant.slug.to_string())));
    let mut report = vec![("platform".to_owned(), platform)];
    for (tenant, name) in chains {
        let found = check(&still, Some(administration.scope(tenant)), signer, &heads).await?;
        report.push((name, found));
    }
    Ok(report)
}

async fn check(
    still: &Still,
    scope: Option<TenantScope>,
    signer: &Signer,
    heads: &[Head],
) -> Result<Result<Found, Wrong>, StoreError> {
    let chain = scope.map_or_else(|| "platform".to_owned(), |scope| scope.tenant().to_string());
    let mut verifier = Verifier::new(&chain, signer.all(), heads);
    let mut reader = Reader::new(still, scope).await?;
    loop {
        let pieces = reader.pieces().await?;
        if pieces.is_empty() {
            return Ok(verifier.finish());
        }
        for piece in pieces {
            let checked = match piece {
                Piece::Row(row) => verifier.row(&row),
                Piece::Checkpoint(checkpoint) => verifier.checkpoint(&checkpoint),
            };
            if let Err(wrong) = checked {
                return Ok(Err(wrong));
            }
        }
    }
}
