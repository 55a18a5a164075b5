//! How we prove ourselves to an upstream. Secrets are named here, never held.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::name::{
    AwsAccessKeyId, AwsName, HeaderText, IssuerName, OAuthAudience, OAuthClientId, OAuthIssuer, OAuthKeyId,
    OAuthResource, OAuthScope, OAuthTokenUrl, QueryParameter, SecretName, Subject, UserName,
};

/// How we prove ourselves to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UpstreamAuth {
    /// Not at all.
    None,
    /// `Authorization: Bearer …`
    Bearer {
        /// The secret behind `Bearer`.
        secret: SecretName,
    },
    /// Headers of its own.
    Headers {
        /// The secret that each header carries.
        headers: BTreeMap<HeaderText, SecretName>,
    },
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// The user name.
        username: UserName,
        /// The secret that is the password.
        secret: SecretName,
    },
    /// A parameter of the address, for upstreams that take nothing better: addresses are written into logs.
    Query {
        /// The parameter's name.
        parameter: QueryParameter,
        /// The secret that it carries.
        secret: SecretName,
    },
    /// An access token that we get for ourselves (RFC 6749 §4.4).
    ClientCredentials(Box<TokenRequest>),
    /// An access token that we get for each caller in exchange for the caller's own (RFC 8693).
    TokenExchange(Box<TokenExchange>),
    /// An access token of each caller's own account there, which the caller connected in a browser (RFC 6749 §4.1).
    Account(Box<AccountAuth>),
    /// A certificate of ours in the TLS handshake, and perhaps a proof in each request.
    Mtls {
        /// The secret that holds the certificates and the private key, as PEM.
        secret: SecretName,
        /// The certificates that vouch for the upstream, as PEM, in place of the machine's own; nothing secret.
        ca: Option<String>,
        /// What each request carries besides: `none`, or something that is the same each time.
        with: Box<UpstreamAuth>,
    },
    /// A signature over each request (AWS Signature Version 4).
    AwsSigV4 {
        /// The public half of the access key.
        access_key_id: AwsAccessKeyId,
        /// The secret half of the access key.
        secret_access_key: SecretName,
        /// The secret that goes with temporary access keys.
        session_token: Option<SecretName>,
        /// Where the upstream is.
        region: AwsName,
        /// What the upstream is.
        service: AwsName,
    },
}

/// How an access token is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRequest {
    /// Who is asked.
    pub server: AuthorizationServer,
    /// What it knows us by.
    pub client_id: OAuthClientId,
    /// How we prove to be that client.
    pub proof: ClientProof,
    /// What the token should be good for.
    pub scope: Option<OAuthScope>,
    /// For which resource it should be good.
    pub resource: Option<OAuthResource>,
    /// For whom it should be good.
    pub audience: Option<OAuthAudience>,
}

/// Who issues access tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthorizationServer {
    /// Its token endpoint.
    TokenUrl(OAuthTokenUrl),
    /// Its identifier, from which its metadata is found.
    Issuer(OAuthIssuer),
}

/// How a client proves itself to an authorization server (OpenID Connect Core §9).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientProof {
    /// By its secret, in a header.
    Basic {
        /// The client's secret.
        secret: SecretName,
    },
    /// By its secret, in the form.
    Post {
        /// The client's secret.
        secret: SecretName,
    },
    /// By a signature (RFC 7523 §2.2).
    PrivateKeyJwt {
        /// The secret that is the private key, as PEM.
        private_key: SecretName,
        /// Which of the client's keys it is.
        key_id: Option<OAuthKeyId>,
    },
}

/// How a caller's token is exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenExchange {
    /// What is asked for.
    pub request: TokenRequest,
    /// What kind of token is asked for.
    pub requested_type: RequestedType,
    /// What is shown when tools are listed, which nobody asks for.
    pub listing: Listing,
}

/// How callers connect accounts of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountAuth {
    /// Who issues the access tokens; without it, whom the upstream's own metadata names (RFC 9728).
    pub issuer: Option<OAuthIssuer>,
    /// The client that an operator registered there. Without it we register ourselves.
    pub client: Option<AccountClient>,
    /// What the tokens should be good for.
    pub scope: Option<OAuthScope>,
    /// For which resource they should be good; without it, for the upstream's URL.
    pub resource: Option<OAuthResource>,
    /// What is shown when tools are listed, which nobody asks for.
    pub listing: AccountListing,
}

