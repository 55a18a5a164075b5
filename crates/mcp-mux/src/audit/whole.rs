//! Checking all that a database holds: each chain by itself, and what the platform's says of the others.

use std::collections::BTreeMap;

use tenant_store::{Still, Store, StoreError, TenantId, TenantScope, Timestamp};

use super::heads::Heads;
use super::reader::{Piece, Reader};
use super::signer::Signer;
use super::verify::{Found, Verifier};
use super::wrong::{WRONG_MAX, Wrong};
use crate::policy::Administration;

/// What became of the check of one chain.
#[derive(Debug)]
pub struct Checked {
    /// Whose it is, by name.
    pub name: String,
    /// What is in it.
    pub found: Found,
    /// What is wrong with it: the first of it, if it is a lot.
    pub wrong: Vec<Wrong>,
}

/// What became of the check of each chain: the platform's first, then tenants'.
pub type Report = Vec<Checked>;

/// Checks every chain. What writers said in the platform's chain of how far they had come in tenants' must be there, also where something is
/// wrong with the platform's: but then nobody knows whether that was all they said.
pub async fn verify_store(
    store: &Store,
    signer: &Signer,
    administration: Administration,
) -> Result<Report, StoreError> {
    let (still, now) = (store.still().await?, store.now());
    let platform = check_platform(&still, (signer, now)).await?;
    let heads = platform.found.heads.clone();
    // A tenant that is in no list any more may have a record still.
    let named = heads.chains().filter_map(|chain| Some((chain.parse().ok()?, chain.to_owned())));
    let mut chains: BTreeMap<TenantId, String> = named.collect();
    chains.extend(still.tenant_ids().await?.into_iter().map(|tenant| (tenant, tenant.to_string())));
    // One whose row does not parse is called by its id.
    let tenants = still.tenants(None).await?.into_iter().flatten();
    chains.extend(tenants.map(|tenant| (tenant.id, tenant.slug.to_string())));
    let mut report = vec![platform];
    for (tenant, name) in chains {
        let whose = (Some(administration.scope(tenant)), name);
        report.push(check(&still, whose, (signer, now), &heads).await?);
    }
    Ok(report)
}

/// Checks the platform's chain.
pub(super) async fn check_platform(still: &Still, by: (&Signer, Timestamp)) -> Result<Checked, StoreError> {
    let platform = || (None, "platform".to_owned());
    // Writers name in their first event how far others had come in this very chain.
    let first = check(still, platform(), by, &Heads::default()).await?;
    check(still, platform(), by, &first.found.heads).await
}

/// Checks one chain, in which nothing may be missing of what those heads say.
pub(super) async fn check(
    still: &Still,
    (scope, name): (Option<TenantScope>, String),
    (signer, now): (&Signer, Timestamp),
    heads: &Heads,
) -> Result<Checked, StoreError> {
    let chain = scope.map_or_else(|| "platform".to_owned(), |scope| scope.tenant().to_string());
    let mut verifier = Verifier::new(&chain, signer.all(), heads, Some(now));
    let mut reader = Reader::new(still, scope);
    let mut wrong = Vec::new();
    loop {
        let pieces = reader.pieces().await?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            let checked = match piece {
                Piece::Pruned(pruned) => verifier.pruned(&pruned),
                Piece::Row(row) => verifier.row(&row),
                Piece::Checkpoint(checkpoint) => verifier.checkpoint(&checkpoint),
            };
            wrong.extend(checked.err().filter(|_| wrong.len() < WRONG_MAX));
        }
    }
    let (found, of_parts) = verifier.finish();
    wrong.extend(of_parts);
    wrong.truncate(WRONG_MAX);
    Ok(Checked { name, found, wrong })
}
