//! Names that mcp-mux takes, made of names that others take, each once.

use std::collections::HashSet;
use std::fmt::Debug;
use std::str::FromStr;

/// Names that are given already.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// A name of at most `bytes_max` bytes that is as near to `wanted` as its grammar allows and not given yet. Where nothing of
    /// `wanted` is left it is made of `otherwise`.
    pub(super) fn give<T: FromStr<Err: Debug>>(&mut self, wanted: &str, otherwise: &str, bytes_max: usize) -> T {
        let near = slug(wanted, bytes_max);
        let near = if near.is_empty() { otherwise.to_owned() } else { near };
        let numbered = (2..).map(|number: u32| {
            let end = format!("-{number}");
            slug(&near, bytes_max.saturating_sub(end.len())) + &end
        });
        let mut names = std::iter::once(near.clone()).chain(numbered);
        let name = names.find(|name| !self.0.contains(name)).expect("there are more numbers than names");
        self.0.insert(name.clone());
        name.parse().expect("a slug of that length has the grammar of every slug")
    }
}

/// Letters and digits of ASCII in lower case, with single hyphens in the place of anything else between them.
fn slug(text: &str, bytes_max: usize) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(bytes_max);
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tenant_store::UpstreamSlug;

    use super::*;

    #[test]
    fn a_name_stays_as_near_as_it_can() {
        let mut names = Names::default();
        let mut give = |wanted: &str| names.give::<UpstreamSlug>(wanted, "server", 20).to_string();
        for (wanted, given) in [
            ("jira", "jira"),
            ("Jira", "jira-2"),
            ("mcp_streamable_http", "mcp-streamable-http"),
            ("@scope/server-filesystem-long", "scope-server-filesys"),
            ("scope.server.filesystem!", "scope-server-files-2"),
            ("数据", "server"),
            ("--", "server-2"),
            ("jira-2", "jira-2-2"),
        ] {
            assert_eq!(give(wanted), given, "{wanted}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_given_once(wanted in proptest::collection::vec("[aA_é-]{0,30}|\\PC{0,30}", 0..40)) {
            let mut names = Names::default();
            let given: HashSet<UpstreamSlug> = wanted.iter().map(|wanted| names.give(wanted, "server", 20)).collect();
            prop_assert_eq!(given.len(), wanted.len());
        }
    }
}
