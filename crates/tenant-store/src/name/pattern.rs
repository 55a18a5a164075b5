//! Which tools a pattern names.

use super::{LocalName, ToolPattern, UpstreamSlug};

impl ToolPattern {
    /// Whether it names that entry. Takes time linear in the two texts, whatever the pattern.
    pub fn matches(&self, upstream: &UpstreamSlug, local: &LocalName) -> bool {
        if self.0.contains('/') { glob(&self.0, &format!("{upstream}/{local}")) } else { glob(&self.0, local.as_str()) }
    }
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
        pattern.parse::<ToolPattern>().unwrap().matches(&upstream.parse().unwrap(), &local.parse().unwrap())
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
