//! URIs of resources where all tenants' are listed together: `mcp-mux://{tenant}/{upstream}/{the upstream's own URI}`.
//!
//! The own URI stands behind the slugs as it is, not encoded: what a client puts into a template's holes is then what the upstream
//! would have got, and taking the slugs away again needs no decoding that could be done twice.

use tenant_store::{TenantSlug, UpstreamSlug};

const SCHEME: &str = "mcp-mux://";

/// A URI that says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried<'u> {
    /// The tenant's slug. It comes from outside and proves nothing.
    pub tenant: &'u str,
    /// The upstream's slug.
    pub upstream: &'u str,
    /// The URI at the upstream.
    pub own: &'u str,
}

/// `own` with its tenant and upstream in front.
pub fn carry(tenant: &TenantSlug, upstream: &UpstreamSlug, own: &str) -> String {
    format!("{SCHEME}{tenant}/{upstream}/{own}")
}

impl<'u> Carried<'u> {
    /// Takes such a URI apart; nothing if it is another one.
    pub fn parse(uri: &'u str) -> Option<Self> {
        let (tenant, rest) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        let (upstream, own) = rest.split_once('/')?;
        Some(Self { tenant, upstream, own })
    }
}

/// Whether it is of our scheme. An upstream's own URI of that scheme never stands alone: it could name somebody else's.
pub fn is_ours(uri: &str) -> bool {
    uri.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// Whether some segment is `..`, plain or percent-encoded however often: what stands before it is then not what is read.
pub fn climbs(uri: &str) -> bool {
    let mut text = uri.to_owned();
    loop {
        if text.split(['/', '\\', '?', '#', ':']).any(|segment| segment == "..") {
            return true;
        }
        let decoded = percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            return false;
        }
        text = decoded;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uri_that_climbs_is_noticed_in_each_spelling() {
        for uri in [
            "file:///a/../b",
            "file:///..",
            "x:..",
            "file:///a/%2e%2E/b",
            "file:///a%2F..%2Fb",
            "file:///%252e%252e/b",
            "a\\..\\b",
        ] {
            assert!(climbs(uri), "{uri}");
        }
        for uri in ["file:///a/..b", "file:///a/...", "x://a.b/c", "note://%41", "file:///%zz"] {
            assert!(!climbs(uri), "{uri}");
        }
    }

    #[test]
    fn what_is_not_of_the_form_is_no_carried_uri() {
        for uri in [
            "",
            "mcp-mux://",
            "mcp-mux://acme",
            "mcp-mux://acme/files",
            "file:///acme/files/x",
            "MCP-MUX://acme/files/x",
        ] {
            assert_eq!(Carried::parse(uri), None, "{uri}");
        }
        assert!(is_ours("MCP-mux://x") && !is_ours("mcp-mux:/x"));
    }

    proptest! {
        #[test]
        fn any_uri_comes_back_as_it_was(own in "[ -~ü{}]{0,60}") {
            let (tenant, upstream) = ("acme".parse().unwrap(), "files".parse().unwrap());
            let uri = carry(&tenant, &upstream, &own);
            let carried = Carried { tenant: "acme", upstream: "files", own: &own };
            prop_assert_eq!(Carried::parse(&uri), Some(carried));
            prop_assert!(is_ours(&uri));
        }
    }
}
