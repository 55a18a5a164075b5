//! Which tools a pattern names.

use percent_encoding::percent_decode_str;

use super::grammar::as_word;
use super::{ToolPattern, UpstreamSlug};

/// How often a text may be percent-encoded. Each round reads the whole of it.
const DECODINGS_MAX: usize = 8;

impl ToolPattern {
    /// Whether it names that entry, which is known as `local` at its upstream. Takes time linear in the two texts, whatever the
    /// pattern.
    pub fn matches(&self, upstream: &UpstreamSlug, local: &str) -> bool {
        if self.0.contains('/') { glob(&self.0, &format!("{upstream}/{local}")) } else { glob(&self.0, local) }
    }
}

impl ToolPattern {
    /// Whether it is the name that clients see, as it is written.
    pub fn is_shown_as(&self, exposed: &str) -> bool {
        glob(&self.0, exposed)
    }

    /// Whether it names that entry by any of its names: at its upstream, with or without the upstream's own before it, or as
    /// clients see it; in capitals or not, percent-encoded or not, however often. What denies is read widely, so that a spelling does
    /// not decide; one that takes more than a few rounds to decode is hit by every pattern.
    pub fn hits(&self, upstream: &UpstreamSlug, local: &str, exposed: &str) -> bool {
        let pattern = self.0.to_lowercase();
        let (Some(locals), Some(exposed)) = (percent_decodings(local), percent_decodings(exposed)) else { return true };
        let is_hit = |name: &str| glob(&pattern, name) || glob(&pattern, &format!("{upstream}/{name}"));
        let mut locals = locals.iter().map(|local| local.to_lowercase());
        locals.any(|local| is_hit(&local) || is_hit(&as_word(&local)))
            || exposed.iter().any(|exposed| glob(&pattern, &exposed.to_lowercase()))
    }
}

/// The text, and what it says when it is percent-decoded once, twice and so on, until that changes nothing; without control characters,
/// which readers of URIs pass over. Nothing, if that takes more than [`DECODINGS_MAX`] rounds.
pub fn percent_decodings(text: &str) -> Option<Vec<String>> {
    let mut texts = vec![text.to_owned()];
    for _ in 0..=DECODINGS_MAX {
        let last = texts.last()?;
        let mut decoded = percent_decode_str(last).decode_utf8_lossy().into_owned();
        decoded.retain(|c| !c.is_control());
        if decoded == *last {
            return Some(texts);
        }
        texts.push(decoded);
    }
    None
}

/// The pieces between the stars are found one after another, each as early as possible. That is enough, because a star gives
/// back nothing that an earlier place of a piece could not also reach; so nothing is tried twice.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some((_, behind)) = text.split_once(piece) else { return false };
        text = behind;
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    /// The definition of a glob, as slow as it is plain: a star takes nothing, or one character and is tried again.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            (['*', rest @ ..], text) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
            ([wanted, rest @ ..], [found, behind @ ..]) => wanted == found && naive(rest, behind),
            (_, []) => false,
        }
    }

    fn matches(pattern: &str, upstream: &str, local: &str) -> bool {
        pattern.parse::<ToolPattern>().unwrap().matches(&upstream.parse().unwrap(), local)
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for pattern in ["*", "search*", "*issues", "s*_*s", "search_issues", "**"] {
            assert!(matches(pattern, "jira", "search_issues"), "{pattern}");
        }
        for pattern in ["search", "issues", "*search", "Search*", "s*x*s", "search_issues*s"] {
            assert!(!matches(pattern, "jira", "search_issues"), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_with_a_slash_names_the_upstream_too() {
        assert!(matches("jira/*", "jira", "search"));
        assert!(matches("*/search", "jira", "search"));
        assert!(!matches("wiki/*", "jira", "search"));
        assert!(!matches("jira/*", "wiki", "jira"));
        // The whole of `files/read` is the local name, so it takes an upstream in front of it.
        assert!(!matches("files/read", "disk", "files/read"));
        assert!(matches("disk/files/read", "disk", "files/read"));
        assert!(matches("files*read", "disk", "files/read"));
    }

    #[test]
    fn what_denies_is_found_under_every_name_of_a_tool() {
        let hits = |pattern: &str, upstream: &str, local: &str, exposed: &str| {
            let pattern: ToolPattern = pattern.parse().unwrap();
            pattern.hits(&upstream.parse().unwrap(), local, exposed)
        };
        for pattern in
            ["export.all", "export_all", "acme__export_all", "EXPORT*", "*all", "crm/export*", "acme__*", "*"]
        {
            assert!(hits(pattern, "crm", "Export.all", "acme__Export_all"), "{pattern}");
        }
        assert!(hits("files/*", "disk", "files/read", "acme__files_read"));
        assert!(hits("*export*", "crm", "bulkExport", "acme__bulkExport"));
        assert!(hits("*private*", "disk", "file:///%70rivate/x", "mcp-mux://acme/disk/file:///%70rivate/x"));
        for local in ["file:///%70rivate/x", "file:///%2570rivate/x", "file:///pr%09ivate/x"] {
            for pattern in ["file:///private/*", "disk/file:///private/*", "mcp-mux://acme/disk/file:///private*"] {
                assert!(hits(pattern, "disk", local, &format!("mcp-mux://acme/disk/{local}")), "{pattern} {local}");
            }
        }
        let hidden = format!("file:///%{}70rivate/x", "25".repeat(20));
        assert!(hits("nothing", "disk", &hidden, &hidden), "what cannot be read is denied");
        for pattern in ["export", "wiki/*", "globex__*", "all"] {
            assert!(!hits(pattern, "crm", "Export.all", "acme__Export_all"), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = "a*".repeat(63) + "b";
        let begin = Instant::now();
        for _ in 0..1_000 {
            assert!(!matches(&pattern, "jira", &"a".repeat(256)));
        }
        assert!(begin.elapsed().as_secs() < 10, "tried every way to place the stars");
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_definition_says(pattern in "[ab*é]{1,8}", text in "[abé]{1,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, "jira", &text), naive(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn a_pattern_with_a_slash_matches_what_its_definition_says(
            pattern in "[a*]{0,3}/[ab*/]{0,5}", upstream in "[ab]{1,3}", text in "[ab/]{1,6}",
        ) {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = naive(&chars(&pattern), &chars(&format!("{upstream}/{text}")));
            prop_assert_eq!(matches(&pattern, &upstream, &text), expected);
        }
    }
}
