//! What is recorded, in the words of the record. There is no field that a secret would fit into, nor an argument or a
//! result that is not sealed.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tenant_store::{ApiKeyId, AuditChain, GrantId, TenantId, Timestamp, UpstreamSlug};

use super::content::{Held, Recorded};
use super::pushed::Pushed;
use super::used::{SecretUsed, Used};
use crate::caller::Caller;
use crate::error::Fault;
use crate::hex;
use crate::policy::{Decision, Reason};

/// How many tenants an event names at most.
pub const TENANTS_NAMED_MAX: usize = 100;
/// Longest name that is recorded, in characters: names at upstreams and of OAuth clients may be long.
const NAME_CHARS_MAX: usize = 512;

/// Something that happened.
#[derive(Debug)]
pub struct Event {
    /// When it began.
    pub at: Timestamp,
    /// Whose it is.
    pub chain: AuditChain,
    /// What.
    pub what: What,
}

impl Event {
    /// The room of what it holds, as long as that waits.
    pub(super) fn held(&self) -> Held {
        match &self.what {
            What::Call(call) => call.recorded.as_ref()?.held.clone(),
            _ => None,
        }
    }
}

/// What happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum What {
    /// A writer began.
    Started {
        /// The version of the program.
        version: &'static str,
        /// What other writers of the platform's chain had signed by then.
        after: Vec<Head>,
    },
    /// Something was asked of an upstream, or refused.
    Call(Box<Call>),
    /// Somebody was shown a list.
    List(List),
    /// Text of one tenant stood in a call to another.
    Flow(Flowed),
    /// Somebody connected an account of their own to an upstream, or ended that.
    Account(Consented),
    /// A credential was used for something that is nobody's call.
    Secret(SecretUsed),
    /// A directory said something new of its users and groups.
    Directory(Pushed),
    /// An operator did something.
    Administration(Administered),
    /// Events are missing: they found no room, or their calls outlived the server.
    Lost {
        /// How many.
        count: u64,
    },
    /// Old events were deleted.
    #[serde(rename_all = "camelCase")]
    Pruned {
        /// Those that had been signed by then.
        before: String,
        /// How many.
        events: u64,
        /// In the records of how many tenants.
        tenant_count: u64,
    },
    /// The writer is over: nothing of it comes behind this, and in tenants' chains nothing behind what it told of them last.
    Ended,
    /// What the writer has signed of tenants' chains.
    Checkpoint {
        /// How far each.
        heads: Vec<Head>,
    },
}

/// How far a chain had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Which chain.
    pub chain: String,
    /// Whose part of it.
    pub writer: String,
    /// The last event.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

/// Who asked.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Who {
    issuer: String,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

/// A call, or what was refused instead.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Who called.
    pub who: Who,
    /// The id of the request, as in the log.
    pub request_id: String,
    /// The method.
    pub method: &'static str,
    /// What was meant.
    #[serde(flatten)]
    pub named: Named,
    /// What was decided.
    #[serde(flatten)]
    pub decided: Decided,
    /// How it went.
    pub outcome: Outcome,
    /// Whose fault it is that an upstream failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// How long it took.
    pub duration_ms: u64,
    /// What the upstream was shown, if it was asked with something. Lines without it stay what they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Arc<Used>>,
    /// What it brought, where the tenant wants that.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// What a call is about.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Named {
    /// What kind of thing.
    pub kind: &'static str,
    /// Whose, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Of which upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamSlug>,
    /// Its name there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name that clients see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed: Option<String>,
    /// SHA-256 of what the caller said, where no list has it: it is the caller's own text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_sha256: Option<String>,
}

/// A decision, and what it rests on.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decided {
    decision: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grants: Vec<GrantId>,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The upstream answered.
    Ok,
    /// The tool said that it failed.
    ToolError,
    /// The upstream answered with an error of the protocol.
    Error,
    /// The upstream wants to know more from the client first.
    WantsInput,
    /// It was not asked.
    Refused,
    /// The upstream failed.
    UpstreamFailure,
    /// Whoever called may do so no more, so that the answer was not given.
    TakenBack,
    /// Nobody waits for the answer any more.
    Gone,
}

/// A page of a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// Who was shown it.
    pub who: Who,
    /// The id of the request, as in the log.
    pub request_id: String,
    /// What was listed.
    pub list: &'static str,
    /// `all` tenants, or one `tenant`.
    pub endpoint: &'static str,
    /// The tenants that the caller reaches there, [`TENANTS_NAMED_MAX`] at most.
    pub tenants: Vec<TenantId>,
    /// How many those are.
    pub tenant_count: usize,
    /// SHA-256 of the definitions, as they were shown.
    pub sha256: String,
}

/// Text of one tenant in a call to another. It is the platform's: neither tenant learns of the other.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flowed {
    /// Who called.
    pub who: Who,
    /// The id of the request, as in the log.
    pub request_id: String,
    /// In whose answers the text was read.
    pub from: Vec<TenantId>,
    /// Whose upstream was called.
    pub to: TenantId,
    /// What the strictest of `from` says.
    pub policy: &'static str,
    /// `logged`, `approved`, `declined`, `blocked`, or `nobodyToAsk`.
    pub became: &'static str,
}

