//! Agreeing on a protocol version with an upstream: the modern era first, then the legacy handshake.
//!
//! A modern upstream answers `server/discover`. Anything else than an answer that lists the modern version means *legacy*:
//! an error, a 404, or an answer that lists only versions with a handshake. Who refuses the modern version and lists it is asked
//! twice. Whoever refuses the handshake like a page that takes no messages may speak the old transport: see [`old_sse`]. What was
//! agreed on is kept with the link; a session or version that the upstream gives up is negotiated anew.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::answer::{ANSWER_BYTES_MAX, Answer, error_code, events, is_events, parse_answer, refusal, whole};
use super::credential::Credential;
use super::error::UpstreamError;
use super::event_stream::EventStream;
use super::link::{Line, Link};
use super::old_sse;
use super::own_stream::{self, Beside, Own, OwnStream};
use super::peer::{ClientCapabilities, LogLevel};
use super::request::{LEGACY_VERSIONS, Rpc, client_info};
use super::session_end::SessionEnd;
use super::subscribe::Subscribed;
use crate::egress::Response;
use crate::json::{self, Members};
use crate::protocol::{LEGACY_VERSION, MODERN_VERSION, PROTOCOL_VERSION, SESSION_ID, SKILLS};

/// How long a silent upstream is given to answer `server/discover` before the handshake is tried.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an upstream may take over the level of its log messages.
const SET_LEVEL_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long a failure answers those who waited behind it, so that a dead upstream is not asked once per waiter.
const FAILURE_LIFE: Duration = Duration::from_secs(1);
/// The code of the error that lists the versions which an upstream speaks.
const UNSUPPORTED_VERSION: i64 = -32022;
/// The handshake's last word.
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
/// Longest session id that is taken.
const SESSION_ID_BYTES_MAX: usize = 4 * 1024;

/// What was agreed on with an upstream.
pub(super) struct Agreement {
    spoken: Spoken,
    /// What the upstream says that it has.
    pub(super) capabilities: Capabilities,
    /// The stream that a session has of its own.
    own: Own,
    /// What its listeners subscribed to in a session.
    pub(super) subscribed: Subscribed,
    /// Ends the session, if there is one that is not a stream.
    pub(super) end: Option<SessionEnd>,
}

