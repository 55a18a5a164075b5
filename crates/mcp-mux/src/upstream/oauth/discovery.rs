//! An authorization server's metadata (RFC 8414, OpenID Connect Discovery 1.0): where its token endpoint is.

use serde::Deserialize;
use tenant_store::OAuthIssuer;
use url::Url;

use super::error::OAuthError;
use super::server::{Http, Status};

/// What we need of the metadata.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    token_endpoint: Url,
}

/// The token endpoint of `issuer`. Its metadata must name the same issuer, character by character, and may not lead from https to
/// anything less.
pub(super) async fn token_endpoint(http: &Http, issuer: &OAuthIssuer) -> Result<Url, OAuthError> {
    for address in addresses(issuer).ok_or(OAuthError::NotDiscovered)? {
        let (status, body) = http.get(address).await?;
        match status {
            Status::Ok => return read(&body, issuer),
            Status::Failing => return Err(OAuthError::Unavailable),
            Status::Refused => {}
        }
    }
    Err(OAuthError::NotDiscovered)
}

fn read(body: &[u8], issuer: &OAuthIssuer) -> Result<Url, OAuthError> {
    let metadata: Metadata = serde_json::from_slice(body).map_err(|_| OAuthError::NotDiscovered)?;
    let is_protected = metadata.token_endpoint.scheme() == "https" || issuer.as_str().starts_with("http://");
    let is_web = matches!(metadata.token_endpoint.scheme(), "https" | "http");
    if metadata.issuer == issuer.as_str() && is_protected && is_web {
        Ok(metadata.token_endpoint)
    } else {
        Err(OAuthError::NotDiscovered)
    }
}

/// Where metadata may be: between host and path as RFC 8414 §3 has it, and behind the path as OpenID Connect has it.
fn addresses(issuer: &OAuthIssuer) -> Option<[Url; 2]> {
    let url = Url::parse(issuer.as_str()).ok()?;
    let path = url.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = url.clone();
        url.set_path(&path);
        url
    };
    Some([
        at(format!("/.well-known/oauth-authorization-server{path}")),
        at(format!("{path}/.well-known/openid-configuration")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_specifications_say() {
        let found = |issuer: &str| addresses(&issuer.parse().unwrap()).unwrap().map(String::from);
        assert_eq!(
            found("https://as.example"),
            [
                "https://as.example/.well-known/oauth-authorization-server",
                "https://as.example/.well-known/openid-configuration"
            ]
        );
        assert_eq!(
            found("https://as.example/realms/acme/"),
            [
                "https://as.example/.well-known/oauth-authorization-server/realms/acme",
                "https://as.example/realms/acme/.well-known/openid-configuration"
            ]
        );
    }

    #[test]
    fn metadata_of_another_issuer_or_without_protection_is_refused() {
        let read = |issuer: &str, text: &str| read(text.as_bytes(), &issuer.parse().unwrap()).map(String::from);
        let good = r#"{"issuer":"https://as.example","token_endpoint":"https://tokens.example/t"}"#;
        assert_eq!(read("https://as.example", good).unwrap(), "https://tokens.example/t");
        for (issuer, text) in [
            ("https://as.example/", good),
            ("https://evil.example", good),
            ("https://as.example", r#"{"issuer":"https://as.example","token_endpoint":"http://tokens.example/t"}"#),
            ("http://as.example", r#"{"issuer":"http://as.example","token_endpoint":"file:///t"}"#),
            ("https://as.example", r#"{"issuer":"https://as.example"}"#),
            ("https://as.example", "<html>"),
        ] {
            assert_eq!(read(issuer, text), Err(OAuthError::NotDiscovered), "{issuer} {text}");
        }
    }
}
