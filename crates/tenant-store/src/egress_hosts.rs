//! The hosts at which a tenant's upstreams may be, where its operator names them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::name::HostPattern;
use crate::spec::{SpecError, SpecField, rule};

/// How many hosts a tenant's upstreams may be narrowed to.
const HOSTS_MAX: usize = 100;

/// The hosts at which a tenant's upstreams may be. There is at least one: an empty list would mean either nothing or everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<HostPattern>")]
pub struct EgressHosts(Arc<[HostPattern]>);

impl EgressHosts {
    /// Whether `url` is at one of them.
    pub fn cover(&self, url: &Url) -> bool {
        url.host().is_some_and(|host| self.0.iter().any(|pattern| pattern.covers(&host)))
    }

    /// The hosts, as the operator named them.
    pub fn patterns(&self) -> &[HostPattern] {
        &self.0
    }
}

impl TryFrom<Vec<HostPattern>> for EgressHosts {
    type Error = SpecError;

    fn try_from(hosts: Vec<HostPattern>) -> Result<Self, SpecError> {
        let field = SpecField::EgressHosts;
        rule(!hosts.is_empty(), field, "must not be empty: leave it out to narrow nothing")?;
        rule(hosts.len() <= HOSTS_MAX, field, "must have at most 100 hosts")?;
        Ok(Self(hosts.into()))
    }
}

impl HostPattern {
    fn covers(&self, host: &Host<&str>) -> bool {
        match (self.as_str().strip_prefix('*'), host) {
            // What follows the star begins with a dot, so that only whole labels stand for it.
            (Some(end), Host::Domain(name)) => name.len() > end.len() && name.ends_with(end),
            (Some(_), _) => false,
            (None, host) => host.to_string() == self.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(patterns: &[&str]) -> EgressHosts {
        let patterns: Vec<HostPattern> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        patterns.try_into().unwrap()
    }

    #[test]
    fn a_host_is_covered_by_its_own_name_or_by_a_star_above_it() {
        let hosts = hosts(&["mcp.acme.example", "*.acme.test", "10.20.0.5", "[fd00::1]", "Grüße.example"]);
        for url in [
            "https://mcp.acme.example/mcp",
            "https://MCP.acme.example:8443/",
            "https://a.acme.test",
            "https://a.b.acme.test",
            "http://10.20.0.5:8080",
            "http://0x0a140005/",
            "http://[fd00:0::1]/",
            "https://grüße.example/",
        ] {
            assert!(hosts.cover(&url.parse().unwrap()), "{url}");
        }
        for url in [
            "https://acme.example/",
            "https://xmcp.acme.example/",
            "https://mcp.acme.example.evil.test/",
            "https://mcp.acme.example./",
            "https://acme.test/",
            "https://evilacme.test/",
            "https://.acme.test/",
            "https://a.acme.test@evil.test/",
            "http://10.20.0.50/",
            "http://[fd00::2]/",
        ] {
            assert!(!hosts.cover(&url.parse().unwrap()), "{url}");
        }
    }

    #[test]
    fn a_list_has_bounds() {
        for (count, fits) in [(0, false), (1, true), (100, true), (101, false)] {
            let patterns: Vec<HostPattern> = vec!["acme.example".parse().unwrap(); count];
            assert_eq!(EgressHosts::try_from(patterns).is_ok(), fits, "{count}");
        }
        assert!(serde_json::from_str::<EgressHosts>("[]").is_err());
    }

    #[test]
    fn what_is_no_host_is_no_pattern() {
        for text in [
            "",
            "*",
            "*.",
            "a.*",
            "*a.example",
            "*.*.example",
            "https://acme.example",
            "acme.example:443",
            "acme.example/",
            "acme.example.",
            "*.10.0.0.1",
            "10.0.0.0/8",
            "a b",
            "::1",
            "user@acme.example",
            "*.acme.example.",
            "a..b",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }
}
