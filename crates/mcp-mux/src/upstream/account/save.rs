//! Storing what a renewal gave: a refresh token is spent by then, so what came for it must not be lost.

use std::sync::Arc;
use std::time::Duration;

use tenant_store::SealedCredential;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::error::UpstreamError;
use super::super::oauth::AccessToken;
use super::client::take_back;
use super::live::{Account, Kept, Live};
use super::tokens::{Tokens, unread};

/// How often it is tried again to store what was given, and how long after the lease was taken at most: nobody else can have the row
/// by then.
const SAVE_EVERY: Duration = Duration::from_secs(1);
pub(super) const SAVE_WITHIN: Duration = Duration::from_secs(45);
/// Tells a token that is not stored yet from the one whose row it will take.
const UNSAVED: u64 = 1 << 32;

/// The version of the account of which a token is.
pub(in crate::upstream) fn version_of(issue: u64) -> u64 {
    issue & !UNSAVED
}

/// What was given and could not be stored yet: the refresh token before it is spent, so these are all there is of the account.
pub(super) struct Unsaved {
    /// The row that it is to take the place of.
    pub(super) row: SealedCredential,
    pub(super) tokens: Tokens,
    /// Until when nobody else can have that.
    pub(super) until: Instant,
}

/// What became of an attempt to store what was given.
pub(super) enum Saved {
    Stored(AccessToken),
    Not(Box<Unsaved>, AccessToken),
    /// The row is another one by now.
    Outdated,
}

impl Live {
    /// Tries again what could not be stored, for as long as nobody else can have the row. Meanwhile its token serves, and nobody looks.
    pub(super) async fn keep_saving(&self, account: &Account, mut unsaved: Box<Unsaved>) {
        let (tenant, upstream) = (account.upstream.tenant, account.upstream.id);
        let (issuer, subject) = (&account.principal.issuer, &account.principal.subject);
        while Instant::now() + SAVE_EVERY < unsaved.until {
            sleep(SAVE_EVERY).await;
            if let Some(kept) = self.token.load_full().filter(|kept| kept.token.issue & UNSAVED != 0) {
                self.token.store(Some(Arc::new(Kept { token: Arc::clone(&kept.token), seen_at: Instant::now() })));
            }
            match timeout_at(unsaved.until, account.save(unsaved)).await {
                Ok(Saved::Not(again, _)) => unsaved = again,
                Ok(Saved::Stored(_) | Saved::Outdated) => return,
                Err(_) => break,
            }
        }
        tracing::error!(
            tenant.id = %tenant, upstream.id = %upstream, principal.issuer = %issuer, principal.id = %subject,
            "the new tokens of an account could not be stored: it may have to be connected again"
        );
    }
}

impl Account {
    /// Puts what was given into its row, unless that was deleted or replaced meanwhile. Where it cannot be stored it serves nevertheless.
    pub(super) async fn save(&self, unsaved: Box<Unsaved>) -> Saved {
        let Unsaved { row, tokens, .. } = &*unsaved;
        let (tenant, upstream, now) = (self.upstream.tenant, self.upstream.id, self.clock.now());
        let (issuer, subject) = (&self.principal.issuer, &self.principal.subject);
        let saved = match tokens.text() {
            Some(text) => self.rows.renew_credential(row, &text).await.map_err(|error| unread(&error)),
            None => Err(UpstreamError::Setup),
        };
        match saved {
            Ok(Some(new)) => {
                tracing::info!(
                    tenant.id = %tenant, upstream.id = %upstream, principal.issuer = %issuer, principal.id = %subject,
                    "an account was refreshed"
                );
                Saved::Stored(tokens.access_token(new.version().into(), now))
            }
            Ok(None) => self.outdated(tokens).await,
            Err(_) => {
                tracing::error!(
                    tenant.id = %tenant, upstream.id = %upstream, principal.issuer = %issuer, principal.id = %subject,
                    "the new tokens of an account cannot be stored: should this process end before they can, it must be connected again"
                );
                let token = tokens.access_token(UNSAVED | u64::from(row.version()), now);
                Saved::Not(unsaved, token)
            }
        }
    }

    /// The row is another one. Where it holds just these, an earlier attempt succeeded without our knowing. Where there is none, the
    /// account was ended, and what was given for it is taken back. Another account in its place may be of the same consent, which
    /// a revocation would end.
    async fn outdated(&self, tokens: &Tokens) -> Saved {
        match self.read().await {
            Ok((row, stored)) if stored.is(tokens) => {
                Saved::Stored(stored.access_token(row.version().into(), self.clock.now()))
            }
            Err(UpstreamError::AccountMissing) => {
                take_back(self.client(tokens).await, tokens, (&self.upstream, self.clock.now())).await;
                Saved::Outdated
            }
            _ => Saved::Outdated,
        }
    }
}
