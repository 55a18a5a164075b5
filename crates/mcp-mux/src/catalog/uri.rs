//! URIs of resources where all tenants' are listed together: `mcp-mux://{tenant}/{upstream}/{the upstream's own URI}`.
//!
//! The own URI stands behind the slugs as it is, not encoded: what a client puts into a template's holes is then what the upstream
//! would have got, and taking the slugs away again needs no decoding that could be done twice.

use tenant_store::{OfferKey, TenantSlug, UpstreamSlug, percent_decodings};
use url::Url;

const SCHEME: &str = "mcp-mux://";
const FILE_SCHEME: &str = "file:";

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

/// A URI that no list has, and what else upstreams may take it for.
#[derive(Debug)]
pub struct Unlisted {
    /// As a parser of URLs prints it, and the same percent-decoded, if it is a URL. What allows must match one of these, too.
    pub printed: Vec<String>,
    /// What else readers make of it. What denies one of these denies it.
    pub readings: Vec<String>,
}

impl Unlisted {
    /// Takes a URI that can only mean what it says: not one with what nobody sees, with space around it, or that climbs.
    pub fn parse(own: &str) -> Option<Self> {
        if own.parse::<OfferKey>().is_err() || own.trim() != own || climbs(own) {
            return None;
        }
        let decodings = percent_decodings(own)?;
        let readings = decodings.iter().filter_map(|text| Url::parse(text).ok());
        let readings = readings.flat_map(|url| [url.to_string(), place_of(&url)]).collect();
        let printed = match Url::parse(own) {
            Ok(url) => percent_decodings(url.as_str())?,
            // Some readers find the path of a file all the same.
            Err(_) if own.get(..FILE_SCHEME.len()).is_some_and(|it| it.eq_ignore_ascii_case(FILE_SCHEME)) => {
                return None;
            }
            Err(_) => Vec::new(),
        };
        Some(Self { printed, readings })
    }
}

/// A URL without what many readers pass over: query and fragment, the host of a file, and all but one of several slashes.
fn place_of(url: &Url) -> String {
    let mut path = url.path().replace('\\', "/");
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    let host = if url.scheme() == "file" { "" } else { url.authority() };
    let slashes = if url.has_authority() { "//" } else { "" };
    format!("{}:{slashes}{host}{path}", url.scheme())
}

/// Whether some segment is `.` or `..`, plain or percent-encoded however often: it is not what it says that is read then.
fn climbs(uri: &str) -> bool {
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    let climbs = |text: &String| text.split(['/', '\\', '?', '#', ':']).any(is_dots);
    percent_decodings(uri).is_none_or(|texts| texts.iter().any(climbs))
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
            "file:///./b",
            "file:///%2e/b",
            "file:///a/.%09./b",
            &format!("file:///%{}41", "25".repeat(500)),
        ] {
            assert!(climbs(uri), "{uri}");
        }
        for uri in ["file:///a/..b", "file:///a/...", "x://a.b/c", "note://%41", "file:///%zz"] {
            assert!(!climbs(uri), "{uri}");
        }
    }

    #[test]
    fn a_uri_with_what_nobody_sees_is_no_uri_to_read() {
        for uri in
            ["", " file:///a", "file:///a ", "file:///a/.\t./b", "file:///pri\nvate", "x:a\u{200b}b", "file://a b/c"]
        {
            assert!(Unlisted::parse(uri).is_none(), "{uri:?}");
        }
        for uri in ["note://any thing?a=%2F", "ui://board/page", "urn:a:b", "note://%41", "x", "proxy://https://a.b/c"]
        {
            assert!(Unlisted::parse(uri).is_some(), "{uri:?}");
        }
    }

    #[test]
    fn other_spellings_of_a_place_are_read_as_that_place() {
        for uri in [
            "file:///private/k",
            "file:/private/k",
            "FILE:private/k",
            "file://localhost/private/k",
            "file://anywhere/private/k",
            "file:////private\\k",
            "file:///%2570rivate//k",
            "file:%2Fprivate/k",
            "file:///private/k?a#b",
            "file:///private/k%3Fa",
        ] {
            let unlisted = Unlisted::parse(uri).unwrap();
            assert!(unlisted.readings.iter().any(|reading| reading == "file:///private/k"), "{uri} {unlisted:?}");
        }
        let unlisted = Unlisted::parse("HTTP://A.example:80/b c").unwrap();
        assert_eq!(unlisted.printed, ["http://a.example/b%20c", "http://a.example/b c"]);
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