/// What an upstream that is called with accounts is shown while no caller is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccountListing {
    /// Nothing.
    None,
    /// A token that the registered client gets for itself.
    ClientCredentials,
    /// The account of one principal, whom an operator names: what that account is shown is listed for everybody.
    Account {
        /// Who says who it is.
        issuer: IssuerName,
        /// Who it is there.
        subject: Subject,
    },
}

/// A client that an operator registered at an authorization server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountClient {
    /// What the authorization server knows it by.
    pub client_id: OAuthClientId,
    /// How it proves to be that client; a public client has no proof.
    pub proof: Option<ClientProof>,
}

/// The kinds of tokens that an exchange may ask for (RFC 8693 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestedType {
    /// `urn:ietf:params:oauth:token-type:access_token`
    AccessToken,
    /// `urn:ietf:params:oauth:token-type:jwt`
    Jwt,
}

/// What an upstream that acts for its callers is shown while no caller is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Listing {
    /// A token that the same client gets for itself.
    ClientCredentials,
    /// Nothing.
    None,
}

/// What the value of a secret must look like, by what it is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretForm {
    /// One word behind `Bearer`.
    BearerToken,
    /// The value of a header.
    HeaderValue,
    /// The password of basic authentication.
    Password,
    /// The value of a parameter in an address.
    QueryValue,
    /// The secret of an OAuth client.
    ClientSecret,
    /// A private key that signs, as PEM.
    SigningKey,
    /// Certificates and their private key, as PEM.
    CertificatePair,
    /// The secret half of an AWS access key.
    AwsSecretAccessKey,
    /// An AWS session token.
    AwsSessionToken,
}

impl UpstreamAuth {
    /// The secrets that it names, and what each is used for.
    pub fn secrets(&self) -> Vec<(&SecretName, SecretForm)> {
        match self {
            Self::None => Vec::new(),
            Self::Bearer { secret } => vec![(secret, SecretForm::BearerToken)],
            Self::Headers { headers } => headers.values().map(|secret| (secret, SecretForm::HeaderValue)).collect(),
            Self::Basic { secret, .. } => vec![(secret, SecretForm::Password)],
            Self::Query { secret, .. } => vec![(secret, SecretForm::QueryValue)],
            Self::ClientCredentials(request) => vec![request.proof.secret()],
            Self::TokenExchange(exchange) => vec![exchange.request.proof.secret()],
            Self::Account(account) => account.proof().map(ClientProof::secret).into_iter().collect(),
            Self::Mtls { secret, with, .. } => {
                let mut secrets = vec![(secret, SecretForm::CertificatePair)];
                secrets.extend(with.secrets());
                secrets
            }
            Self::AwsSigV4 { secret_access_key, session_token, .. } => {
                let mut secrets = vec![(secret_access_key, SecretForm::AwsSecretAccessKey)];
                secrets.extend(session_token.as_ref().map(|secret| (secret, SecretForm::AwsSessionToken)));
                secrets
            }
        }
    }

    /// How we ask for access tokens as ourselves or in exchange, if that is how it works.
    pub fn token_request(&self) -> Option<Cow<'_, TokenRequest>> {
        match self {
            Self::ClientCredentials(request) => Some(Cow::Borrowed(request)),
            Self::TokenExchange(exchange) => Some(Cow::Borrowed(&exchange.request)),
            Self::Account(account) => account.request().map(Cow::Owned),
            _ => None,
        }
    }

    /// The address of the authorization server that the operator named, if there is one.
    pub fn authorization_server(&self) -> Option<&str> {
        match self {
            Self::ClientCredentials(request) => Some(request.server.as_str()),
            Self::TokenExchange(exchange) => Some(exchange.request.server.as_str()),
            Self::Account(account) => account.issuer.as_ref().map(AsRef::as_ref),
            _ => None,
        }
    }

    /// Whether each request carries the same, whoever calls: what may go along with a certificate.
    pub(crate) fn is_static(&self) -> bool {
        matches!(
            self,
            Self::None | Self::Bearer { .. } | Self::Headers { .. } | Self::Basic { .. } | Self::Query { .. }
        )
    }
}

impl AccountAuth {
    /// How the registered client proves itself, if it does.
    pub fn proof(&self) -> Option<&ClientProof> {
        self.client.as_ref()?.proof.as_ref()
    }

    /// How the registered client asks for a token of its own to list the tools of the upstream at `url` with, if it does.
    pub fn listing_request(&self, url: &Url) -> Option<TokenRequest> {
        let request = self.request()?;
        Some(TokenRequest { resource: Some(self.resource_at(url)?), ..request })
    }

