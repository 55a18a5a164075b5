//! The upstream hop: everything between us and a tenant's own MCP server or API.
//!
//! Requests are built here from nothing: no header of a downstream request is ever looked at in this module, so none can travel
//! on. A credential is opened in the moment in which its header is written. Both eras of the protocol are spoken on the raw
//! path: arguments and results are bytes.

mod account;
mod answer;
mod aws;
mod breaker;
mod credential;
mod error;
mod event_stream;
mod hear;
mod in_flight;
mod link;
mod lists;
mod negotiate;
mod notices;
mod oauth;
mod old_sse;
mod openapi;
mod own_stream;
mod pause;
mod peer;
mod pem;
mod pool;
mod redact;
mod request;
mod resume;
mod secret;
mod session_end;
mod subscribe;

pub use account::{AccountError, AccountPlace, Accounts, Callback, Consent, Flow, HeldAccount};
pub(crate) use answer::{Answer, error_code, is_tool_error, parse_answer};
pub(crate) use credential::{Proofs, lister};
pub(crate) use error::UpstreamError;
pub(crate) use event_stream::Event;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use event_stream::read_events;
pub(crate) use hear::{Told, hear};
pub(crate) use in_flight::Load;
pub(crate) use link::{Link, Reply, Running, Streaming};
pub(crate) use lists::{DEFINITION_BYTES_MAX, ListKind, list};
pub(crate) use notices::{Notice, is_part};
pub(crate) use oauth::OAuthError;
pub(crate) use pause::Pause;
pub(crate) use peer::{ClientCapabilities, LogLevel, Peer, knows};
pub(crate) use pem::check_ca;
pub(crate) use pool::Pool;
pub(crate) use redact::SECRET_BYTES_MIN;
pub(crate) use request::{Lane, Rpc, Trace};
pub(crate) use secret::check_secret;
pub(crate) use subscribe::{Subscription, Topics};
