//! The access token of one account as one link uses it. However many need it, one looks at the row and one renews it: in this process
//! by taking turns, and among replicas by a lease on the row, because an authorization server that sees a refresh token twice takes
//! the account for stolen.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tenant_store::{Clock, SealedCredential, TenantStore, Upstream};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::credential::Proofs;
use super::super::error::UpstreamError;
use super::super::oauth::{AccessToken, CodeClient, CodeGrant, Http, NotGranted, OAuthError};
use super::client::client;
use super::save::{SAVE_WITHIN, Saved, Unsaved};
use super::tokens::{Slot, Tokens, unread};
use crate::audit::{Purpose, SecretUses, Used};
use crate::caller::Principal;
use crate::lifecycle::Tasks;

/// How long a token is used without a look at its row, which another replica may have deleted.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long a replica has a row to itself while it renews. Far more than the exchange and the writes may take, and than clocks differ.
const LEASE_LIFE: Duration = Duration::from_mins(1);
/// How often and for how long another replica's renewal is waited for.
const LEASE_LOOK_EVERY: Duration = Duration::from_millis(100);
const LEASE_WAIT: Duration = Duration::from_secs(35);
/// For how long a failure answers without asking again.
const FAILURE_LIFE: Duration = Duration::from_secs(30);
/// How often a token that an upstream refused is replaced before its time.
const FORCED_EVERY: Duration = Duration::from_secs(30);

/// The access token of one account.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Live {
    pub(super) token: ArcSwapOption<Kept>,
    failure: ArcSwapOption<(Instant, UpstreamError)>,
    renewing: AtomicBool,
    /// Whoever holds it looks at the row.
    turn: Arc<Mutex<Turn>>,
}

/// What one look at the row leaves to the next.
#[derive(Debug, Default)]
struct Turn {
    /// When a token was last replaced because it was refused.
    replaced_at: Option<Instant>,
}

/// A token, and when its row was seen last.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) token: Arc<AccessToken>,
    pub(super) seen_at: Instant,
}

/// All that it takes to get a token, also after its caller has gone.
pub(in crate::upstream) struct Account {
    pub(in crate::upstream) rows: TenantStore,
    /// The tenant's own credentials for the upstream, among them what our client proves itself with.
    pub(in crate::upstream) stored: Vec<SealedCredential>,
    pub(in crate::upstream) upstream: Arc<Upstream>,
    pub(in crate::upstream) principal: Principal,
    pub(in crate::upstream) http: Http,
    pub(in crate::upstream) clock: Arc<dyn Clock>,
    /// Where it is counted that the account is used.
    pub(in crate::upstream) uses: SecretUses,
}

/// Why a row is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// For a token that can be used.
    Any,
    /// For another one than this, which the upstream refused; and whether it may be renewed for that.
    Other(u64, bool),
    /// For one that is not due.
    Fresh,
}

impl Need {
    fn is_met_by(self, token: &AccessToken) -> bool {
        let serves = match self {
            Self::Any => true,
            Self::Other(refused, _) => token.issue != refused,
            Self::Fresh => !token.is_due(),
        };
        serves && token.is_usable()
    }
}

/// A token, how it came, and what is left to do about it.
struct Got {
    token: AccessToken,
    is_new: bool,
    unsaved: Option<Box<Unsaved>>,
}

/// What became of a renewal.
enum Renewed {
    Token(AccessToken, Option<Box<Unsaved>>),
    /// The row is another one by now.
    Outdated,
}

impl Live {
    /// The token, if it can be used and its row was seen a short while ago.
    pub(in crate::upstream) fn usable(&self) -> Option<Arc<AccessToken>> {
        let kept = self.token.load_full()?;
        (kept.token.is_usable() && kept.seen_at.elapsed() < LOOK_EVERY).then(|| Arc::clone(&kept.token))
    }

    /// Whether the token should be renewed, and by whoever is told so: once.
    pub(in crate::upstream) fn claim_renewal(&self, token: &AccessToken) -> bool {
        token.is_due() && self.recent_failure().is_none() && !self.renewing.swap(true, Ordering::AcqRel)
    }

    /// Renews in the background, after [`Live::claim_renewal`]. A failure leaves the token that there is.
    pub(in crate::upstream) fn renew(self: &Arc<Self>, account: Account, tasks: &Tasks) {
        let live = Arc::clone(self);
        tasks.spawn_draining(async move {
            let mut turn = Arc::clone(&live.turn).lock_owned().await;
            if let Ok((_, Some(unsaved))) = live.look(&account, Need::Fresh, &mut turn).await {
                drop(turn);
                live.keep_saving(&account, unsaved).await;
            }
            live.renewing.store(false, Ordering::Release);
        });
    }

