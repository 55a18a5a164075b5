//! Exposed names: `tenant__tool`. Made here once, stored with the tool, and looked up in a map ever after; nothing takes one
//! apart again, so a `__` inside an upstream's own name can never move a tool to another tenant.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};
use tenant_store::{ExposedName, LocalName, TenantSlug, ToolPrefix, UpstreamSlug};

use crate::hex;

/// Hex digits of the hash that tells cut or colliding names apart.
const HASH_DIGITS: usize = 6;
/// What stands between a tenant's slug, which never contains it, and the rest.
const SEPARATOR: &str = "__";

/// The names that are given already.
pub(super) type Taken = HashSet<ExposedName>;

/// Where a name comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'o> {
    /// The tenant, whose slug opens the name.
    pub tenant: &'o TenantSlug,
    /// The upstream.
    pub upstream: &'o UpstreamSlug,
    /// What the operator puts before each of the upstream's names, if anything.
    pub prefix: Option<&'o ToolPrefix>,
}

/// The exposed name of `local`: `slug + "__" + [prefix + "_"] + local`, where each character outside `[A-Za-z0-9_-]` becomes
/// `_`. If it is longer than `chars_max` or already `taken`, it is cut, behind the slug and its `__` at the earliest, and gets `_`
/// and six hex digits of the SHA-256 of tenant, upstream and local name; should even that be taken, more digits.
pub fn expose(origin: Origin<'_>, local: &LocalName, taken: &Taken, chars_max: usize) -> Option<ExposedName> {
    let prefix = origin.prefix.map(|prefix| format!("{prefix}_")).unwrap_or_default();
    let plain = format!("{}{SEPARATOR}{prefix}{}", origin.tenant, local.sanitised());

    if plain.len() <= chars_max
        && let Some(name) = free(&plain, taken)
    {
        return Some(name);
    }
    let hash = hash_hex(origin, local);
    let slug_chars = origin.tenant.as_str().len() + SEPARATOR.len();
    (HASH_DIGITS..=hash.len()).find_map(|digits| {
        let (tail, _) = hash.split_at_checked(digits)?;
        let kept = chars_max.checked_sub(digits + 1).filter(|kept| *kept >= slug_chars)?;
        let (head, _) = plain.split_at_checked(kept.min(plain.len()))?;
        free(&format!("{head}_{tail}"), taken)
    })
}

fn free(name: &str, taken: &HashSet<ExposedName>) -> Option<ExposedName> {
    name.parse().ok().filter(|name| !taken.contains(name))
}

/// Slugs hold no NUL, so the parts cannot run into each other.
fn hash_hex(origin: Origin<'_>, local: &LocalName) -> String {
    let parts = [origin.tenant.as_str(), origin.upstream.as_str(), local.as_str()];
    let digest = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part).chain_update([0])).finalize();
    hex::encode(&digest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(tenant: &str, prefix: Option<&str>, local: &str, taken: &[&str]) -> String {
        let tenant = tenant.parse().unwrap();
        let upstream = "jira".parse().unwrap();
        let prefix = prefix.map(|prefix| prefix.parse().unwrap());
        let taken = taken.iter().map(|name| name.parse().unwrap()).collect();
        let origin = Origin { tenant: &tenant, upstream: &upstream, prefix: prefix.as_ref() };
        expose(origin, &local.parse().unwrap(), &taken, 48).unwrap().to_string()
    }

    #[test]
    fn a_tool_is_exposed_under_its_tenant() {
        assert_eq!(name("acme", None, "search_issues", &[]), "acme__search_issues");
        assert_eq!(name("acme", Some("jira"), "search", &[]), "acme__jira_search");
    }

    #[test]
    fn characters_that_model_interfaces_refuse_become_underscores() {
        assert_eq!(name("acme", None, "files.read/all ü", &[]), "acme__files_read_all__");
    }

    #[test]
    fn a_long_name_is_cut_and_told_apart_by_a_hash() {
        let long = "x".repeat(60);
        let exposed = name("acme", None, &long, &[]);
        assert_eq!(exposed.len(), 48);
        assert_ne!(exposed, name("acme", None, &"x".repeat(61), &[]));
    }

    #[test]
    fn a_taken_name_is_not_given_twice() {
        let exposed = name("acme", None, "a.b", &["acme__a_b"]);
        assert!(exposed.starts_with("acme__a_b_"), "{exposed}");
    }

    proptest! {
        #[test]
        fn no_two_tenants_ever_share_a_name(
            one in "[a-z0-9](-?[a-z0-9]){0,7}", ending in "[a-z0-9]{1,4}", local in "[a-z_.]{1,80}",
            chars_max in 32_usize..=64, taken in any::<bool>(),
        ) {
            let other = format!("{one}{ending}");
            let exposed = |tenant: &str| {
                let (tenant, upstream) = (tenant.parse().unwrap(), "jira".parse().unwrap());
                let origin = Origin { tenant: &tenant, upstream: &upstream, prefix: None };
                let mut given = HashSet::new();
                let first = expose(origin, &local.parse().unwrap(), &given, chars_max).unwrap();
                given.insert(first.clone());
                if taken { expose(origin, &local.parse().unwrap(), &given, chars_max).unwrap() } else { first }
            };
            let (ours, theirs) = (exposed(&one), exposed(&other));
            prop_assert!(ours.as_str().starts_with(&format!("{one}__")), "{}", ours);
            prop_assert!(theirs.as_str().starts_with(&format!("{other}__")), "{}", theirs);
            prop_assert_ne!(ours, theirs);
        }

        #[test]
        fn every_local_name_gets_a_valid_name_of_its_own(locals in prop::collection::hash_set("[ -~ü€]{1,80}", 1..40)) {
            let tenant = "acme".parse().unwrap();
            let upstream = "jira".parse().unwrap();
            let mut taken = HashSet::new();
            for local in &locals {
                let origin = Origin { tenant: &tenant, upstream: &upstream, prefix: None };
                let exposed = expose(origin, &local.parse().unwrap(), &taken, 48).unwrap();
                prop_assert!(exposed.as_str().len() <= 48);
                prop_assert!(exposed.as_str().starts_with("acme__"));
                prop_assert!(taken.insert(exposed));
            }
        }
    }
}
