//! The authorization endpoint: code flow with PKCE only (OAuth 2.1 §4.1, RFC 7636).

use std::time::Duration;

use axum::extract::{Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use url::Url;

use super::token::{Code, Grant};
use super::{AuthorizationServer, keep, random};
use crate::dev::people::PEOPLE;

/// For how long a code can be redeemed.
const CODE_LIFETIME: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
pub(super) struct Parameters {
    client_id: String,
    redirect_uri: String,
    response_type: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    state: Option<String>,
    scope: Option<String>,
    nonce: Option<String>,
    resource: Option<String>,
    /// Skips the page: one of the people.
    login_hint: Option<String>,
}

/// `GET /authorize`
pub(super) async fn authorize(
    State(server): State<AuthorizationServer>,
    RawQuery(query): RawQuery,
    Query(parameters): Query<Parameters>,
) -> Response {
    let known = server.kept.lock().ok().and_then(|kept| kept.clients.get(&parameters.client_id).cloned());
    // Nobody is sent to an address that no client registered, not even with an error.
    let Some(redirect) = known.and_then(|client| client.redirect(&parameters.redirect_uri)) else {
        return (StatusCode::BAD_REQUEST, "unknown client, or an address that it did not register").into_response();
    };
    match answer(&server, &parameters) {
        Ok(Some(code)) => back(&server, redirect, &parameters, ("code", &code)),
        Ok(None) => page(&query.unwrap_or_default()).into_response(),
        Err(error) => back(&server, redirect, &parameters, ("error", error)),
    }
}

/// A code for the person that was picked; `None` if nobody was picked yet.
fn answer(server: &AuthorizationServer, parameters: &Parameters) -> Result<Option<String>, &'static str> {
    if parameters.response_type.as_deref() != Some("code") {
        return Err("unsupported_response_type");
    }
    let challenge =
        parameters.code_challenge.clone().filter(|_| parameters.code_challenge_method.as_deref() == Some("S256"));
    let challenge = challenge.ok_or("invalid_request")?;
    let resource = match &parameters.resource {
        Some(resource) => server.resources.iter().find(|known| *known == resource),
        None => server.resources.first(),
    };
    let resource = resource.ok_or("invalid_target")?.clone();
    let Some(name) = &parameters.login_hint else { return Ok(None) };
    let person = PEOPLE.iter().find(|person| person.name == name).ok_or("access_denied")?;
    let code = random();
    let grant = Grant {
        person,
        resource,
        client_id: parameters.client_id.clone(),
        scope: parameters.scope.clone().unwrap_or_default(),
        nonce: parameters.nonce.clone(),
    };
    let redirect_uri = parameters.redirect_uri.clone();
    let expires_at = server.now().plus(CODE_LIFETIME);
    let kept = server.kept.lock().is_ok_and(|mut kept| {
        let now = server.now();
        kept.codes.retain(|_, code| now < code.expires_at);
        keep(&mut kept.codes, code.clone(), Code { grant, challenge, redirect_uri, expires_at })
    });
    if kept { Ok(Some(code)) } else { Err("temporarily_unavailable") }
}

fn back(server: &AuthorizationServer, mut to: Url, parameters: &Parameters, (name, value): (&str, &str)) -> Response {
    to.query_pairs_mut().append_pair(name, value).append_pair("iss", &server.issuer);
    if let Some(state) = &parameters.state {
        to.query_pairs_mut().append_pair("state", state);
    }
    Redirect::to(to.as_str()).into_response()
}

/// One link for each of the people, which asks again with a `login_hint`.
fn page(query: &str) -> Html<String> {
    let query = escaped(query);
    let links = PEOPLE.iter().map(|person| {
        let groups = if person.groups.is_empty() { "no groups".to_owned() } else { person.groups.join(", ") };
        format!(
            r#"<li><a href="/authorize?{query}&amp;login_hint={}">{}</a> ({groups})</li>"#,
            person.name, person.full_name
        )
    });
    Html(format!(
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign in to mcp-mux dev</title>
<h1>Who are you?</h1><p>This sign-in is for trying mcp-mux on this machine: nobody needs a password.</p><ul>{}</ul></html>"#,
        links.collect::<Vec<_>>().join("\n")
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