    /// A token, by a look at its row. `refused` is the one that the upstream did not take, if that is why. What was begun is finished
    /// also if its caller goes away: a refresh token that was spent must not be lost.
    pub(in crate::upstream) async fn get(
        self: &Arc<Self>,
        account: Account,
        (refused, deadline): (Option<u64>, Instant),
        tasks: &Tasks,
    ) -> Result<Arc<AccessToken>, UpstreamError> {
        let turn = timeout_at(deadline, Arc::clone(&self.turn).lock_owned());
        let mut turn = turn.await.map_err(|_| UpstreamError::TimedOut)?;
        if let Some(token) = self.usable().filter(|token| Some(token.issue) != refused) {
            return Ok(token);
        }
        if let Some(error) = self.recent_failure() {
            return Err(error);
        }
        let may_renew = turn.replaced_at.is_none_or(|at| at.elapsed() >= FORCED_EVERY);
        let need = refused.map_or(Need::Any, |refused| Need::Other(refused, may_renew));
        let (say, said) = oneshot::channel();
        let live = Arc::clone(self);
        tasks.spawn_draining(async move {
            let looked = live.look(&account, need, &mut turn).await;
            drop(turn);
            let (answer, unsaved) = match looked {
                Ok((token, unsaved)) => (Ok(token), unsaved),
                Err(error) => (Err(error), None),
            };
            // Nobody may be there to hear it any more.
            say.send(answer).ok();
            if let Some(unsaved) = unsaved {
                live.keep_saving(&account, unsaved).await;
            }
        });
        timeout_at(deadline, said).await.map_err(|_| UpstreamError::TimedOut)?.map_err(|_| UpstreamError::Setup)?
    }

    fn recent_failure(&self) -> Option<UpstreamError> {
        self.failure.load_full().filter(|failure| failure.0.elapsed() < FAILURE_LIFE).map(|failure| failure.1.clone())
    }

    async fn look(
        &self,
        account: &Account,
        need: Need,
        turn: &mut Turn,
    ) -> Result<(Arc<AccessToken>, Option<Box<Unsaved>>), UpstreamError> {
        match account.token(need).await {
            Ok(Got { token, is_new, unsaved }) => {
                if is_new && matches!(need, Need::Other(..)) {
                    turn.replaced_at = Some(Instant::now());
                }
                let token = Arc::new(token);
                self.token.store(Some(Arc::new(Kept { token: Arc::clone(&token), seen_at: Instant::now() })));
                self.failure.store(None);
                Ok((token, unsaved))
            }
            Err(error) => {
                match error {
                    UpstreamError::NoToken(_) => {
                        self.failure.store(Some(Arc::new((Instant::now(), error.clone()))));
                    }
                    UpstreamError::AccountMissing => self.token.store(None),
                    _ => {}
                }
                Err(error)
            }
        }
    }
}

impl Account {
    /// A token, and whether it was renewed for this.
    async fn token(&self, need: Need) -> Result<Got, UpstreamError> {
        let give_up_at = Instant::now() + LEASE_WAIT;
        loop {
            let (row, tokens) = self.read().await?;
            let token = tokens.access_token(row.version().into(), self.clock.now());
            if need.is_met_by(&token) {
                return Ok(Got { token, is_new: false, unsaved: None });
            }
            if need == Need::Other(token.issue, false) {
                return Err(UpstreamError::Unauthorized);
            }
            if tokens.refresh.is_none() {
                return self.end(&row, &token, "its access token ended, and none renews it").await;
            }
            let until = Instant::now() + SAVE_WITHIN;
            if self.rows.lease_credential(&row, LEASE_LIFE).await.map_err(|error| unread(&error))? {
                match self.renew(&row, tokens, until).await? {
                    Renewed::Token(token, unsaved) => return Ok(Got { token, is_new: true, unsaved }),
                    Renewed::Outdated => {}
                }
            } else if need == Need::Fresh && token.is_usable() {
                // Another replica is at it; nobody waits for that here.
                return Ok(Got { token, is_new: false, unsaved: None });
            } else if Instant::now() < give_up_at {
                sleep(LEASE_LOOK_EVERY).await;
            } else {
                return Err(UpstreamError::NoToken(OAuthError::Unavailable));
            }
        }
    }

