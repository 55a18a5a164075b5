//! Keeping a child: started, agreed with, watched, started again with growing pauses, and ended with the bridge.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::agreement::{Agreement, Disagreement, agree};
use super::child::{self, Child, ChildCommand, Pipes};
use super::conversation::{self, Conversation};

/// The first pause before a child that stopped is started again; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A child that lived this long is taken for a good one: the next pause is the first one again.
const GOOD_LIFE: Duration = Duration::from_mins(1);
/// How long the last words of a child that ended are waited for.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A child that can be asked.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) conversation: Arc<Conversation>,
    pub(super) agreement: Agreement,
}

/// Who keeps the child.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) command: ChildCommand,
    pub(super) concurrency: usize,
    /// The child that can be asked now.
    pub(super) ready: watch::Sender<Option<Arc<Ready>>>,
    /// Ends the child, and this.
    pub(super) end: CancellationToken,
    /// The program is known not to speak the modern era.
    pub(super) is_legacy: bool,
}

/// Why a child does not run any more.
enum Stop {
    /// We are stopping.
    Told,
    /// In words, for the log.
    Itself(String),
}

impl Keeper {
    /// Keeps `first`, and who follows it, until [`Keeper::end`].
    pub(super) async fn run(mut self, first: (Child, Pipes)) {
        let mut next = Some(first);
        let mut pause = PAUSE_MIN;
        loop {
            let started = Instant::now();
            let stop = match next.take().map_or_else(|| self.command.spawn(), Ok) {
                Ok((child, pipes)) => self.live(child, pipes).await,
                Err(error) => Stop::Itself(format!("it cannot be started: {error}")),
            };
            let Stop::Itself(reason) = stop else { return };
            if started.elapsed() >= GOOD_LIFE {
                pause = PAUSE_MIN;
            }
            tracing::warn!(reason, pause_ms = pause.as_millis(), "the child stopped and is started again");
            tokio::select! {
                () = self.end.cancelled() => return,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One child's life. When this returns, nothing of it is left.
    async fn live(&mut self, mut child: Child, pipes: Pipes) -> Stop {
        tracing::info!(child.pid = child.id(), "the child is started");
        let Pipes { input, output, log } = pipes;
        let (conversation, queue) = Conversation::new(self.concurrency);
        let end = self.end.clone();
        let mut logged = std::pin::pin!(child::log(log).fuse());
        let stop = {
            let mut talk = std::pin::pin!(async {
                let written = conversation::write(input, queue);
                // A child that takes nothing may still say something; one that says nothing any more is of no use.
                tokio::select! { () = conversation.listen(output) => {}, never = beside(written) => match never {} }
            });
            tokio::select! {
                () = end.cancelled() => Stop::Told,
                never = beside(&mut logged) => match never {},
                () = &mut talk => Stop::Itself("it closed its output".to_owned()),
                () = child.ended() => {
                    self.ready.send_replace(None);
                    drop(timeout(LAST_WORDS_TIMEOUT, talk).await);
                    Stop::Itself("it ended".to_owned())
                }
                Err(error) = self.serve(&conversation) => Stop::Itself(error.to_string()),
            }
        };
        self.ready.send_replace(None);
        conversation.end();
        let status = tokio::select! {
            status = child.end() => status,
            never = beside(&mut logged) => match never {},
        };
        if !logged.is_terminated() {
            drop(timeout(LAST_WORDS_TIMEOUT, logged).await);
        }
        tracing::info!(status, "the child ended");
        stop
    }

    /// Agrees with the child and lets it be asked, for as long as it lives.
    async fn serve(&mut self, conversation: &Arc<Conversation>) -> Result<(), Disagreement> {
        // Some end at once when they are asked in a way that they do not know. The next one is asked in the other way.
        let is_legacy = self.is_legacy;
        self.is_legacy = !is_legacy;
        let agreement = agree(conversation, is_legacy).await?;
        self.is_legacy = !agreement.is_modern();
        tracing::info!(version = agreement.version(), "the child is ready");
        let conversation = Arc::clone(conversation);
        self.ready.send_replace(Some(Arc::new(Ready { conversation, agreement })));
        std::future::pending().await
    }
}

/// Does `work` beside something else, which is what ends both: this never does.
async fn beside(work: impl Future<Output = ()>) -> Infallible {
    work.await;
    std::future::pending().await
}
