//! What the pages say.

use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Response, StatusCode};
use tenant_store::{IssuerName, Timestamp};
use url::Url;

use super::Visitor;
use super::page::Html;
use crate::auth::LoginError;
use crate::mux::{OwnAccount, OwnAccountError};
use crate::upstream::AccountError;

/// The accounts of somebody.
pub(super) fn list_page(visitor: &Visitor, accounts: &[OwnAccount]) -> Response<Body> {
    let mut page = who(visitor);
    if accounts.is_empty() {
        page = page.paragraph("No upstream whose tools you may call asks for an account of your own.");
        return page.page(StatusCode::OK, "Your accounts");
    }
    page = page.raw(
        "<table>\n<thead><tr><th scope=\"col\">Tenant</th><th scope=\"col\">Upstream</th><th scope=\"col\">Account</th>\
         <th scope=\"col\">Change</th></tr></thead>\n<tbody>\n",
    );
    for account in accounts {
        page = page.raw("<tr><td>").text(&account.tenant_name).raw("</td><th scope=\"row\">");
        page = page.link(&path(account), account.upstream.as_str()).raw("</th><td>").text(&state(account));
        page = change(page.raw("</td><td>"), visitor, account).raw("</td></tr>\n");
    }
    page.raw("</tbody>\n</table>\n").page(StatusCode::OK, "Your accounts")
}

/// One account of somebody.
pub(super) fn account_page(visitor: &Visitor, account: &OwnAccount) -> Response<Body> {
    let title = format!("Your account at {} of {}", account.upstream, account.tenant_name);
    let mut page = who(visitor).paragraph(&format!("{}.", state(account)));
    if account.lists {
        page = page.paragraph(
            "An operator chose this account to list the tools of this upstream for everybody who may use it: which tools there are for \
             you there, and what is said of them, others will read. They are never called with your account but by you.",
        );
    }
    page = if !account.is_offered {
        page.paragraph(
            "This account is not used for calls of yours any more. You may end it, and not connect it again.",
        )
    } else if account.held.as_ref().is_some_and(|held| held.is_usable) {
        page.paragraph(
            "Tools of this upstream are called with this account. You may close this page and call the tool again. If that still says \
             that the account is missing, connect it again.",
        )
    } else {
        let upstream =
            format!("Tools of this upstream are called with an account of your own at {}.", account.upstream);
        page.paragraph(&upstream).paragraph(
            "You sign in there and allow mcp-mux to act as you; mcp-mux keeps what it is given sealed, calls tools with it for you and \
             for nobody else, and never learns your password.",
        )
    };
    page = change(page.raw("<p>"), visitor, account).raw("</p>\n");
    page.raw("<p>").link("/connect", "All your accounts").raw("</p>\n").page(StatusCode::OK, &title)
}

/// On the way to an authorization server. It does not know of tenants and upstreams, so this is the last page that names them.
pub(super) fn left(account: &OwnAccount, to: &Url) -> Response<Body> {
    let (upstream, tenant) = (&account.upstream, &account.tenant_name);
    let title = format!("Connecting your account at {upstream} of {tenant}");
    let host = to.host_str().unwrap_or("another site");
    let page = Html::default().paragraph(&format!(
        "You go on at {host}. What you allow there, mcp-mux may do as you when you call tools of {upstream} of {tenant}."
    ));
    let page = page.raw("<p>").link(to.as_str(), "Go on").raw("</p>\n");
    page.page_that_leads_to(StatusCode::OK, &title, Some(to))
}

/// The identity providers at which people sign in.
pub(super) fn sign_in_page(path: &str, issuers: &[&IssuerName]) -> Response<Body> {
    let mut page = Html::default().paragraph("Where do you sign in?").raw("<ul>\n");
    for issuer in issuers {
        page = page.raw("<li>").link(&format!("{path}?issuer={issuer}"), issuer.as_str()).raw("</li>\n");
    }
    page.raw("</ul>\n").page(StatusCode::OK, "Sign in")
}

/// Nobody signed in.
pub(super) fn failed_login(error: &LoginError) -> Response<Body> {
    tracing::info!(error = error as &dyn std::error::Error, "nobody signed in with a browser");
    let page = Html::default().paragraph(&error.to_string());
    page.raw("<p>").link("/connect", "Begin again").raw("</p>\n").page(error.status(), "Not signed in")
}

/// Nothing was done with an account.
pub(super) fn failed_account(error: &OwnAccountError) -> Response<Body> {
    let cause = match error {
        OwnAccountError::Unknown => return nothing_here(),
        OwnAccountError::Unavailable => &AccountError::Unavailable,
        OwnAccountError::Failed { error, .. } => error,
    };
    tracing::info!(error = error as &dyn std::error::Error, "nothing was done with an account");
    let status = match cause {
        AccountError::OtherFlow | AccountError::TooLate | AccountError::OtherIssuer | AccountError::Declined => {
            StatusCode::FORBIDDEN
        }
        AccountError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    };
    Html::default().paragraph(&error.to_string()).then(&back()).page(status, "That did not work")
}

/// A form or an answer that is not this browser's.
pub(super) fn refused(why: &'static str) -> Response<Body> {
    Html::default().paragraph(why).then(&back()).page(StatusCode::FORBIDDEN, "That did not work")
}

/// The same page for whatever there is not, and for whatever somebody may not know of.
pub(super) fn nothing_here() -> Response<Body> {
    let why = "Either there is no such upstream, or none of its tools is yours to call, or it asks for no account of your own.";
    Html::default().paragraph(why).then(&back()).page(StatusCode::NOT_FOUND, "There is nothing to connect here")
}

fn back() -> Html {
    Html::default().raw("<p>").link("/connect", "All your accounts").raw("</p>\n")
}

fn who(visitor: &Visitor) -> Html {
    let html = Html::default().raw("<p>Signed in as <strong>").text(&visitor.shown).raw("</strong> at ");
    html.text(visitor.issuer.as_str())
        .raw(". ")
        .button("/connect/sign-out", &visitor.token, ("Sign out", "of this site"))
        .raw("</p>\n")
}

fn path(account: &OwnAccount) -> String {
    format!("/connect/{}/{}", account.tenant, account.upstream)
}

fn state(account: &OwnAccount) -> String {
    let Some(held) = &account.held else { return "Not connected".to_owned() };
    let since = format!("Connected since {}", date(held.connected_at));
    if !held.is_usable {
        return format!("{since}, but it cannot be used any more");
    }
    match &held.scope {
        Some(scope) => format!("{since}, for {scope}"),
        None => since,
    }
}

fn change(mut page: Html, visitor: &Visitor, account: &OwnAccount) -> Html {
    let about = format!("your account at {} of {}", account.upstream, account.tenant_name);
    let path = path(account);
    if account.is_offered {
        let word = if account.held.is_some() { "Connect again" } else { "Connect" };
        page = page.button(&path, &visitor.token, (word, &about));
    }
    if account.held.is_some() {
        page = page.raw(" ").button(&format!("{path}/disconnect"), &visitor.token, ("Disconnect", &about));
    }
    page
}

fn date(at: Timestamp) -> String {
    let millis = u64::try_from(at.as_millis()).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(millis))
}