enum Spoken {
    /// No state: each request stands alone.
    Modern,
    /// A handshake was done, and perhaps a session begun.
    Legacy { version: &'static str, session: Option<HeaderValue> },
    /// The same in the transport of 2024-11-05: the session is a stream.
    OldSse { version: &'static str, session: Arc<old_sse::Session> },
}

/// What an upstream says that it has, as far as it matters to us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each says whether the upstream has one thing")]
pub(super) struct Capabilities {
    pub(super) prompts: bool,
    pub(super) resources: bool,
    pub(super) skills: bool,
    pub(super) logging: bool,
    /// It tells when a resource changes, of whoever subscribed.
    pub(super) subscriptions: bool,
    /// It tells when a list of its own changes.
    pub(super) tells_of_lists: bool,
}

/// A negotiation that failed a moment ago.
#[derive(Debug)]
pub(super) struct Failure {
    at: Instant,
    /// The access token that was shown. Another one may be taken.
    issue: Option<u64>,
    error: UpstreamError,
}

impl Agreement {
    /// One in the transport of 2024-11-05.
    pub(super) fn in_stream(
        (version, capabilities): (&'static str, Capabilities),
        session: Arc<old_sse::Session>,
    ) -> Self {
        Self::new(Spoken::OldSse { version, session }, capabilities)
    }

    fn new(spoken: Spoken, capabilities: Capabilities) -> Self {
        Self { spoken, capabilities, own: Own::default(), subscribed: Subscribed::default(), end: None }
    }

    pub(super) fn is_modern(&self) -> bool {
        matches!(self.spoken, Spoken::Modern)
    }

    pub(super) fn version(&self) -> &'static str {
        match self.spoken {
            Spoken::Modern => MODERN_VERSION,
            Spoken::Legacy { version, .. } | Spoken::OldSse { version, .. } => version,
        }
    }

    pub(super) fn has_session(&self) -> bool {
        matches!(self.spoken, Spoken::Legacy { session: Some(_), .. } | Spoken::OldSse { .. })
    }

    /// Whether there is a way in which the upstream could tell of changes.
    pub(super) fn can_be_heard(&self) -> bool {
        self.is_modern() || self.has_session()
    }

    /// The session that is a stream.
    pub(super) fn old_sse(&self) -> Option<&Arc<old_sse::Session>> {
        let Spoken::OldSse { session, .. } = &self.spoken else { return None };
        Some(session)
    }

    /// The session's id.
    pub(super) fn session(&self) -> Option<&str> {
        let Spoken::Legacy { session: Some(id), .. } = &self.spoken else { return None };
        id.to_str().ok()
    }

    /// What comes for call `id` in the stream that the session has of its own, if that is read.
    pub(super) fn join(&self, id: u64) -> Option<Beside> {
        self.own.join(id)
    }

    /// The stream that the session has of its own, if the upstream has one.
    pub(super) async fn own_stream(
        &self,
        line: &Arc<Line>,
        credential: &Arc<Credential>,
        deadline: Instant,
    ) -> Option<Arc<OwnStream>> {
        let named = (self.headers(&Rpc::new("")), self.session());
        self.own.open(line, credential, named, deadline).await
    }

    /// The protocol's headers for `rpc`.
    pub(super) fn headers(&self, rpc: &Rpc<'_>) -> HeaderMap {
        match &self.spoken {
            Spoken::Modern => rpc.modern_headers(),
            Spoken::Legacy { version, session } => {
                let mut headers = HeaderMap::new();
                headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(version));
                if let Some(session) = session {
                    headers.insert(SESSION_ID, session.clone());
                }
                headers
            }
            // It is older than all headers of the protocol.
            Spoken::OldSse { .. } => HeaderMap::new(),
        }
    }
}

/// The agreement with the link's upstream: the one that stands, or a new one. However many wait, one negotiates.
pub(super) async fn agreement(
    link: &Link,
    credential: &Arc<Credential>,
    deadline: Instant,
) -> Result<Arc<Agreement>, UpstreamError> {
    match link.agreed.load_full() {
        Some(agreement) => Ok(agreement),
        None => Box::pin(new_agreement(link, credential, deadline)).await,
    }
}

async fn new_agreement(
    link: &Link,
    credential: &Arc<Credential>,
    deadline: Instant,
) -> Result<Arc<Agreement>, UpstreamError> {
    let turn = tokio::time::timeout_at(deadline, link.negotiation.lock()).await;
    let mut failure = turn.map_err(|_| UpstreamError::TimedOut)?;
    if let Some(agreement) = link.agreed.load_full() {
        return Ok(agreement);
    }
    let is_same = |failure: &&Failure| failure.issue == credential.issue && failure.at.elapsed() < FAILURE_LIFE;
    if let Some(failure) = failure.as_ref().filter(is_same) {
        return Err(failure.error.clone());
    }
    match negotiate(link, credential, deadline).await {
        Ok(agreement) => {
            tracing::info!(
                upstream.id = %link.upstream().id, version = agreement.version(), session = agreement.has_session(),
                "agreed on a protocol version"
            );
            let agreement = Arc::new(agreement);
            link.agreed.store(Some(Arc::clone(&agreement)));
            *failure = None;
            Ok(agreement)
        }
        Err(error) => {
            *failure = Some(Failure { at: Instant::now(), issue: credential.issue, error: error.clone() });
            Err(error)
        }
    }
}

async fn negotiate(link: &Link, credential: &Arc<Credential>, deadline: Instant) -> Result<Agreement, UpstreamError> {
    let discover_deadline = deadline.min(Instant::now() + DISCOVER_TIMEOUT);
    match discover(link, credential, discover_deadline).await {
        Ok(Some(capabilities)) => Ok(Agreement::new(Spoken::Modern, capabilities)),
        // Refusal and silence of the network will not change by asking in another way.
        Err(
            error @ (UpstreamError::Unreachable
            | UpstreamError::Forbidden
            | UpstreamError::CredentialRefused
            | UpstreamError::Unauthorized),
        ) => Err(error),
        Ok(None) | Err(_) => handshake(link, credential, deadline.min(Instant::now() + HANDSHAKE_TIMEOUT)).await,
    }
}

/// What the upstream has, if it lists the modern version.
async fn discover(
    link: &Link,
    credential: &Credential,
    deadline: Instant,
) -> Result<Option<Capabilities>, UpstreamError> {
    let mut answer = ask_what_it_is(link, credential, deadline).await?;
    // Whoever refuses a version and names it among those that it speaks is to be asked once more.
    if matches!(&answer, Answer::Error(error) if refuses_and_lists_modern(error)) {
        answer = ask_what_it_is(link, credential, deadline).await?;
    }
    let Answer::Result(result) = answer else { return Ok(None) };
    let Ok(members) = Members::parse(result.get()) else { return Ok(None) };
    Ok(lists_modern(&members, "supportedVersions").then(|| Capabilities::of(&members)))
}

async fn ask_what_it_is(link: &Link, credential: &Credential, deadline: Instant) -> Result<Answer, UpstreamError> {
    let rpc = Rpc::new("server/discover");
    let id = link.next_id();
    let response = link.post(credential, rpc.modern_headers(), rpc.body(id, true), deadline).await?;
    answer(response, id, deadline).await
}

fn refuses_and_lists_modern(error: &RawValue) -> bool {
    let data = Members::parse(error.get()).ok().and_then(|error| Members::parse(error.get("data")?.get()).ok());
    error_code(error) == Some(UNSUPPORTED_VERSION) && data.is_some_and(|data| lists_modern(&data, "supported"))
}

/// Whether the modern version is in the list `key`.
fn lists_modern(members: &Members<'_>, key: &str) -> bool {
    let versions = members.get(key).and_then(|versions| serde_json::from_str::<Vec<String>>(versions.get()).ok());
    versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN_VERSION))
}

