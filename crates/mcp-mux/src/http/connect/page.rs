//! Pages: plain HTML without scripts, whose every word from outside is escaped, behind headers that let nothing else in.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Response, StatusCode};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};
use url::Url;

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;\
background:#fff}h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.5rem .75rem .5rem 0;\
border-bottom:1px solid #767676;vertical-align:top}form{display:inline}button{font:inherit;padding:.35rem .9rem;border:1px solid \
#1a1a1a;border-radius:.25rem;background:#fff;color:#1a1a1a;cursor:pointer}a{color:#0b4f9e}a:focus-visible,button:focus-visible\
{outline:3px solid #0b4f9e;outline-offset:2px}@media(prefers-color-scheme:dark){body,button{background:#121212;color:#f0f0f0}\
button{border-color:#f0f0f0}a{color:#8ab8f5}}";

/// HTML, put together piece by piece.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own.
    pub(super) fn raw(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// A text from wherever, escaped for content and for quoted attributes.
    pub(super) fn text(mut self, text: &str) -> Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // What is invisible or turns the direction of a line could make it read otherwise.
                '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                    self.0.push('\u{fffd}');
                }
                c if c.is_control() => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Another piece.
    pub(super) fn then(mut self, other: &Self) -> Self {
        self.0.push_str(&other.0);
        self
    }

    /// A paragraph that says `text`.
    pub(super) fn paragraph(self, text: &str) -> Self {
        self.raw("<p>").text(text).raw("</p>\n")
    }

    /// A link.
    pub(super) fn link(self, href: &str, text: &str) -> Self {
        self.raw("<a href=\"").text(href).raw("\">").text(text).raw("</a>")
    }

    /// A form that is one button, whose name for whoever does not see the page says what it is about.
    pub(super) fn button(self, action: &str, token: &str, (text, about): (&str, &str)) -> Self {
        self.raw("<form method=\"post\" action=\"")
            .text(action)
            .raw("\"><input type=\"hidden\" name=\"token\" value=\"")
            .text(token)
            .raw("\"><button aria-label=\"")
            .text(&format!("{text} {about}"))
            .raw("\">")
            .text(text)
            .raw("</button></form>")
    }

    /// The whole page.
    pub(super) fn page(self, status: StatusCode, title: &str) -> Response<Body> {
        self.page_that_leads_to(status, title, None)
    }

    /// The whole page, from which a browser goes on by itself. That needs no script; and unlike a redirect it is no part of the
    /// submission of a form, which browsers hold to `form-action` on every hop.
    pub(super) fn page_that_leads_to(self, status: StatusCode, title: &str, next: Option<&Url>) -> Response<Body> {
        let mut head = Html::default().raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        head = head.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        if let Some(next) = next {
            head = head.raw("<meta http-equiv=\"refresh\" content=\"0; url=").text(next.as_str()).raw("\">\n");
        }
        let whole = head
            .raw("<title>")
            .text(title)
            .raw(" - mcp-mux</title>\n<style>")
            .raw(STYLE)
            .raw("</style>\n</head>\n<body>\n<main>\n<h1>")
            .text(title)
            .raw("</h1>\n")
            .then(&self)
            .raw("</main>\n</body>\n</html>\n");
        let mut response = Response::new(Body::from(whole.0));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response
    }
}

/// 303 to a path or an address.
pub(super) fn see_other(to: &str) -> Option<Response<Body>> {
    let mut location = HeaderValue::from_str(to).ok()?;
    location.set_sensitive(true);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// What every answer to a browser carries.
pub(super) fn guard(headers: &mut HeaderMap) {
    let style = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    let fixed: [(HeaderName, &'static str); 4] = [
        (CACHE_CONTROL, "no-store"),
        // Not `no-referrer`: under that, browsers send `Origin: null` with our own forms (Fetch §3.1).
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let Html(text) = Html::default().text("<script>\"'&\u{202e}\u{0}</script>");
        assert_eq!(text, "&lt;script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}&lt;/script&gt;");
    }
}
