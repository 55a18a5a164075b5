//! The access token of one link. However many need it, one asks for it; it is asked for anew before it ends, while the old one
//! stays in use; and a failure answers everybody for a while, so that an authorization server is not asked once per call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use secrecy::SecretString;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::super::error::UpstreamError;
use super::error::OAuthError;
use super::question::{Given, Question};
use crate::lifecycle::Tasks;

/// For how long a failure answers without asking again.
pub(super) const FAILURE_LIFE: Duration = Duration::from_secs(30);
/// How often a token that an upstream refused is replaced before its time.
const FORCED_EVERY: Duration = Duration::from_secs(30);
/// How long before its end a token is not used any more, at most.
const LEEWAY_MAX: Duration = Duration::from_secs(10);
/// The part of a token's life after which it is asked for anew, in hundredths, and how much earlier that may be: links that began
/// together shall not ask together.
const RENEW_AFTER: u32 = 80;
const JITTER: u32 = 10;

/// A token that was given.
#[derive(Debug)]
pub(in crate::upstream) struct AccessToken {
    pub(in crate::upstream) secret: SecretString,
    /// Which of its link's tokens it is.
    pub(in crate::upstream) issue: u64,
    renew_at: Instant,
    ends_at: Instant,
}

impl AccessToken {
    /// One whose life is known from elsewhere: from now until it should be renewed, and until it ends.
    pub(in crate::upstream) fn of(secret: SecretString, issue: u64, renew_in: Duration, ends_in: Duration) -> Self {
        let now = Instant::now();
        Self { secret, issue, renew_at: now + renew_in, ends_at: now + ends_in }
    }

    pub(in crate::upstream) fn is_usable(&self) -> bool {
        Instant::now() < self.ends_at
    }

    pub(in crate::upstream) fn is_due(&self) -> bool {
        Instant::now() >= self.renew_at
    }
}

/// The token of one link.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Held {
    token: ArcSwapOption<AccessToken>,
    failure: ArcSwapOption<(Instant, OAuthError)>,
    issues: AtomicU64,
    renewing: AtomicBool,
    /// Whoever holds it asks. It remembers when a token was last replaced because it was refused.
    turn: Arc<Mutex<Option<Instant>>>,
}

/// How a token is got: what for, in whose task, and by when.
pub(in crate::upstream) struct Getting<'g> {
    pub(in crate::upstream) tasks: &'g Tasks,
    pub(in crate::upstream) deadline: Instant,
    /// The token that the upstream refused, if that is why another one is needed.
    pub(in crate::upstream) refused: Option<u64>,
}

impl Held {
    /// The token, if it can be used now.
    pub(in crate::upstream) fn usable(&self) -> Option<Arc<AccessToken>> {
        self.token.load_full().filter(|token| token.is_usable())
    }

    /// Whether the token should be asked for anew, and by whoever is told so: once.
    pub(in crate::upstream) fn claim_renewal(&self, token: &AccessToken) -> bool {
        token.is_due() && self.recent_failure().is_none() && !self.renewing.swap(true, Ordering::AcqRel)
    }

    /// Gives the claim back without asking.
    pub(in crate::upstream) fn release_renewal(&self) {
        self.renewing.store(false, Ordering::Release);
    }

    /// Asks in the background, after [`Held::claim_renewal`]. A failure leaves the token that there is.
    pub(in crate::upstream) fn renew(self: &Arc<Self>, due: &AccessToken, question: Question, tasks: &Tasks) {
        let (held, due) = (Arc::clone(self), due.issue);
        tasks.spawn(async move {
            let turn = Arc::clone(&held.turn).lock_owned().await;
            if held.token.load().as_ref().is_some_and(|token| token.issue == due) {
                held.ask(&question, turn).await.ok();
            }
            held.release_renewal();
        });
    }

    /// A token, asked for if there is none that can be used. What was begun is finished also if its caller goes away, so that a
    /// slow authorization server is not asked again and again.
    pub(in crate::upstream) async fn get(
        self: &Arc<Self>,
        question: Question,
        getting: &Getting<'_>,
    ) -> Result<Arc<AccessToken>, UpstreamError> {
        let Getting { tasks, deadline, refused } = *getting;
        let turn = timeout_at(deadline, Arc::clone(&self.turn).lock_owned());
        let mut turn = turn.await.map_err(|_| UpstreamError::TimedOut)?;
        if let Some(token) = self.usable().filter(|token| Some(token.issue) != refused) {
            return Ok(token);
        }
        if let Some(error) = self.recent_failure() {
            return Err(UpstreamError::NoToken(error));
        }
        if refused.is_some() {
            if turn.is_some_and(|at| at.elapsed() < FORCED_EVERY) {
                return Err(UpstreamError::Unauthorized);
            }
            *turn = Some(Instant::now());
            self.token.store(None);
        }
        let (say, said) = oneshot::channel();
        let held = Arc::clone(self);
        tasks.spawn_draining(async move {
            // Nobody may be there to hear it any more.
            say.send(held.ask(&question, turn).await).ok();
        });
        let answer = timeout_at(deadline, said).await.map_err(|_| UpstreamError::TimedOut)?;
        answer.map_err(|_| UpstreamError::Setup)?.map_err(UpstreamError::NoToken)
    }

    fn recent_failure(&self) -> Option<OAuthError> {
        self.failure.load_full().filter(|failure| failure.0.elapsed() < FAILURE_LIFE).map(|failure| failure.1)
    }

    async fn ask(
        &self,
        question: &Question,
        _turn: OwnedMutexGuard<Option<Instant>>,
    ) -> Result<Arc<AccessToken>, OAuthError> {
        match question.ask().await {
            Ok(given) => {
                let token = Arc::new(self.issued(given));
                self.token.store(Some(Arc::clone(&token)));
                self.failure.store(None);
                Ok(token)
            }
            Err(error) => {
                self.failure.store(Some(Arc::new((Instant::now(), error))));
                Err(error)
            }
        }
    }

    fn issued(&self, given: Given) -> AccessToken {
        let Given { secret, at, life } = given;
        // The lowest bits of a random id are as random as any.
        let earlier = u32::try_from(Uuid::new_v4().as_u128() % u128::from(JITTER)).unwrap_or(0);
        AccessToken {
            secret,
            issue: self.issues.fetch_add(1, Ordering::Relaxed) + 1,
            renew_at: at + life * (RENEW_AFTER - earlier) / 100,
            ends_at: at + life - LEEWAY_MAX.min(life / 10),
        }
    }
}
