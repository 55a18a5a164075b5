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

/// The token endpoint of `issuer`. Its metadata must name the same issuer, character by character, and an endpoint at the same scheme,
/// host and port: what was stored for the issuer is for nobody whom only a document names.
pub(super) async fn token_endpoint(http: &Http, issuer: &OAuthIssuer) -> Result<Url, OAuthError> {
    let mut failure = OAuthError::NotDiscovered;
    for address in addresses(issuer).ok_or(OAuthError::NotDiscovered)? {
        let (status, body) = http.get(address).await?;
        match status {
            // A page for everything is no metadata; the other address may have some.
            Status::Ok => {
                if let Ok(metadata) = serde_json::from_slice(&body) {
                    return read(metadata, issuer);
                }
            }
            Status::Failing => failure = OAuthError::Unavailable,
            Status::Refused => {}
        }
    }
    Err(failure)
}

fn read(metadata: Metadata, issuer: &OAuthIssuer) -> Result<Url, OAuthError> {
    if metadata.issuer != issuer.as_str() {
        return Err(OAuthError::NotDiscovered);
    }
    let origin = Url::parse(issuer.as_str()).map(|url| url.origin());
    if origin == Ok(metadata.token_endpoint.origin()) {
        Ok(metadata.token_endpoint)
    } else {
        Err(OAuthError::EndpointElsewhere)
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
    fn metadata_of_another_issuer_or_with_an_endpoint_elsewhere_is_refused() {
        let good = "https://as.example/t";
        let read = |issuer: &str, named: &str, endpoint: &str| {
            let metadata = Metadata { issuer: named.to_owned(), token_endpoint: endpoint.parse().unwrap() };
            read(metadata, &issuer.parse().unwrap()).map(String::from)
        };
        assert_eq!(read("https://as.example", "https://as.example", good).unwrap(), good);
        for issuer in ["https://as.example/", "https://evil.example"] {
            assert_eq!(read(issuer, "https://as.example", good), Err(OAuthError::NotDiscovered), "{issuer}");
        }
        for endpoint in ["https://tokens.example/t", "http://as.example/t", "https://as.example:8443/t", "file:///t"] {
            let answer = read("https://as.example", "https://as.example", endpoint);
            assert_eq!(answer, Err(OAuthError::EndpointElsewhere), "{endpoint}");
        }
    }
}
