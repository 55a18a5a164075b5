//! Walking a document: each field knows its path, so that whatever is wrong with it can be said with field and place.

use std::fmt::Display;
use std::str::FromStr;

use serde_saphyr::Spanned;

use super::error::{Place, Problem};
use super::yaml::{Node, Value};

/// How many letters may be wrong in a word for which another is suggested.
const TYPING_ERRORS_MAX: usize = 2;

/// A node and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Field<'n> {
    path: String,
    node: &'n Node,
}

/// A map of which all keys are known.
#[derive(Debug)]
pub(super) struct Fields<'n> {
    map: Field<'n>,
    entries: &'n [(Spanned<String>, Node)],
}

/// A key that the writer of the manifest chose.
#[derive(Debug)]
pub(super) struct Key<'n> {
    path: String,
    key: &'n Spanned<String>,
}

impl<'n> Field<'n> {
    /// A document as a whole.
    pub(super) fn document(node: &'n Node) -> Self {
        Self { path: String::new(), node }
    }

    pub(super) fn place(&self) -> Place {
        Place::of(self.node.referenced)
    }

    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        self.place().problem(&self.path, message)
    }

    pub(super) fn text(&self) -> Result<&'n str, Problem> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            Value::Null => Err(self.problem("must be a text, and is empty")),
            Value::Boolean(_) | Value::Number(_) | Value::OtherNumber => {
                Err(self.problem("must be a text: put it in quotes"))
            }
            Value::List(_) | Value::Map(_) => Err(self.problem("must be a text")),
        }
    }

    /// The text as what it stands for.
    pub(super) fn parse<T: FromStr<Err: Display>>(&self) -> Result<T, Problem> {
        self.text()?.parse().map_err(|error: T::Err| self.problem(error.to_string()))
    }

    pub(super) fn boolean(&self) -> Result<bool, Problem> {
        match self.node.value {
            Value::Boolean(value) => Ok(value),
            _ => Err(self.problem("must be `true` or `false`")),
        }
    }

    pub(super) fn number(&self) -> Result<u32, Problem> {
        match self.node.value {
            Value::Number(value) => u32::try_from(value).map_err(|_| self.problem("is too large")),
            _ => Err(self.problem("must be a whole number")),
        }
    }

    pub(super) fn items(&self) -> Result<Vec<Self>, Problem> {
        match &self.node.value {
            Value::List(items) => {
                let field = |(index, node)| Self { path: format!("{}[{index}]", self.path), node };
                Ok(items.iter().enumerate().map(field).collect())
            }
            _ => Err(self.problem("must be a list")),
        }
    }

    /// The items of a list as what they stand for.
    pub(super) fn parse_items<T: FromStr<Err: Display>>(&self) -> Result<Vec<T>, Problem> {
        self.items()?.iter().map(Self::parse).collect()
    }

    /// The entries of a map whose keys the writer chose.
    pub(super) fn entries(&self) -> Result<Vec<(Key<'n>, Self)>, Problem> {
        let entry = |(key, node): &'n (Spanned<String>, Node)| {
            let path = self.path_of(&key.value);
            (Key { path: path.clone(), key }, Self { path, node })
        };
        Ok(self.map()?.iter().map(entry).collect())
    }

    /// The entries of a map that has no others than the `known` ones.
    pub(super) fn fields(&self, known: &[&str]) -> Result<Fields<'n>, Problem> {
        let entries = self.map()?;
        match entries.iter().find(|(key, _)| !known.contains(&key.value.as_str())) {
            None => Ok(Fields { map: self.clone(), entries }),
            Some((key, _)) => {
                let message = format!("is unknown; {}", suggestion(&key.value, known));
                Err(Place::of(key.referenced).problem(&self.path_of(&key.value), message))
            }
        }
    }

    /// Where the field at the end of `path` is, or where the way to it ends.
    pub(super) fn place_of(&self, path: &[&str]) -> Place {
        let next = path.split_first().and_then(|(name, rest)| {
            let (_, node) = self.map().ok()?.iter().find(|(key, _)| key.value == *name)?;
            Some(Self { path: self.path_of(name), node }.place_of(rest))
        });
        next.unwrap_or_else(|| self.place())
    }

    /// Whether it is a map with that field in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map().is_ok_and(|entries| entries.iter().any(|(key, _)| key.value == name))
    }

    fn map(&self) -> Result<&'n [(Spanned<String>, Node)], Problem> {
        match &self.node.value {
            Value::Map(entries) => Ok(entries),
            _ => Err(self.problem("must be a map (`key: value`)")),
        }
    }

    fn path_of(&self, name: &str) -> String {
        let name = name.escape_debug();
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

impl<'n> Fields<'n> {
    /// The field, if it is there.
    pub(super) fn find(&self, name: &str) -> Option<Field<'n>> {
        let (_, node) = self.entries.iter().find(|(key, _)| key.value == name)?;
        Some(Field { path: self.map.path_of(name), node })
    }

    /// The field, which must be there.
    pub(super) fn get(&self, name: &str) -> Result<Field<'n>, Problem> {
        self.find(name).ok_or_else(|| self.missing(name, "is missing"))
    }

    /// What is wrong when the field is not there.
    pub(super) fn missing(&self, name: &str, message: &str) -> Problem {
        Problem { path: self.map.path_of(name), ..self.map.problem(message) }
    }
}

impl Key<'_> {
    /// The key as what it stands for.
    pub(super) fn parse<T: FromStr<Err: Display>>(&self) -> Result<T, Problem> {
        let place = Place::of(self.key.referenced);
        self.key.value.parse().map_err(|error: T::Err| place.problem(&self.path, error.to_string()))
    }
}

/// The end of a sentence about a word that is none of the `known` ones.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    // In a short word two wrong letters make another word.
    let is_near = |known: &&&str| typing_errors(word, known) <= TYPING_ERRORS_MAX.min(known.len() / 2);
    let nearest = known.iter().filter(is_near).min_by_key(|known| typing_errors(word, known));
    if let Some(nearest) = nearest {
        format!("did you mean `{nearest}`?")
    } else {
        let known: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
        format!("known here: {}", known.join(", "))
    }
}

/// How many letters have to be put in, left out or replaced to make one word of the other. Capitals do not count, and letters
/// in another order count as one.
fn typing_errors(one: &str, other: &str) -> usize {
    let letters = |word: &str| word.to_lowercase().chars().collect::<Vec<_>>();
    let sorted = |mut letters: Vec<char>| {
        letters.sort_unstable();
        letters
    };
    let (one, other) = (letters(one), letters(other));
    if one != other && sorted(one.clone()) == sorted(other.clone()) {
        return 1;
    }
    // After each letter of `one`, the row holds the distances of what came so far from every beginning of `other`.
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (length, letter) in (1..).zip(one) {
        let (mut left, mut diagonal) = (length, length - 1);
        for (cell, wanted) in row.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(letter != *wanted);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        row.iter_mut().take(1).for_each(|first| *first = length);
    }
    row.last().copied().unwrap_or_default()
}
