//! The answer to a call that needs an account of the caller's own where none is connected: a link to `/connect`, said in the way that
//! the client understands.
//!
//! Modern clients that declare it are asked to open an address (2026-07-28 `client/elicitation`, URL mode, in an `input_required`
//! result), and call again; legacy ones get the error -32042 with the same in its data (2025-11-25 `client/elicitation`). Everybody
//! else reads a tool error, so that a model can pass the link on. The link holds no ticket: it is harmless in anybody's hands.

use std::collections::HashSet;

use axum::body::Body;
use http::Response;
use serde_json::json;
use tenant_store::{IssuerName, TenantSlug, UpstreamSlug};
use uuid::Uuid;

use super::answer;
use super::envelope::Rpc;
use super::era::Era;
use crate::caller::Caller;
use crate::config::PublicUrl;
use crate::json::{self, Members};
use crate::mux::URL_ELICITATION_REQUIRED;
use crate::upstream::ClientCapabilities;

/// The only request in an `input_required` result of ours.
pub(super) const REQUEST_KEY: &str = "mcp-mux/account";

/// Where people connect accounts, and who can sign in there.
#[derive(Debug, Clone)]
pub struct ConnectLinks {
    public_url: PublicUrl,
    issuers: HashSet<IssuerName>,
}

/// Which account is missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing<'m> {
    pub(super) tenant: &'m TenantSlug,
    pub(super) upstream: &'m UpstreamSlug,
}

impl ConnectLinks {
    /// For principals of `issuers`, at `public_url`.
    pub fn new<'i>(public_url: &PublicUrl, issuers: impl IntoIterator<Item = &'i IssuerName>) -> Self {
        Self { public_url: public_url.clone(), issuers: issuers.into_iter().cloned().collect() }
    }

    /// The answer to the call `rpc` of `caller`.
    pub(super) fn answer(
        &self,
        caller: &Caller,
        (rpc, era): (&Rpc<'_>, Era),
        can: ClientCapabilities,
        missing: Missing<'_>,
    ) -> Response<Body> {
        let Missing { tenant, upstream } = missing;
        let issuer = &caller.principal.issuer;
        if !self.issuers.contains(issuer) {
            let text = format!(
                "upstream `{upstream}` of tenant `{tenant}` is called with your own account there, and you cannot connect one as you \
                 call now: nobody signs in with a browser as a user of `{issuer}`; sign your client in at the company's identity \
                 provider, or ask an operator to set `[issuers.login]` for `{issuer}`"
            );
            return answer::failure(rpc, era, &text);
        }
        let url = self.public_url.join(&format!("/connect/{tenant}/{upstream}"));
        let message = format!(
            "Upstream `{upstream}` of tenant `{tenant}` is called with your own account there, and none of yours is connected. Open \
             the link, connect your account, then call the tool again."
        );
        match (era, can.has_url_elicitation()) {
            (Era::Modern, true) if !is_declined(rpc) => {
                let params = json!({"mode": "url", "message": message, "url": url});
                let requests = json!({REQUEST_KEY: {"method": "elicitation/create", "params": params}});
                answer::result(rpc.id, &json!({"resultType": "input_required", "inputRequests": requests}))
            }
            (Era::Legacy, true) => {
                let id = Uuid::new_v4();
                let elicitation = json!({"mode": "url", "elicitationId": id, "url": url, "message": message});
                let error = json!({
                    "code": URL_ELICITATION_REQUIRED, "message": message, "data": {"elicitations": [elicitation]},
                });
                answer::error(rpc.id, &error)
            }
            _ => answer::failure(rpc, era, &format!("{message} {url}")),
        }
    }
}

/// Whether the user was asked in the same call before and did not want to: then nobody asks again.
fn is_declined(rpc: &Rpc<'_>) -> bool {
    let given = json::member(rpc.params.get("inputResponses"), REQUEST_KEY);
    let action = given.and_then(|given| Members::parse(given.get()).ok()?.get_str("action"));
    action.is_some_and(|action| action != "accept")
}
