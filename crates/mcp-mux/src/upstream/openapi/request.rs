//! A call of a tool as an HTTP request. Where it goes is the configured address with the operation's path behind it; arguments fill
//! the places that the document names, and nothing else of the request.

use http::header::{ACCEPT, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

use super::api::Api;
use super::check::{check, is_left_out};
use super::encode;
use super::operation::{Argument, Operation};
use super::parameter::{Form, Parameter, ParameterPlace};
use crate::json::Members;
use crate::upstream::request::Outgoing;

/// What is said of a value that has no place in a request.
const HAS_NO_FORM: &str = "cannot be sent: it is too long, nested, or has characters that its place does not take";

/// The request for a call; what is wrong with the arguments is said in a sentence.
pub(super) fn build(api: &Api, operation: &Operation, base: &Url, arguments: &RawValue) -> Result<Outgoing, String> {
    let arguments = Members::parse(arguments.get())
        .map_err(|_| "The arguments must be an object with at most 256 members, each of another name.".to_owned())?;
    check(operation, &arguments)?;
    let given = given(operation, &arguments)?;
    let mut url = base.clone();
    let path = path(api, operation, &given)?;
    let path = format!("{}{path}", base.path().trim_end_matches('/'));
    url.set_path(&path);
    if url.path() != path {
        return Err("The arguments would make another address of the operation's.".to_owned());
    }
    let pairs = encode::query(&query(api, operation, &given)?);
    if !pairs.is_empty() {
        let own = base.query().filter(|query| !query.is_empty());
        url.set_query(Some(&own.map_or_else(|| pairs.clone(), |own| format!("{own}&{pairs}"))));
    }
    let mut headers = headers(&given)?;
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.8"));
    let form_names = operation.body.as_ref().map(|body| body.form_names(&arguments)).unwrap_or_default();
    // Some servers read what is said in a form as if it were said in the address.
    if form_names.iter().any(|name| api.reserved.holds(ParameterPlace::Query, name)) {
        return Err("The body has a member that sets what it may not set.".to_owned());
    }
    let body = operation.body.as_ref().map(|body| body.filled(&arguments)).transpose();
    let body = body.map_err(|argument| format!("The argument `{argument}` {HAS_NO_FORM}."))?.flatten();
    if let (Some(body), true) = (&operation.body, body.is_some()) {
        headers.insert(CONTENT_TYPE, body.media_type.clone());
    }
    Ok(Outgoing { method: operation.method.clone(), url, headers, body: body.unwrap_or_default() })
}

/// The parameters that have a value.
fn given<'o>(operation: &'o Operation, arguments: &Members<'_>) -> Result<Vec<(&'o Parameter, Value)>, String> {
    let mut given = Vec::new();
    for parameter in &operation.parameters {
        let Some(value) = arguments.get(&parameter.argument) else { continue };
        let value = serde_json::from_str(value.get()).map_err(|_| refused(parameter))?;
        let argument =
            Argument { name: &parameter.argument, is_required: parameter.is_required, schema: &parameter.schema };
        if !is_left_out(argument, &value) {
            given.push((parameter, value));
        }
    }
    Ok(given)
}

/// The operation's path. It must not be that of another operation too: `/users/{id}` does not become `/users/me`.
fn path(api: &Api, operation: &Operation, given: &[(&Parameter, Value)]) -> Result<String, String> {
    let value = |hole: &str| {
        let is_it = |parameter: &Parameter| parameter.place == ParameterPlace::Path && parameter.name == hole;
        let (parameter, value) = given.iter().find(|(parameter, _)| is_it(parameter))?;
        encode::text(value, parameter.form)
    };
    let filled = operation.template.fill(value).map_err(|hole| {
        let is_it = |parameter: &&Parameter| parameter.place == ParameterPlace::Path && parameter.name == hole;
        let argument = operation.parameters.iter().find(is_it).map_or(hole, |parameter| parameter.argument.as_str());
        format!(
            "The argument `{argument}` must be a single part of a path: not empty, not `.` or `..`, and without `/`, `\\` and \
             control characters, in whatever encoding."
        )
    })?;
    if api.is_of_another(operation, &filled.segments) {
        return Err(
            "The arguments would make this the address of another operation: call that tool instead.".to_owned()
        );
    }
    Ok(filled.path)
}

fn query(api: &Api, operation: &Operation, given: &[(&Parameter, Value)]) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for (parameter, value) in given.iter().filter(|(parameter, _)| parameter.place == ParameterPlace::Query) {
        let own = encode::pairs(parameter, value).ok_or_else(|| refused(parameter))?;
        let is_spread = parameter.form == Form::Exploded && value.is_object();
        // Members of a map become parameters of their own, and may be called whatever the caller likes.
        let is_taken = |name: &str| {
            let is_others = |other: &Parameter| other.place == ParameterPlace::Query && other.name == name;
            api.reserved.holds(ParameterPlace::Query, name) || (is_spread && operation.parameters.iter().any(is_others))
        };
        if own.iter().any(|(name, _)| is_taken(name)) {
            return Err(format!("The argument `{}` has a member that sets what it may not set.", parameter.argument));
        }
        pairs.extend(own);
    }
    Ok(pairs)
}

/// The headers that arguments are sent in, cookies among them.
fn headers(given: &[(&Parameter, Value)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut cookies = Vec::new();
    for (parameter, value) in given {
        let text = || encode::text(value, parameter.form).ok_or_else(|| refused(parameter));
        match parameter.place {
            ParameterPlace::Path | ParameterPlace::Query => {}
            ParameterPlace::Header => {
                let name = HeaderName::from_bytes(parameter.name.as_bytes()).map_err(|_| refused(parameter))?;
                headers.insert(name, encode::header(&text()?).ok_or_else(|| refused(parameter))?);
            }
            ParameterPlace::Cookie => {
                cookies.push(encode::cookie(&parameter.name, &text()?).ok_or_else(|| refused(parameter))?);
            }
        }
    }
    if let Some(value) = (!cookies.is_empty()).then(|| encode::header(&cookies.join("; "))).flatten() {
        headers.insert(COOKIE, value);
    }
    Ok(headers)
}

fn refused(parameter: &Parameter) -> String {
    format!("The argument `{}` {HAS_NO_FORM}.", parameter.argument)
}
