//! Names that upstreams give their tools, and names that clients are shown.
//!
//! The first byte says how long exposed names may be. Each line behind it is one tool: `tenant/upstream/prefix/name`.

use std::collections::{BTreeMap, HashMap, HashSet};

use tenant_store::{ExposedName, LocalName, TenantSlug, ToolPrefix, UpstreamSlug};

use crate::catalog::{Carried, Origin, Unlisted, carry, expose, is_ours, skeleton};

/// How long exposed names may be, as settings allow it.
const CHARS_LEAST: usize = 32;
const CHARS_MOST: usize = 64;

type Tool = (TenantSlug, UpstreamSlug, LocalName);

/// Tools have names of the permitted form, no two the same one, and each opens with its tenant's.
pub fn names(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first() else { return };
    let chars_max = CHARS_LEAST + usize::from(*length) % (CHARS_MOST - CHARS_LEAST + 1);
    let text = String::from_utf8_lossy(bytes);
    let mut taken: HashMap<TenantSlug, HashSet<ExposedName>> = HashMap::new();
    let mut given: BTreeMap<ExposedName, Tool> = BTreeMap::new();
    let mut known: HashSet<Tool> = HashSet::new();
    for line in text.lines() {
        let whole = line.parse::<ExposedName>();
        assert!(whole.is_err() || is_permitted(line, CHARS_MOST), "{line:?} is no exposed name");
        drop((Unlisted::parse(line), is_ours(line), skeleton(line)));
        let Some((tool, prefix)) = tool(line) else { continue };
        is_carried(&tool);
        if !known.insert(tool.clone()) {
            continue;
        }
        let (tenant, upstream, local) = &tool;
        let taken = taken.entry(tenant.clone()).or_default();
        let Some(exposed) = expose(Origin { tenant, upstream, prefix: prefix.as_ref() }, local, taken, chars_max)
        else {
            // Each length of the hash was tried, and somebody had them all.
            assert!(taken.len() >= 4, "{tool:?} got no name");
            continue;
        };
        assert!(is_permitted(exposed.as_str(), chars_max), "{exposed:?}");
        assert!(exposed.as_str().starts_with(&format!("{tenant}__")), "{exposed:?} of {tool:?}");
        assert_eq!(exposed.as_str().parse().as_ref(), Ok(&exposed));
        assert!(taken.insert(exposed.clone()), "{exposed:?} was taken");
        if let Some(other) = given.insert(exposed, tool.clone()) {
            panic!("{other:?} and {tool:?} have one name");
        }
    }
}

fn tool(line: &str) -> Option<(Tool, Option<ToolPrefix>)> {
    let mut parts = line.splitn(4, '/');
    let (tenant, upstream, prefix) = (parts.next()?, parts.next()?, parts.next()?);
    let tool = (tenant.parse().ok()?, upstream.parse().ok()?, parts.next()?.parse().ok()?);
    let prefix = if prefix.is_empty() { None } else { Some(prefix.parse().ok()?) };
    Some((tool, prefix))
}

fn is_permitted(name: &str, chars_max: usize) -> bool {
    let permitted = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=chars_max).contains(&name.len()) && name.bytes().all(permitted)
}

/// What stands behind tenant and upstream in a URI is read as what was put there.
fn is_carried((tenant, upstream, local): &Tool) {
    let carried = carry(tenant, upstream, local.as_str());
    let read = Carried { tenant: tenant.as_str(), upstream: upstream.as_str(), own: local.as_str() };
    assert_eq!(Carried::parse(&carried), Some(read));
    assert!(is_ours(&carried), "{carried:?}");
}
