//! The upstream hop: everything between us and a tenant's own MCP server.
//!
//! Requests are built here from nothing: no header of a downstream request is ever looked at in this module, so none can travel
//! on. A credential is opened in the moment in which its header is written. Both eras of the protocol are spoken on the raw
//! path: arguments and results are bytes.

mod credential;
mod error;
mod event_stream;
mod link;
mod negotiate;
mod pool;
mod redact;
mod request;
mod tool_list;

pub(crate) use error::UpstreamError;
pub(crate) use event_stream::Event;
pub(crate) use link::{Answer, Reply, Streaming, parse_answer};
pub(crate) use pool::Pool;
pub(crate) use request::{Rpc, Trace};
pub(crate) use tool_list::{DEFINITION_BYTES_MAX, list_tools};
