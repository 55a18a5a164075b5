//! Arguments that are not what their tool asks for are answered here, as a tool would: whoever made them, a model as a rule, can mend them
//! and call again (SEP-1303). The upstream is not asked.

use serde_json::value::RawValue;
use tenant_store::OnArguments;

use super::call::CallError;
use super::wish::{Target, Wish};
use crate::json;
use crate::upstream::Answer;

/// The answer to a call whose arguments do not fit, where they are checked.
pub(super) fn refused(wish: &Wish<'_>, target: &Target<'_>) -> Option<Answer> {
    let (Wish::Tool { name, arguments, .. }, Some(tool)) = (wish, target.tool) else { return None };
    let spec = &target.upstream.spec;
    // What calls an API makes its requests of the arguments, and says itself what is missing.
    if spec.on_arguments == OnArguments::Pass || spec.protocol.document().is_some() {
        return None;
    }
    let faults = tool.arguments.faults(&tool.definition, *arguments);
    if faults.is_empty() {
        return None;
    }
    let mut text = format!("`{name}` was not called, because its arguments are not what its input schema asks for:");
    for fault in faults {
        let at = if fault.at.is_empty() { "the arguments" } else { &fault.at };
        text.extend(["\n- at ", at, ": ", &fault.expected]);
    }
    text.push_str("\nCorrect them and call it again.");
    let text = json::quote(&text);
    let result = format!("{{\"content\":[{{\"type\":\"text\",\"text\":{text}}}],\"isError\":true}}");
    RawValue::from_string(result).ok().map(Answer::Result)
}

/// The parameters of a tool that headers repeat. What the client repeated must be the same.
pub(super) fn repeated_in_headers(wish: &Wish<'_>, target: &Target<'_>) -> Result<Vec<(String, String)>, CallError> {
    let (Wish::Tool { arguments, param_headers, .. }, Some(tool)) = (wish, target.tool) else { return Ok(Vec::new()) };
    let found = tool.definition.param_headers(*arguments).ok_or(CallError::ArgumentTwice)?;
    match param_headers {
        Some(repeated) if *repeated != found.iter().cloned().collect() => Err(CallError::HeaderMismatch),
        _ => Ok(found),
    }
}
