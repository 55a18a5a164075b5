//! Where in a JSON value something stands: one step after the other, written out only where there is something to say.

use std::fmt;

/// Longest step of a pointer that is written, in characters: keys are an upstream's.
const STEP_CHARS_MAX: usize = 200;

/// A place in a value. Its text is a JSON pointer, in which very long keys are cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'p> {
    Root,
    Member(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Item(up, item) => write!(f, "{up}/{item}"),
            Self::Member(up, key) => {
                write!(f, "{up}/")?;
                let mut chars = key.chars();
                for char in chars.by_ref().take(STEP_CHARS_MAX) {
                    match char {
                        '~' => f.write_str("~0")?,
                        '/' => f.write_str("~1")?,
                        char => write!(f, "{char}")?,
                    }
                }
                if chars.next().is_some() { f.write_str("…") } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_json_pointer_of_bounded_length() {
        let long = "k".repeat(300);
        let place = Place::Member(&Place::Root, "a/b~c");
        let place = Place::Item(&place, 7);
        assert_eq!(place.to_string(), "/a~1b~0c/7");
        assert_eq!(Place::Member(&place, &long).to_string(), format!("/a~1b~0c/7/{}…", "k".repeat(STEP_CHARS_MAX)));
    }
}