    /// The row, opened: the principal's own, or none.
    pub(super) async fn read(&self) -> Result<(SealedCredential, Tokens), UpstreamError> {
        let slot = Slot::of(&self.principal, self.upstream.id)?;
        let row = self.rows.find_credential(slot.slot()).await.map_err(|error| unread(&error))?;
        let row = row.filter(|row| row.is_for(&self.upstream)).ok_or(UpstreamError::AccountMissing)?;
        let text = self.rows.open_credential(&row).await.map_err(|error| unread(&error))?;
        let tokens = Tokens::parse(&text).ok_or(UpstreamError::AccountMissing)?;
        Ok((row, tokens))
    }

    /// A token that cannot be renewed. Where it has ended, so has the account; where only the upstream refused it, that is not the
    /// authorization server's word.
    async fn end<T>(
        &self,
        row: &SealedCredential,
        token: &AccessToken,
        reason: &'static str,
    ) -> Result<T, UpstreamError> {
        if token.is_usable() {
            self.rows.release_credential(row).await.map_err(|error| unread(&error))?;
        } else {
            self.drop_row(row, reason).await?;
        }
        Err(UpstreamError::AccountMissing)
    }

    /// Spends the refresh token, with the row leased, if what comes of it can be sealed.
    async fn renew(&self, row: &SealedCredential, tokens: Tokens, until: Instant) -> Result<Renewed, UpstreamError> {
        let Some(refresh) = &tokens.refresh else { return Err(UpstreamError::AccountMissing) };
        let client = match self.client(&tokens).await {
            Ok(Some(client)) => client,
            Ok(None) => {
                let token = tokens.access_token(row.version().into(), self.clock.now());
                return self.end(row, &token, "the client that it was connected through is gone").await;
            }
            Err(error) => return self.give_back(row, error).await,
        };
        if let Err(error) = self.rows.ready_to_seal().await {
            return self.give_back(row, unread(&error)).await;
        }
        let now = self.clock.now();
        let grant = CodeGrant::Refresh { token: &refresh.0 };
        let using = self.uses.begin(self.rows.scope(), &self.upstream.slug, Purpose::Token);
        using.shown().note(&Arc::new(Used::account_of(&self.principal)));
        let granted = client.ask(&tokens.source.token_endpoint, grant, tokens.source.resource.as_str(), now).await;
        if granted.is_ok() {
            using.went_well();
        }
        drop(using);
        let granted = match granted {
            Ok(granted) => granted,
            Err(NotGranted::Dead) => {
                if self.drop_row(row, "its authorization server took it back").await? {
                    return Err(UpstreamError::AccountMissing);
                }
                return Ok(Renewed::Outdated);
            }
            Err(NotGranted::Other(error)) => return self.give_back(row, UpstreamError::NoToken(error)).await,
        };
        let unsaved = Box::new(Unsaved { row: row.clone(), tokens: tokens.renewed(granted, now), until });
        Ok(match self.save(unsaved).await {
            Saved::Stored(token) => Renewed::Token(token, None),
            Saved::Not(unsaved, token) => Renewed::Token(token, Some(unsaved)),
            Saved::Outdated => Renewed::Outdated,
        })
    }

    pub(super) async fn client(&self, tokens: &Tokens) -> Result<Option<CodeClient>, UpstreamError> {
        let stored: Vec<&SealedCredential> = self.stored.iter().collect();
        let proofs = Proofs { caller: None, rows: &self.rows, stored: &stored, shown: None };
        client(&proofs, &self.upstream, tokens.source.known(), self.http.clone()).await
    }

    /// Somebody else may try.
    async fn give_back<T>(&self, row: &SealedCredential, error: UpstreamError) -> Result<T, UpstreamError> {
        if let Err(error) = self.rows.release_credential(row).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the lease on an account's row stays until it ends"
            );
        }
        tracing::warn!(
            tenant.id = %self.upstream.tenant, upstream.id = %self.upstream.id, principal.issuer = %self.principal.issuer,
            principal.id = %self.principal.subject, error = &error as &dyn std::error::Error, "an account was not refreshed"
        );
        Err(error)
    }

    /// Deletes the row if it is still this one.
    async fn drop_row(&self, row: &SealedCredential, reason: &'static str) -> Result<bool, UpstreamError> {
        let dropped = self.rows.remove_credential_version(row).await.map_err(|error| unread(&error))?;
        if dropped {
            tracing::warn!(
                tenant.id = %self.upstream.tenant, upstream.id = %self.upstream.id,
                principal.issuer = %self.principal.issuer, principal.id = %self.principal.subject, reason,
                "an account is refused and was deleted"
            );
        }
        Ok(dropped)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("upstream", &self.upstream.id).finish_non_exhaustive()
    }
}
