//! Fields of servers that mean nothing here: what each was for, and what there is instead.

use super::Draft;
use super::source::Fields;

/// A field, why it is not carried over, and what to do instead.
const LEFT_OUT: &[(&[&str], &str, &str)] = &[
    (
        &["description", "note", "name"],
        "is a text for people",
        "nothing: clients are told what upstreams say of themselves",
    ),
    (
        &["autoApprove", "alwaysAllow", "trust"],
        "is for a client that asks before each call",
        "grants and `classes` say who may call what; whether to ask stays with the client",
    ),
    (
        &["timeout", "options", "idleTimeoutMs", "connection_timeout"],
        "is in seconds here and in milliseconds there",
        "set `timeout` of the upstream (`30s`, `2m`) where the default of a minute does not do",
    ),
    (
        &["oauth", "oauth_client_info", "auth"],
        "is how one account signs in for all",
        "`auth: account` lets each caller connect an account of their own (docs/accounts.md), `auth: clientCredentials` one of the tenant",
    ),
    (
        &["passthroughHeaders", "client_header_forwarding", "forwardHeaders"],
        "hands a caller's headers on, and mcp-mux never does",
        "`auth: tokenExchange` or `auth: account` (docs/credentials.md)",
    ),
    (
        &["owner", "visibility", "sharedWithUsers", "user_id"],
        "says who sees the server",
        "grants say that; give a company of its own a tenant of its own",
    ),
    (&["prompts", "resources"], "switches prompts or resources off", "deny them by pattern in a grant"),
    (&["proxy"], "is a proxy for a program", "set it where the bridge runs; mcp-mux itself connects directly"),
    (
        &["envFile"],
        "is a file with variables for a program",
        "give the bridge that file, and hand names on with `--env`",
    ),
    (
        &[
            "enableKeepAlive",
            "keepAliveInterval",
            "perSessionClient",
            "startOnDemand",
            "restart",
            "gallery",
            "version",
            "dev",
            "sandboxEnabled",
            "sandbox",
            "headersHelper",
            "cwd",
            "env",
            "args",
            "command",
            "url",
            "headers",
            "openapi",
        ],
        "has no meaning for this upstream here",
        "nothing",
    ),
];

/// Says of all fields that nobody took why they are left out.
pub(super) fn note(draft: &mut Draft<'_>, fields: Fields<'_>) {
    for (name, field) in fields.rest() {
        let known = LEFT_OUT.iter().find(|(names, ..)| names.contains(&name));
        match known {
            Some((_, why, instead)) => draft.note(field.name(), *why, *instead),
            None => draft.note(field.name(), "is unknown to this import", "see whether the upstream needs it"),
        }
    }
}
