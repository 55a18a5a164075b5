//! Metadata: an authorization server's own (RFC 8414, OpenID Connect Discovery 1.0), and an upstream's, which says whom it trusts
//! (RFC 9728). Whoever writes them may lie, so neither can lead to an address that is less protected than where it was found.

use serde::Deserialize;
use tenant_store::OAuthIssuer;
use url::Url;

use super::error::OAuthError;
use super::server::{Http, Status};

/// The one method of PKCE that keeps the verifier a secret (RFC 7636 §4.2).
const S256: &str = "S256";

/// What an authorization server says about itself.
#[derive(Debug, Clone)]
pub(in crate::upstream) struct Metadata {
    pub(in crate::upstream) issuer: OAuthIssuer,
    pub(in crate::upstream) token_endpoint: Url,
    pub(in crate::upstream) authorization_endpoint: Option<Url>,
    pub(in crate::upstream) registration_endpoint: Option<Url>,
    pub(in crate::upstream) revocation_endpoint: Option<Url>,
    pub(in crate::upstream) supports_s256: bool,
    /// Whether it says who it is when a browser comes back (RFC 9207).
    pub(in crate::upstream) says_issuer: bool,
    /// Whether a client may be a document at its own address.
    pub(in crate::upstream) takes_client_documents: bool,
    /// How clients may prove themselves; empty where it does not say.
    pub(in crate::upstream) client_auth: Vec<String>,
}

/// The same as it is written. An address that does not parse matters only to who needs it.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: Url,
    authorization_endpoint: Option<String>,
    registration_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

/// What an upstream says about itself.
#[derive(Deserialize)]
struct ProtectedResource {
    resource: Url,
    #[serde(default)]
    authorization_servers: Vec<String>,
}

/// The metadata of `issuer`. It must name the same issuer, character by character, and may not lead from https to anything less.
pub(in crate::upstream) async fn metadata(http: &Http, issuer: &OAuthIssuer) -> Result<Metadata, OAuthError> {
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

/// The authorization server that the upstream at `url` names first; none if it names none, or speaks for somewhere else.
pub(in crate::upstream) async fn trusted_issuer(http: &Http, url: &Url) -> Result<Option<OAuthIssuer>, OAuthError> {
    for address in resource_addresses(url) {
        let (status, body) = http.get(address).await?;
        match status {
            Status::Ok => return Ok(read_resource(&body, url)),
            Status::Failing => return Err(OAuthError::Unavailable),
            Status::Refused => {}
        }
    }
    Ok(None)
}

fn read(body: &[u8], issuer: &OAuthIssuer) -> Result<Metadata, OAuthError> {
    let document: Document = serde_json::from_slice(body).map_err(|_| OAuthError::NotDiscovered)?;
    let protects =
        |url: &Url| url.scheme() == "https" || (url.scheme() == "http" && issuer.as_str().starts_with("http://"));
    let endpoint = |text: Option<String>| text.and_then(|text| Url::parse(&text).ok()).filter(protects);
    if document.issuer != issuer.as_str() || !protects(&document.token_endpoint) {
        return Err(OAuthError::NotDiscovered);
    }
    Ok(Metadata {
        issuer: issuer.clone(),
        token_endpoint: document.token_endpoint,
        authorization_endpoint: endpoint(document.authorization_endpoint).filter(|url| url.fragment().is_none()),
        registration_endpoint: endpoint(document.registration_endpoint),
        revocation_endpoint: endpoint(document.revocation_endpoint),
        supports_s256: document.code_challenge_methods_supported.iter().any(|method| method == S256),
        says_issuer: document.authorization_response_iss_parameter_supported,
        takes_client_documents: document.client_id_metadata_document_supported,
        client_auth: document.token_endpoint_auth_methods_supported,
    })
}

/// An upstream speaks for its own address and for what lies above it, and an https one names no http server.
fn read_resource(body: &[u8], url: &Url) -> Option<OAuthIssuer> {
    let document: ProtectedResource = serde_json::from_slice(body).ok()?;
    let above = document.resource.path().trim_end_matches('/');
    let below = url.path().strip_prefix(above)?;
    let is_its_own = document.resource.origin() == url.origin() && (below.is_empty() || below.starts_with('/'));
    let issuer = document.authorization_servers.first().filter(|_| is_its_own)?;
    let is_protected = issuer.starts_with("https://") || url.scheme() == "http";
    issuer.parse().ok().filter(|_| is_protected)
}

/// Between host and path, and at the host's root (RFC 9728 §3.1).
fn resource_addresses(url: &Url) -> Vec<Url> {
    let path = url.path().trim_end_matches('/');
    let mut paths = vec![format!("/.well-known/oauth-protected-resource{path}")];
    if !path.is_empty() {
        paths.push("/.well-known/oauth-protected-resource".to_owned());
    }
    let at = |path: String| {
        let mut at = url.clone();
        at.set_path(&path);
        at.set_query(None);
        at
    };
    paths.into_iter().map(at).collect()
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
        let read = |issuer: &str, text: &str| {
            let metadata = read(text.as_bytes(), &issuer.parse().unwrap());
            metadata.map(|metadata| String::from(metadata.token_endpoint))
        };
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

    #[test]
    fn an_endpoint_without_protection_is_none() {
        let text = r#"{"issuer":"https://as.example","token_endpoint":"https://as.example/t",
            "authorization_endpoint":"javascript:alert(1)","registration_endpoint":"http://evil.example/r",
            "revocation_endpoint":"file:///r"}"#;
        let metadata = read(text.as_bytes(), &"https://as.example".parse().unwrap()).unwrap();
        assert!(metadata.authorization_endpoint.is_none());
        assert!(metadata.registration_endpoint.is_none());
        assert!(metadata.revocation_endpoint.is_none());
        assert!(!metadata.supports_s256 && !metadata.says_issuer && !metadata.takes_client_documents);
    }

    #[test]
    fn an_upstream_speaks_for_itself_and_names_nobody_who_is_less_protected() {
        let upstream: Url = "https://mcp.example/a/mcp".parse().unwrap();
        let trusted = |resource: &str, issuer: &str| {
            let text = format!(r#"{{"resource":"{resource}","authorization_servers":["{issuer}"]}}"#);
            read_resource(text.as_bytes(), &upstream).map(|issuer| issuer.to_string())
        };
        for resource in
            ["https://mcp.example/a/mcp", "https://mcp.example/a", "https://mcp.example", "https://mcp.example/"]
        {
            assert_eq!(trusted(resource, "https://as.example").as_deref(), Some("https://as.example"), "{resource}");
        }
        for (resource, issuer) in [
            ("https://other.example/a/mcp", "https://as.example"),
            ("http://mcp.example/a/mcp", "https://as.example"),
            ("https://mcp.example/a/mcp/b", "https://as.example"),
            ("https://mcp.example/a/m", "https://as.example"),
            ("https://mcp.example/a/mcp", "http://as.example"),
            ("https://mcp.example/a/mcp", "https://user@as.example"),
            ("https://mcp.example/a/mcp", "as.example"),
        ] {
            assert_eq!(trusted(resource, issuer), None, "{resource} {issuer}");
        }
        assert_eq!(read_resource(br#"{"resource":"https://mcp.example"}"#, &upstream), None);
        let found: Vec<String> = resource_addresses(&upstream).into_iter().map(String::from).collect();
        assert_eq!(
            found,
            [
                "https://mcp.example/.well-known/oauth-protected-resource/a/mcp",
                "https://mcp.example/.well-known/oauth-protected-resource"
            ]
        );
    }
}
