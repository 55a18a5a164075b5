//! APIs that an OpenAPI document (3.0 or 3.1) describes, as upstreams: operations become tools, and calls become HTTP requests.
//!
//! The document is somebody's word. It says what can be asked and how, within bounds, and never where: requests go to the address
//! that the operator configured and nowhere else. What an argument says stays in the place that was made for it.

mod api;
mod body;
mod check;
mod document;
mod encode;
mod held;
mod naming;
mod operation;
mod parameter;
mod request;
mod reserved;
mod response;
mod schema;
mod template;
#[cfg(test)]
mod tests;
mod tool;

use serde_json::value::RawValue;
use tokio::time::Instant;

use self::operation::Operation;
use super::answer::{Answer, parse_answer};
use super::credential::Credential;
use super::error::UpstreamError;
use super::link::Link;
use super::redact::Redactor;
use super::request::Rpc;
use crate::json::Members;

pub(crate) use document::DocumentError;
pub(super) use held::Described;

/// What a method is answered with that an API has nothing for: JSON-RPC's "method not found".
const NO_SUCH_METHOD: &str = r#"{"code":-32601,"message":"an API that an OpenAPI document describes has tools only"}"#;
/// The id of messages that nobody sends.
const NO_ID: u64 = 0;

/// Answers `rpc` as an MCP server would that had the operations of the link's API as tools.
pub(super) async fn answer(
    link: &Link,
    credential: &Credential,
    rpc: &Rpc<'_>,
    deadline: Instant,
) -> Result<Answer, UpstreamError> {
    let redactor = Redactor::new(credential, None, &rpc.params, link.line());
    let result = match rpc.method {
        "tools/list" => held::fetched(link, credential, (&rpc.trace, deadline)).await?.listing(),
        "tools/call" => call(link, credential, (rpc, &redactor), deadline).await?,
        _ => {
            let error = RawValue::from_string(NO_SUCH_METHOD.to_owned());
            return error.map(Answer::Error).map_err(|_| UpstreamError::Setup);
        }
    };
    let message = format!("{{\"jsonrpc\":\"2.0\",\"id\":{NO_ID},\"result\":{result}}}");
    let redacted = redactor.redacted(message.as_bytes());
    parse_answer(redacted.as_ref().unwrap_or(&message).as_bytes(), NO_ID)
}

/// Calls a tool. What is wrong with its arguments is said in its result, where a model reads it.
///
/// The operation must be the one that was listed, with the same method and path: grants were judged by that one.
async fn call(
    link: &Link,
    credential: &Credential,
    (rpc, redactor): (&Rpc<'_>, &Redactor),
    deadline: Instant,
) -> Result<String, UpstreamError> {
    let name = rpc.name.ok_or(UpstreamError::OperationGone)?;
    let api = held::known(link, credential, (&rpc.trace, deadline)).await?;
    let listed = rpc.definition.and_then(tool::operation_of);
    let is_listed = |operation: &&Operation| listed.as_deref() == Some(operation.mark.as_str());
    let operation = api.operation(name).filter(is_listed).ok_or(UpstreamError::OperationGone)?;
    let params = format!("{{{}}}", rpc.params);
    let params = Members::parse(&params).map_err(|_| UpstreamError::Setup)?;
    let nothing = RawValue::from_string("{}".to_owned()).map_err(|_| UpstreamError::Setup)?;
    let arguments = params.get("arguments").unwrap_or(&nothing);
    let mut outgoing = match request::build(&api, operation, &link.upstream().spec.url, arguments) {
        Ok(outgoing) => outgoing,
        Err(sentence) => return Ok(response::refused(&sentence)),
    };
    // Whatever an argument of that name says.
    outgoing.headers.extend(rpc.trace.headers());
    rpc.goes();
    let response = link.line().send(credential, outgoing, deadline).await?;
    response::read(response, redactor, (rpc, deadline)).await
}