impl Capabilities {
    /// What the result of a `server/discover` or `initialize` says.
    fn of(result: &Members<'_>) -> Self {
        let said = result.get("capabilities").and_then(|said| Members::parse(said.get()).ok());
        let get = |name: &str| said.as_ref().and_then(|said| said.get(name));
        let has = |name: &str| get(name).is_some_and(json::is_object);
        let tells = |name: &str, of: &str| json::member(get(name), of).is_some_and(|raw| raw.get() == "true");
        Self {
            prompts: has("prompts"),
            resources: has("resources"),
            skills: json::member(get("extensions"), SKILLS).is_some_and(json::is_object),
            logging: has("logging"),
            subscriptions: tells("resources", "subscribe"),
            tells_of_lists: ["tools", "prompts", "resources"].into_iter().any(|name| tells(name, "listChanged")),
        }
    }
}

/// `initialize` and `notifications/initialized`. What is declared is what the one client can do that the session is for; a session that
/// is shared by several callers is for none, and cannot ask any of them for something.
async fn handshake(link: &Link, credential: &Arc<Credential>, deadline: Instant) -> Result<Agreement, UpstreamError> {
    let id = link.next_id();
    let response =
        link.post(credential, HeaderMap::new(), initialize(link.peer().can).body(id, false), deadline).await?;
    let status = response.status();
    let mut session = response.headers().get(SESSION_ID).filter(|id| id.len() <= SESSION_ID_BYTES_MAX).cloned();
    // Who knows it may be all that the upstream asks for.
    if let Some(id) = &mut session {
        id.set_sensitive(true);
    }
    let (version, capabilities) = match answer(response, id, deadline).await.and_then(chosen) {
        Err(refused) if old_sse::is_hinted_at_by(status) => {
            return old_sse::agree(link, credential, refused, deadline).await;
        }
        chosen => chosen?,
    };
    let mut agreement = Agreement::new(Spoken::Legacy { version, session }, capabilities);
    let headers = agreement.headers(&Rpc::new("notifications/initialized"));
    agreement.end = agreement.has_session().then(|| SessionEnd::new(link.line(), headers.clone(), credential));
    let accepted = link.post(credential, headers, INITIALIZED.to_owned(), deadline).await?;
    if !accepted.status().is_success() {
        return Err(UpstreamError::Status(accepted.status().as_u16()));
    }
    if agreement.has_session() && !link.peer().can.is_nothing() {
        let deadline = deadline.min(Instant::now() + own_stream::BEGIN_TIMEOUT);
        agreement.own_stream(link.line(), credential, deadline).await;
    }
    if let Some(level) = link.peer().log.filter(|_| agreement.has_session() && agreement.capabilities.logging) {
        set_log_level(link, credential, (&agreement, level), deadline.min(Instant::now() + SET_LEVEL_TIMEOUT)).await?;
    }
    Ok(agreement)
}