    /// For which resource tokens for the upstream at `url` should be good (RFC 8707 §2): no slash stands for an empty path.
    pub fn resource_at(&self, url: &Url) -> Option<OAuthResource> {
        let text = url.as_str();
        let bare = if url.path() == "/" && url.query().is_none() { text.trim_end_matches('/') } else { text };
        self.resource.clone().or_else(|| bare.parse().ok())
    }

    fn request(&self) -> Option<TokenRequest> {
        let client = self.client.as_ref().filter(|_| self.listing == AccountListing::ClientCredentials)?;
        Some(TokenRequest {
            server: AuthorizationServer::Issuer(self.issuer.clone()?),
            client_id: client.client_id.clone(),
            proof: client.proof.clone()?,
            scope: self.scope.clone(),
            resource: self.resource.clone(),
            audience: None,
        })
    }
}

impl ClientProof {
    /// The secret behind it, and what it is used for.
    pub fn secret(&self) -> (&SecretName, SecretForm) {
        match self {
            Self::Basic { secret } | Self::Post { secret } => (secret, SecretForm::ClientSecret),
            Self::PrivateKeyJwt { private_key, .. } => (private_key, SecretForm::SigningKey),
        }
    }
}

impl AuthorizationServer {
    /// The address that the operator gave, whole: different authorization servers may share a host.
    pub fn as_str(&self) -> &str {
        match self {
            Self::TokenUrl(url) => url.as_str(),
            Self::Issuer(issuer) => issuer.as_str(),
        }
    }
}

impl SecretForm {
    /// Whether it proves us to the authorization server and not to the upstream.
    pub fn is_for_authorization_server(self) -> bool {
        matches!(self, Self::ClientSecret | Self::SigningKey)
    }
}

/// Scheme, host and port.
pub(crate) fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Where an upstream's secrets may go: its own address and, where access tokens are asked for, that of the authorization server.
/// A secret that was stored for one destination does not open for another.
pub(crate) fn destination_of(url: &Url, auth: &UpstreamAuth) -> String {
    match auth.authorization_server() {
        None => origin_of(url),
        // No address holds a space.
        Some(server) => format!("{} {server}", origin_of(url)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_earlier_versions_stored_is_still_read() {
        let bearer = UpstreamAuth::Bearer { secret: "key".parse().unwrap() };
        let headers = UpstreamAuth::Headers { headers: [("x-key".parse().unwrap(), "key".parse().unwrap())].into() };
        for (text, auth) in [
            (r#""none""#, UpstreamAuth::None),
            (r#"{"bearer":{"secret":"key"}}"#, bearer),
            (r#"{"headers":{"headers":{"x-key":"key"}}}"#, headers),
        ] {
            assert_eq!(serde_json::from_str::<UpstreamAuth>(text).unwrap(), auth);
            assert_eq!(serde_json::to_string(&auth).unwrap(), text);
        }
    }

    #[test]
    fn the_destination_of_a_secret_is_the_upstream_and_whoever_issues_its_tokens() {
        let url: Url = "https://mcp.acme.example/mcp".parse().unwrap();
        assert_eq!(destination_of(&url, &UpstreamAuth::None), "https://mcp.acme.example");
        let request = |server| {
            UpstreamAuth::ClientCredentials(Box::new(TokenRequest {
                server,
                client_id: "mux".parse().unwrap(),
                proof: ClientProof::Basic { secret: "client".parse().unwrap() },
                scope: None,
                resource: None,
                audience: None,
            }))
        };
        let by_url = request(AuthorizationServer::TokenUrl("https://as.example:8443/token".parse().unwrap()));
        let by_issuer = request(AuthorizationServer::Issuer("https://as.example/acme".parse().unwrap()));
        assert_eq!(destination_of(&url, &by_url), "https://mcp.acme.example https://as.example:8443/token");
        assert_eq!(destination_of(&url, &by_issuer), "https://mcp.acme.example https://as.example/acme");
        let account = |issuer: Option<&str>| {
            UpstreamAuth::Account(Box::new(AccountAuth {
                issuer: issuer.map(|issuer| issuer.parse().unwrap()),
                client: None,
                scope: None,
                resource: None,
                listing: AccountListing::None,
            }))
        };
        assert_eq!(destination_of(&url, &account(None)), "https://mcp.acme.example");
        let named = account(Some("https://as.example/acme"));
        assert_eq!(destination_of(&url, &named), "https://mcp.acme.example https://as.example/acme");
    }
}
