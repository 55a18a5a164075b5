//! Names that could be taken for each other: homographs.
//!
//! The skeleton of Unicode's UTS 39 makes `а` (Cyrillic) and `a`, `rn` and `m`, `1`, `l` and `I`, `0` and `O` the same. Here upper and
//! lower case, `i` and `l`, and the separators `_`, `-` and `.` are the same besides: models and people mix them up, too.

use std::collections::HashMap;

use tenant_store::{ExposedName, LocalName, NameGiven};

/// The names of a tenant's tools, by what they look like.
#[derive(Debug, Default)]
pub(super) struct Lookalikes {
    exposed: HashMap<String, String>,
    local: HashMap<String, String>,
}

/// What a name looks like.
pub(crate) fn skeleton(name: &str) -> String {
    // Twice, because a small letter may look like what its capital does not.
    let small: String = unicode_security::skeleton(name).flat_map(char::to_lowercase).collect();
    let plain = |char| match char {
        'i' => 'l',
        '_' | '.' => '-',
        other => other,
    };
    unicode_security::skeleton(&small).flat_map(char::to_lowercase).map(plain).collect()
}

impl Lookalikes {
    pub(super) fn of(given: &[NameGiven]) -> Self {
        let mut names = Self::default();
        for NameGiven { local, exposed, .. } in given {
            names.add(local, exposed);
        }
        names
    }

    /// Adds a tool's names, and says whether one of them could be taken for that of a tool that is known. Who comes first is not suspected
    /// for what comes later.
    pub(super) fn add(&mut self, local: &LocalName, exposed: &ExposedName) -> bool {
        let known = self.exposed.entry(skeleton(exposed.as_str())).or_insert_with(|| exposed.to_string());
        let looks_like_another = known != exposed.as_str();
        let sanitised = local.sanitised();
        let known = self.local.entry(skeleton(local.as_str())).or_insert_with(|| sanitised.clone());
        looks_like_another || *known != sanitised
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn homographs_have_one_skeleton() {
        for (one, other) in [
            ("link_files", "1ink_files"),
            ("link_files", "Iink_files"),
            ("link_files", "Link-Files"),
            ("return_item", "retum_item"),
            ("return_item", "return_ltem"),
            ("go_to", "g0_t0"),
            ("search", "ѕеаrсh"),
            ("search", "ｓｅａｒｃｈ"),
        ] {
            assert_eq!(skeleton(one), skeleton(other), "{one} {other}");
        }
        for (one, other) in [("search", "search_all"), ("get_user", "get_users"), ("create", "delete"), ("read", "red")]
        {
            assert_ne!(skeleton(one), skeleton(other), "{one} {other}");
        }
    }

    #[test]
    fn a_homograph_of_a_known_name_is_noticed_and_the_known_one_is_not() {
        let mut names = Lookalikes::default();
        let mut add = |local: &str, exposed: &str| names.add(&local.parse().unwrap(), &exposed.parse().unwrap());
        assert!(!add("transfer", "acme__transfer"));
        assert!(
            !add("transfer", "acme__transfer_1a2b3c"),
            "another upstream's of the same name is told apart by its own"
        );
        assert!(!add("users.list", "acme__users_list") && !add("users_list", "acme__users_list_1a2b3c"));
        assert!(add("transfеr", "acme__transf_r"), "shown under its own name it looks the same");
        assert!(add("Transfer", "acme__Transfer"));
        // Not by its local name, but by what a prefix makes of it.
        assert!(!add("search", "acme__jira_search") && add("jira-search", "acme__jira-search"));
    }

    proptest! {
        /// A tenant's slug has no two separators side by side, so the first two end it in a skeleton, too.
        #[test]
        fn no_homograph_of_a_name_has_a_slug_that_looks_otherwise(
            one in "[a-z0-9](-?[a-z0-9]){0,5}", other in "[a-z0-9](-?[a-z0-9]){0,5}",
            names in ("[a-zA-Z0-9_-]{1,6}", "[a-zA-Z0-9_-]{1,6}"),
        ) {
            prop_assume!(skeleton(&one) != skeleton(&other));
            prop_assert_ne!(skeleton(&format!("{one}__{}", names.0)), skeleton(&format!("{other}__{}", names.1)));
        }
    }
}
