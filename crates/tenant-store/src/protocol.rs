//! What an upstream speaks.

use serde::{Deserialize, Serialize};
use url::Url;

/// What an upstream speaks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UpstreamProtocol {
    /// MCP over Streamable HTTP.
    #[default]
    Mcp,
    /// HTTP, as an OpenAPI document says.
    OpenApi {
        /// Where that document is. What it says of servers decides nothing: calls go to the upstream's own address.
        document: Url,
    },
}

impl UpstreamProtocol {
    /// Where the OpenAPI document of the API at `base` is, unless somebody says otherwise.
    pub fn usual_document(base: &Url) -> Url {
        let mut document = base.clone();
        document.set_path(&format!("{}/openapi.json", base.path().trim_end_matches('/')));
        document.set_query(None);
        document
    }

    /// The address of the OpenAPI document, if there is one.
    pub fn document(&self) -> Option<&Url> {
        match self {
            Self::Mcp => None,
            Self::OpenApi { document } => Some(document),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        let document = "https://acme.example/api.json".parse().unwrap();
        for (protocol, text) in [
            (UpstreamProtocol::Mcp, r#""mcp""#),
            (UpstreamProtocol::OpenApi { document }, r#"{"openApi":{"document":"https://acme.example/api.json"}}"#),
        ] {
            assert_eq!(serde_json::to_string(&protocol).unwrap(), text);
            assert_eq!(serde_json::from_str::<UpstreamProtocol>(text).unwrap(), protocol);
        }
    }

    #[test]
    fn a_document_is_looked_for_below_its_base() {
        for (base, document) in [
            ("https://acme.example", "https://acme.example/openapi.json"),
            ("https://acme.example/time/", "https://acme.example/time/openapi.json"),
            ("https://acme.example:8443/v1?x=1", "https://acme.example:8443/v1/openapi.json"),
        ] {
            assert_eq!(UpstreamProtocol::usual_document(&base.parse().unwrap()).as_str(), document);
        }
    }
}
