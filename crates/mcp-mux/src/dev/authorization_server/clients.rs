//! Clients and where they may be sent back to (RFC 7591, RFC 8252).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Host, Url};

use super::{AuthorizationServer, keep, random};

/// Most redirect addresses of one client.
const REDIRECTS_MAX: usize = 10;
/// Schemes without a dot that editors use for themselves.
const EDITOR_SCHEMES: [&str; 3] = ["cursor", "vscode", "vscode-insiders"];

/// A registered client.
#[derive(Clone)]
pub(super) struct Client {
    redirects: Vec<Url>,
    /// Only confidential clients have one.
    pub(super) secret: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Registration {
    redirect_uris: Vec<Url>,
    client_name: Option<String>,
    token_endpoint_auth_method: Option<String>,
}

/// `POST /register`
pub(super) async fn register(
    State(server): State<AuthorizationServer>,
    Json(registration): Json<Registration>,
) -> (StatusCode, Json<Value>) {
    let redirects = registration.redirect_uris;
    if redirects.is_empty() || redirects.len() > REDIRECTS_MAX || !redirects.iter().all(is_acceptable) {
        let error = json!({
            "error": "invalid_redirect_uri",
            "error_description": "redirect addresses are https, http on loopback, or a scheme of the client's own",
        });
        return (StatusCode::BAD_REQUEST, Json(error));
    }
    let method = registration.token_endpoint_auth_method.unwrap_or_else(|| "none".to_owned());
    let client_id = random();
    let secret = (method != "none").then(random);
    let mut answer = json!({
        "client_id": client_id,
        "client_id_issued_at": server.now().as_millis() / 1_000,
        "client_name": registration.client_name,
        "redirect_uris": redirects,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
    });
    if let (Some(secret), Some(answer)) = (&secret, answer.as_object_mut()) {
        answer.insert("client_secret".to_owned(), json!(secret));
        answer.insert("client_secret_expires_at".to_owned(), json!(0));
    }
    let kept =
        server.kept.lock().is_ok_and(|mut kept| keep(&mut kept.clients, client_id, Client { redirects, secret }));
    if kept {
        (StatusCode::CREATED, Json(answer))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "temporarily_unavailable" })))
    }
}

impl Client {
    /// The address, if it was registered. On loopback any port will do (RFC 8252 §7.3).
    pub(super) fn redirect(&self, wanted: &str) -> Option<Url> {
        let url = Url::parse(wanted).ok()?;
        let same = |known: &&Url| **known == url || (is_loopback(known) && without_port(known) == without_port(&url));
        self.redirects.iter().find(same)?;
        Some(url)
    }
}

fn is_acceptable(url: &Url) -> bool {
    let own = url.scheme().contains('.') || EDITOR_SCHEMES.contains(&url.scheme());
    url.fragment().is_none() && (url.scheme() == "https" || is_loopback(url) || own)
}

fn is_loopback(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && here && url.username().is_empty() && url.password().is_none()
}

fn without_port(url: &Url) -> Url {
    let mut url = url.clone();
    // Only addresses without a host refuse, and they have no port either.
    if url.set_port(None).is_err() {
        return url;
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_belong_to_the_client_can_be_registered() {
        for (url, accepted) in [
            ("https://claude.ai/api/mcp/auth_callback", true),
            ("http://127.0.0.1:33418/", true),
            ("http://localhost/callback", true),
            ("cursor://anysphere.cursor-mcp/oauth/callback", true),
            ("com.example.app:/callback", true),
            ("http://evil.example.com/", false),
            ("http://127.0.0.1.evil.example.com/", false),
            ("http://127.0.0.1@evil.example.com/", false),
            ("https://example.com/#fragment", false),
            ("javascript:alert(1)", false),
            ("data:text/html,x", false),
            ("file:///etc/passwd", false),
        ] {
            assert_eq!(is_acceptable(&Url::parse(url).unwrap()), accepted, "{url}");
        }
    }

    #[test]
    fn a_redirect_is_the_registered_one_but_for_a_loopback_port() {
        let redirects = ["https://example.com/cb", "http://127.0.0.1/cb"].map(|url| Url::parse(url).unwrap()).to_vec();
        let client = Client { redirects, secret: None };
        assert!(client.redirect("https://example.com/cb").is_some());
        assert!(client.redirect("http://127.0.0.1:4711/cb").is_some());
        for url in
            ["https://example.com:444/cb", "https://example.com/cb/x", "https://evil.com/cb", "http://127.0.0.1/x"]
        {
            assert!(client.redirect(url).is_none(), "{url}");
        }
    }
}
