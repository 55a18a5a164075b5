//! Names that models can say, made of what a document calls things.

use std::collections::HashSet;

use http::Method;

/// Longest name of a tool or an argument; some clients take no longer one.
const NAME_BYTES_MAX: usize = 64;

/// Names that were given away, each once.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// The first of `wished` that is free, or the last with the first number behind it that makes it so.
    pub(super) fn take(&mut self, wished: &[&str]) -> String {
        let words = wished.iter().map(|wish| word(wish, NAME_BYTES_MAX));
        let free = words.clone().find(|word| !word.is_empty() && !self.0.contains(word));
        let last = wished.last().map_or("", |wish| wish);
        let numbered = || {
            let mut number = 2_u32;
            loop {
                let end = format!("_{number}");
                let name = word(last, NAME_BYTES_MAX - end.len()) + &end;
                if !self.0.contains(&name) {
                    break name;
                }
                number += 1;
            }
        };
        let name = free.unwrap_or_else(numbered);
        self.0.insert(name.clone());
        name
    }

    /// Whether a name is free, and can be said as it is.
    pub(super) fn is_free(&self, name: &str) -> bool {
        !name.is_empty() && word(name, NAME_BYTES_MAX) == name && !self.0.contains(name)
    }
}

/// What an operation without a name of its own is called.
pub(super) fn of_path(method: &Method, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.as_str().to_ascii_lowercase(), |name, word| name + "_" + word)
}

/// A text with `_` for each character that no name has, cut off where it is too long.
fn word(text: &str, bytes_max: usize) -> String {
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.chars().map(|c| if is_of_a_name(c) { c } else { '_' }).take(bytes_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_each_is_given_once() {
        let mut names = Names::default();
        assert_eq!(names.take(&["pets.list/all", "get_pets"]), "pets_list_all");
        assert_eq!(names.take(&["pets list all", "get_pets"]), "get_pets");
        assert_eq!(names.take(&["pets list all", "get_pets"]), "get_pets_2");
        assert_eq!(names.take(&["pets list all", "get_pets"]), "get_pets_3");
        assert_eq!(names.take(&["", ""]), "_2");
        assert_eq!(names.take(&[&"x".repeat(90)]), "x".repeat(64));
        assert_eq!(names.take(&[&"x".repeat(90)]), "x".repeat(62) + "_2");
        assert!(names.is_free("new") && !names.is_free("get_pets") && !names.is_free("a.b") && !names.is_free(""));
    }

    #[test]
    fn a_path_becomes_a_name() {
        for (path, name) in [("/", "get"), ("/pets/{petId}", "get_pets_petId"), ("/v1/a.b:c", "get_v1_a_b_c")] {
            assert_eq!(of_path(&Method::GET, path), name);
        }
    }
}
