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
    let mut failure = OAuthError::NotDiscovered;
    for address in addresses(issuer).ok_or(OAuthError::NotDiscovered)? {
        let (status, body) = http.get(address).await?;
        match status {
            // A page for everything is no metadata; the other address may have some.
            Status::Ok => {
                if let Ok(document) = serde_json::from_slice(&body) {
                    return read(document, issuer);
                }
            }
            Status::Failing => failure = OAuthError::Unavailable,
            Status::Refused => {}
        }
    }
    Err(failure)
}

impl Metadata {
    /// The token endpoint, if it is at the issuer's own scheme, host and port. Where a client of ours asks for itself, one that is
    /// elsewhere is named by an operator as `tokenUrl`; an account's client has no such setting, and goes where its issuer says.
    pub(super) fn own_token_endpoint(self) -> Result<Url, OAuthError> {
        let origin = Url::parse(self.issuer.as_str()).map(|url| url.origin());
        let is_own = origin == Ok(self.token_endpoint.origin());
        if is_own { Ok(self.token_endpoint) } else { Err(OAuthError::EndpointElsewhere) }
    }
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

fn read(document: Document, issuer: &OAuthIssuer) -> Result<Metadata, OAuthError> {
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

/// An upstream speaks for its own address and for what lies above it, and names nobody elsewhere: it could name the authorization
/// server of another company's service, and be shown what people there got tokens for.
fn read_resource(body: &[u8], url: &Url) -> Option<OAuthIssuer> {
    let document: ProtectedResource = serde_json::from_slice(body).ok()?;
    let above = document.resource.path().trim_end_matches('/');
    let below = url.path().strip_prefix(above)?;
    let is_its_own = document.resource.origin() == url.origin() && (below.is_empty() || below.starts_with('/'));
    let issuer = document.authorization_servers.first().filter(|_| is_its_own)?;
    let is_at_home = Url::parse(issuer).is_ok_and(|issuer| issuer.origin() == url.origin());
    issuer.parse().ok().filter(|_| is_at_home)
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
            let document = serde_json::from_str(text).map_err(|_| OAuthError::NotDiscovered)?;
            read(document, &issuer.parse().unwrap()).map(|metadata| String::from(metadata.token_endpoint))
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
    fn what_is_stored_for_an_issuer_goes_to_no_other_host() {
        let endpoint = |endpoint: &str| {
            let text = format!(r#"{{"issuer":"https://as.example","token_endpoint":"{endpoint}"}}"#);
            read(serde_json::from_str(&text).unwrap(), &"https://as.example".parse().unwrap())?.own_token_endpoint()
        };
        assert_eq!(endpoint("https://as.example/t").map(String::from).unwrap(), "https://as.example/t");
        for elsewhere in ["https://tokens.example/t", "https://as.example:8443/t"] {
            assert_eq!(endpoint(elsewhere), Err(OAuthError::EndpointElsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn an_endpoint_without_protection_is_none() {
        let text = r#"{"issuer":"https://as.example","token_endpoint":"https://as.example/t",
            "authorization_endpoint":"javascript:alert(1)","registration_endpoint":"http://evil.example/r",
            "revocation_endpoint":"file:///r"}"#;
        let metadata = read(serde_json::from_str(text).unwrap(), &"https://as.example".parse().unwrap()).unwrap();
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
            let own = "https://mcp.example/login";
            assert_eq!(trusted(resource, own).as_deref(), Some(own), "{resource}");
        }
        for (resource, issuer) in [
            ("https://other.example/a/mcp", "https://mcp.example"),
            ("http://mcp.example/a/mcp", "https://mcp.example"),
            ("https://mcp.example/a/mcp/b", "https://mcp.example"),
            ("https://mcp.example/a/m", "https://mcp.example"),
            ("https://mcp.example/a/mcp", "http://mcp.example"),
            ("https://mcp.example/a/mcp", "https://mcp.example:8443"),
            ("https://mcp.example/a/mcp", "https://user@mcp.example"),
            ("https://mcp.example/a/mcp", "https://as.example"),
            ("https://mcp.example/a/mcp", "mcp.example"),
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