/// The handshake's request, for a client that can do that.
pub(super) fn initialize(can: ClientCapabilities) -> Rpc<'static> {
    let params = format!(
        "\"protocolVersion\":{},\"capabilities\":{{{}}},\"clientInfo\":{}",
        json::quote(LEGACY_VERSION),
        can.members(),
        client_info()
    );
    Rpc { params, ..Rpc::new("initialize") }
}

/// What the upstream chose in the handshake, and has.
pub(super) fn chosen(answer: Answer) -> Result<(&'static str, Capabilities), UpstreamError> {
    let Answer::Result(result) = answer else { return Err(UpstreamError::NoCommonVersion) };
    let members = Members::parse(result.get()).map_err(|_| UpstreamError::NotMcp)?;
    let chosen = members.get_str("protocolVersion").ok_or(UpstreamError::NotMcp)?;
    let version = LEGACY_VERSIONS.iter().find(|version| **version == chosen).ok_or(UpstreamError::NoCommonVersion)?;
    Ok((version, Capabilities::of(&members)))
}

/// Says from which level on log messages are wanted. An upstream that refuses sends what it likes, and that is filtered.
async fn set_log_level(
    link: &Link,
    credential: &Credential,
    (agreement, level): (&Agreement, LogLevel),
    deadline: Instant,
) -> Result<(), UpstreamError> {
    let params = format!("\"level\":\"{}\"", level.as_str());
    let rpc = Rpc { params, ..Rpc::new("logging/setLevel") };
    let id = link.next_id();
    let response = link.post(credential, agreement.headers(&rpc), rpc.body(id, false), deadline).await?;
    match answer(response, id, deadline).await {
        Err(error @ (UpstreamError::Unauthorized | UpstreamError::CredentialRefused)) => Err(error),
        _ => Ok(()),
    }
}

/// The answer to request `id`, whether it comes as JSON or as the last event of a stream.
async fn answer(response: Response, id: u64, deadline: Instant) -> Result<Answer, UpstreamError> {
    let status = response.status();
    if let Some(refusal) = refusal(status) {
        return Err(refusal);
    }
    if is_events(&response) && status.is_success() {
        return answer_in(&mut events(response), id, deadline).await;
    }
    let body = whole(response, ANSWER_BYTES_MAX, deadline).await?;
    parse_answer(&body, id)
        .map_err(|error| if status.is_success() { error } else { UpstreamError::Status(status.as_u16()) })
}

/// Reads `events` up to the answer to request `id`; everything before it is passed over.
pub(super) async fn answer_in(events: &mut EventStream, id: u64, deadline: Instant) -> Result<Answer, UpstreamError> {
    loop {
        let next = tokio::time::timeout_at(deadline, events.next()).await.map_err(|_| UpstreamError::TimedOut)?;
        let event = next.ok_or(UpstreamError::BrokeOff)??;
        let is_message = Members::parse(&event.0).is_ok_and(|message| message.get("method").is_some());
        if !is_message && !event.0.is_empty() {
            return parse_answer(event.0.as_bytes(), id);
        }
    }
}
