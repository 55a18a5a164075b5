//! Talking to one child: many requests at once over one pair of pipes, told apart by ids of ours.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use super::lines::{Line, Lines};
use super::message::{self, Spoken};

/// Longest line of a child that is read, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most progress notifications that wait for a client; what comes while it does not read is dropped.
const PROGRESS_AHEAD_MAX: usize = 16;
/// Room in the queue to the child besides one line for each running request.
const LINES_SPARE: usize = 16;

/// What is said to one child, and who waits for its answers.
#[derive(Debug)]
pub(super) struct Conversation {
    lines: mpsc::Sender<String>,
    /// By our id; nothing at all once the child has stopped.
    waiting: Mutex<Option<HashMap<u64, Waiting>>>,
    next_id: AtomicU64,
}

/// A request that runs, as its client knows it.
#[derive(Debug)]
struct Waiting {
    client: Client,
    answer: oneshot::Sender<String>,
    progress: mpsc::Sender<String>,
}

/// What has to be put back into answers, and into progress where that is wanted.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: Box<RawValue>,
    pub(super) progress_token: Option<Box<RawValue>>,
}

/// How the child is told that nobody waits any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancels {
    /// Not at all: `initialize` cannot be cancelled.
    Never,
    Legacy,
    Modern,
}

/// What comes of a request.
#[derive(Debug)]
pub(super) enum Heard {
    Progress(String),
    Answer(String),
    /// The child stopped.
    Stopped,
}

/// A request that runs. When it is dropped before its answer came, the child is told.
#[derive(Debug)]
pub(super) struct Call {
    conversation: Arc<Conversation>,
    id: u64,
    cancels: Cancels,
    answer: oneshot::Receiver<String>,
    progress: mpsc::Receiver<String>,
}

impl Conversation {
    /// A conversation in which `concurrency` requests may run, and the lines to be written.
    pub(super) fn new(concurrency: usize) -> (Arc<Self>, mpsc::Receiver<String>) {
        let (lines, queue) = mpsc::channel(concurrency + LINES_SPARE);
        let waiting = Mutex::new(Some(HashMap::new()));
        (Arc::new(Self { lines, waiting, next_id: AtomicU64::new(1) }), queue)
    }

    /// Asks the child what `line` makes of our id. `None` if it has stopped.
    pub(super) async fn ask(
        self: &Arc<Self>,
        client: Client,
        cancels: Cancels,
        line: impl FnOnce(u64) -> String,
    ) -> Option<Call> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let (progress, progressed) = mpsc::channel(PROGRESS_AHEAD_MAX);
        self.waiting().as_mut()?.insert(id, Waiting { client, answer, progress });
        let conversation = Arc::clone(self);
        let call = Call { conversation, id, cancels, answer: answered, progress: progressed };
        self.lines.send(line(id)).await.ok()?;
        Some(call)
    }

    /// Says something that has no answer.
    pub(super) async fn tell(&self, line: String) {
        // Who has stopped does not need to hear it.
        drop(self.lines.send(line).await);
    }

    /// Reads what the child says until it closes its output.
    pub(super) async fn listen(&self, output: impl AsyncRead + Unpin) {
        let mut lines = Lines::new(output, LINE_BYTES_MAX);
        loop {
            match lines.next().await {
                Ok(Some(line)) => self.hear(line),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the child's output cannot be read");
                    return;
                }
            }
        }
    }

    fn hear(&self, Line { bytes, is_cut }: Line) {
        if is_cut {
            tracing::warn!(bytes_max = LINE_BYTES_MAX, "a line of the child is too long and was dropped");
            return;
        }
        let Ok(line) = String::from_utf8(bytes) else {
            tracing::warn!("a line of the child is not UTF-8 and was dropped");
            return;
        };
        match message::spoken(&line) {
            Spoken::Answer(number, id) => {
                let Some(waiting) = self.waiting().as_mut().and_then(|all| all.remove(&number)) else { return };
                if let Some(text) = message::put_back(&line, id, &waiting.client.id) {
                    drop(waiting.answer.send(text));
                }
            }
            Spoken::Progress(number, token) => self.progress(&line, number, token),
            Spoken::Ping(id) => self.reply(message::reply(id, "\"result\":{}")),
            Spoken::Request(id) => {
                let refusal = r#""error":{"code":-32601,"message":"no client can be asked through a bridge"}"#;
                self.reply(message::reply(id, refusal));
            }
            Spoken::Notification => {}
            Spoken::Noise => tracing::warn!("a line of the child's output is no message and was dropped"),
        }
    }

    fn progress(&self, line: &str, number: u64, ours: &RawValue) {
        let all = self.waiting();
        let Some(waiting) = all.as_ref().and_then(|all| all.get(&number)) else { return };
        let theirs = waiting.client.progress_token.as_ref();
        if let Some(text) = theirs.and_then(|theirs| message::put_back(line, ours, theirs)) {
            // A client that reads slower than the child reports misses some of it.
            drop(waiting.progress.try_send(text));
        }
    }

    /// Without waiting: whoever reads must not wait for whoever writes. A child that reads nothing gets no replies.
    fn reply(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            tracing::debug!("the child does not read: something that was to be said to it was dropped");
        }
    }

    /// The child has stopped: whoever waits is told.
    pub(super) fn end(&self) {
        *self.waiting() = None;
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, Waiting>>> {
        // What is done under the lock leaves the table whole at each step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the queue's lines until the child takes no more.
pub(super) async fn write(mut input: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<String>) {
    while let Some(mut line) = queue.recv().await {
        line.push('\n');
        if input.write_all(line.as_bytes()).await.is_err() || input.flush().await.is_err() {
            return;
        }
    }
}

impl Call {
    /// What comes next. Progress that came before the answer is heard before it.
    pub(super) async fn next(&mut self) -> Heard {
        tokio::select! {
            biased;
            Some(text) = self.progress.recv() => Heard::Progress(text),
            answer = &mut self.answer => answer.map_or(Heard::Stopped, Heard::Answer),
        }
    }

    /// The answer, whatever comes before it; `None` if the child stops.
    pub(super) async fn answer(mut self) -> Option<String> {
        loop {
            match self.next().await {
                Heard::Progress(_) => {}
                Heard::Answer(text) => return Some(text),
                Heard::Stopped => return None,
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let is_open = self.conversation.waiting().as_mut().is_some_and(|all| all.remove(&self.id).is_some());
        if is_open && self.cancels != Cancels::Never {
            self.conversation.reply(message::cancelled(self.id, self.cancels == Cancels::Modern));
        }
    }
}