/// What somebody did with an account of their own.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Consented {
    /// Whose account.
    pub who: Who,
    /// The id of the request, as in the log.
    pub request_id: String,
    /// What was done.
    pub action: ConsentAct,
    /// Whose upstream.
    pub tenant: TenantId,
    /// Which.
    pub upstream: UpstreamSlug,
    /// What became of it.
    pub outcome: ConsentOutcome,
}

/// What people do with accounts.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ConsentAct {
    /// The browser is sent to where consent is given.
    Begin,
    /// It came back with it.
    Connect,
    /// The account is not to be used any more.
    Disconnect,
}

/// What becomes of what people do with accounts.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ConsentOutcome {
    /// It is done.
    Done,
    /// It came to nothing.
    Failed,
    /// Whoever asked for it went away: it goes on all the same.
    Gone,
}

/// What an operator did with the command line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Administered {
    /// Who runs the program, as the operating system knows them.
    pub operator: String,
    /// What was done, in the words of the command line.
    pub action: &'static str,
    /// What it was done to, by kind.
    pub kind: &'static str,
    /// And by name.
    pub name: String,
    /// What became of it, where that is not said yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub became: Option<String>,
    /// The state of the configuration since then, where it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

impl Who {
    /// The caller, with what it called through.
    pub fn of(caller: &Caller) -> Self {
        let client = caller.client.as_deref().map(short);
        let is_key = |client: &&str| caller.access_token.is_none() && client.parse::<ApiKeyId>().is_ok();
        let (client, api_key) = match client {
            Some(key) if is_key(&key.as_ref()) => (None, Some(key)),
            client => (client, None),
        };
        Self {
            issuer: caller.principal.issuer.to_string(),
            subject: caller.principal.subject.to_string(),
            client: client.map(Cow::into_owned),
            api_key: api_key.map(Cow::into_owned),
        }
    }
}

impl Named {
    /// Something that no list has, as the caller called it.
    pub fn unknown(kind: &'static str, text: &str) -> Self {
        Self { kind, name_sha256: Some(name_digest(text)), ..Self::default() }
    }

    /// Its name at its upstream.
    #[must_use]
    pub fn called(self, local: &str, exposed: Option<&str>) -> Self {
        let exposed = exposed.map(|exposed| short(exposed).into_owned());
        Self { name: Some(short(local).into_owned()), exposed, ..self }
    }
}

impl Decided {
    /// What policy said.
    pub fn by(decision: &Decision) -> Self {
        let strongest = decision.reasons.iter().max_by_key(|reason| weight(reason, decision.is_allowed()));
        let reason = strongest.map_or("noGrant", word);
        let is_it = |one: &&Reason| strongest.is_some_and(|strongest| word(one) == word(strongest));
        let grants = decision.reasons.iter().filter(is_it).filter_map(grant).collect();
        Self { decision: if decision.is_allowed() { "allow" } else { "deny" }, reason, grants }
    }

    /// There is no such thing.
    pub fn unknown() -> Self {
        Self { decision: "deny", reason: "unknown", grants: Vec::new() }
    }

    /// It may be used, but not at this endpoint, or not as it was asked for.
    pub fn not_here() -> Self {
        Self { decision: "deny", reason: "notHere", grants: Vec::new() }
    }
}

impl Outcome {
    /// A failure of an upstream, by whose fault it is.
    pub fn of_fault(fault: Fault) -> (Self, Option<&'static str>) {
        let outcome = if fault == Fault::Downstream { Self::Refused } else { Self::UpstreamFailure };
        (outcome, Some(fault.as_str()))
    }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes).as_ref())
}

/// What stands for a text that nobody but its caller wrote.
pub fn name_digest(text: &str) -> String {
    sha256(text.as_bytes())
}

fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(NAME_CHARS_MAX) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(text.get(..end).unwrap_or_default().to_owned()),
    }
}

fn word(reason: &Reason) -> &'static str {
    match reason {
        Reason::CallerRevoked => "callerRevoked",
        Reason::NoGrant { .. } => "noGrant",
        Reason::LevelTooLow { .. } => "levelTooLow",
        Reason::NoPatternMatches { .. } => "noPatternMatches",
        Reason::Allowed { .. } => "allowed",
        Reason::Denied { .. } => "denied",
        Reason::Disabled { .. } => "disabled",
        Reason::NotApproved { .. } => "notApproved",
        Reason::Revoked { .. } => "revoked",
    }
}

/// Which of several reasons is named: what refuses whatever else holds, before what only does not allow.
fn weight(reason: &Reason, is_allowed: bool) -> u8 {
    match reason {
        Reason::Allowed { .. } => u8::from(is_allowed) * 10,
        Reason::NoPatternMatches { .. } => 1,
        Reason::LevelTooLow { .. } => 2,
        Reason::NoGrant { .. } | Reason::CallerRevoked => 3,
        Reason::NotApproved { .. } => 4,
        Reason::Disabled { .. } => 5,
        Reason::Denied { .. } => 6,
        Reason::Revoked { .. } => 7,
    }
}

fn grant(reason: &Reason) -> Option<GrantId> {
    match reason {
        Reason::LevelTooLow { grant, .. }
        | Reason::NoPatternMatches { grant }
        | Reason::Allowed { grant, .. }
        | Reason::Denied { grant, .. } => Some(*grant),
        _ => None,
    }
}
