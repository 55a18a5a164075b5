//! A file of JSON as a tree in which every value knows where it stands, so that what is wrong is said with file, line and field and
//! without the value, which may be a secret. Comments and commas at an end, which some programs allow, are passed over.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Size of the largest file, in bytes.
pub const IMPORT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How deep its values may be nested.
const DEPTH_MAX: usize = 64;

/// A file cannot be imported: it is no JSON, or has another shape than its format.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct ImportError {
    file: String,
    line: usize,
    column: usize,
    problem: String,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    text: String,
    root: Node,
    /// Whether a reader of plain JSON would refuse it.
    pub(super) is_lenient: bool,
}

#[derive(Debug)]
struct Node {
    offset: usize,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Null,
    Boolean(bool),
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// A value and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Field<'s> {
    source: &'s Source,
    node: &'s Node,
    /// The keys on the way, as programs that take things out of JSON want them.
    pub(super) path: Vec<String>,
}

/// A map whose fields are taken out one after another; what is left at the end is unknown.
#[derive(Debug)]
pub(super) struct Fields<'s> {
    map: Field<'s>,
    rest: Vec<(&'s str, Field<'s>)>,
}

impl Source {
    /// Reads `text`. Errors call it `name`.
    pub(super) fn read(name: &str, text: &str) -> Result<Self, ImportError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let at = |offset, problem: String| ImportError::new(name, text, offset, problem);
        if text.len() > IMPORT_BYTES_MAX {
            return Err(at(0, format!("a file has at most {IMPORT_BYTES_MAX} bytes")));
        }
        let plain = plain(text);
        let raw: &RawValue = serde_json::from_str(&plain).map_err(|error| ImportError::syntax(name, &error))?;
        let is_lenient = plain != text;
        let root = Node::of(raw, plain.as_ptr().addr(), 0).map_err(|(offset, problem)| at(offset, problem))?;
        Ok(Self { name: name.to_owned(), text: text.to_owned(), root, is_lenient })
    }

    pub(super) fn root(&self) -> Field<'_> {
        Field { source: self, node: &self.root, path: Vec::new() }
    }
}

impl ImportError {
    fn new(file: &str, text: &str, offset: usize, problem: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { file: file.to_owned(), line, column, problem }
    }

    /// What the parser found, without the place that it repeats.
    fn syntax(file: &str, error: &serde_json::Error) -> Self {
        let told = error.to_string();
        let told = told.split(" at line ").next().unwrap_or_default();
        Self {
            file: file.to_owned(),
            line: error.line(),
            column: error.column().max(1),
            problem: format!("is no JSON: {told}"),
        }
    }
}

/// The text with spaces in the place of comments and of commas at the end of a list or map, so that places stay what they are.
fn plain(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let (mut at, mut comma) = (0, None);
    while let Some(byte) = bytes.get(at).copied() {
        let length = match (byte, bytes.get(at + 1)) {
            (b'"', _) => text_length(&bytes, at),
            (b'/', Some(b'/')) => bytes.iter().skip(at).take_while(|byte| **byte != b'\n').count(),
            (b'/', Some(b'*')) => comment_length(&bytes, at),
            _ => 1,
        };
        match byte {
            b'/' if length > 1 => blank(&mut bytes, at, length),
            b']' | b'}' => comma.take().into_iter().for_each(|comma| blank(&mut bytes, comma, 1)),
            b',' => comma = Some(at),
            _ if byte.is_ascii_whitespace() => {}
            _ => comma = None,
        }
        at += length;
    }
    // Only whole characters were replaced.
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn blank(bytes: &mut [u8], at: usize, length: usize) {
    bytes.iter_mut().skip(at).take(length).filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// How long the text in quotes is that begins there.
fn text_length(bytes: &[u8], at: usize) -> usize {
    let mut is_escaped = false;
    let rest = bytes.iter().skip(at + 1);
    let end = rest.take_while(|byte| {
        let goes_on = is_escaped || **byte != b'"';
        is_escaped = !is_escaped && **byte == b'\\';
        goes_on
    });
    end.count() + 2
}

fn comment_length(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at + 2..).unwrap_or_default();
    rest.windows(2).position(|pair| pair == b"*/").map_or(rest.len() + 2, |end| end + 4)
}

/// The members of a map in their order, each value still raw.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

impl Node {
    /// Reads a value of a text that begins at the address `begin`. What is wrong comes with its place.
    fn of(raw: &RawValue, begin: usize, depth: usize) -> Result<Self, (usize, String)> {
        let text = raw.get();
        let offset = text.as_ptr().addr().saturating_sub(begin);
        let broken = |_| (offset, "is no JSON that can be read".to_owned());
        if depth > DEPTH_MAX {
            return Err((offset, format!("is nested more than {DEPTH_MAX} deep")));
        }
        let value = match text.as_bytes().first() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(text).map_err(broken)?;
                let mut map: Vec<(String, Self)> = Vec::with_capacity(members.len());
                for (name, raw) in members {
                    map.push((name, Self::of(raw, begin, depth + 1)?));
                }
                Value::Map(map)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(broken)?;
                Value::List(items.into_iter().map(|raw| Self::of(raw, begin, depth + 1)).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Value::Text(serde_json::from_str(text).map_err(broken)?),
            Some(b't') => Value::Boolean(true),
            Some(b'f') => Value::Boolean(false),
            Some(b'n') => Value::Null,
            _ => Value::Number,
        };
        Ok(Self { offset, value })
    }
}

impl<'s> Field<'s> {
    /// What is wrong with it: the end of a sentence.
    pub(super) fn problem(&self, problem: &str) -> ImportError {
        let subject = if self.path.is_empty() { "the file".to_owned() } else { format!("`{}`", self.name()) };
        ImportError::new(&self.source.name, &self.source.text, self.node.offset, format!("{subject} {problem}"))
    }

    /// The way to it, for people.
    pub(super) fn name(&self) -> String {
        let keys: Vec<_> = self.path.iter().map(|key| key.escape_debug().to_string()).collect();
        keys.join(".")
    }

    pub(super) fn text(&self) -> Result<&'s str, ImportError> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.problem("must be a text in quotes")),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, ImportError> {
        match self.node.value {
            Value::Boolean(value) => Ok(value),
            _ => Err(self.problem("must be `true` or `false`")),
        }
    }

    pub(super) fn items(&self) -> Result<Vec<Self>, ImportError> {
        match &self.node.value {
            Value::List(items) => {
                Ok(items.iter().zip(0..).map(|(node, index)| self.at(format!("{index}"), node)).collect())
            }
            _ => Err(self.problem("must be a list (`[…]`)")),
        }
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> Result<Vec<&'s str>, ImportError> {
        self.items()?.iter().map(Field::text).collect()
    }

    /// The entries of a map, each name once.
    pub(super) fn entries(&self) -> Result<Vec<(&'s str, Self)>, ImportError> {
        let Value::Map(map) = &self.node.value else { return Err(self.problem("must be a map (`{\"name\": …}`)")) };
        let mut names: Vec<_> = map.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(self.problem("has a name twice: which of the two is meant?"));
        }
        Ok(map.iter().map(|(name, node)| (name.as_str(), self.at(name.clone(), node))).collect())
    }

    /// The entries, to be taken out by name.
    pub(super) fn fields(&self) -> Result<Fields<'s>, ImportError> {
        Ok(Fields { map: self.clone(), rest: self.entries()? })
    }

    /// How many things are in it.
    pub(super) fn count(&self) -> usize {
        match &self.node.value {
            Value::List(items) => items.len(),
            Value::Map(entries) => entries.len(),
            Value::Null => 0,
            _ => 1,
        }
    }

    fn is_nothing(&self) -> bool {
        match &self.node.value {
            Value::Null => true,
            Value::Text(text) => text.is_empty(),
            _ => false,
        }
    }

    fn at(&self, key: String, node: &'s Node) -> Self {
        let mut path = self.path.clone();
        path.push(key);
        Self { source: self.source, node, path }
    }
}

impl<'s> Fields<'s> {
    /// Takes the field out; `null` and an empty text are as good as none.
    pub(super) fn take(&mut self, name: &str) -> Option<Field<'s>> {
        let at = self.rest.iter().position(|(found, _)| *found == name)?;
        let (_, field) = self.rest.remove(at);
        (!field.is_nothing()).then_some(field)
    }

    /// The first of several names for the same thing.
    pub(super) fn take_any(&mut self, names: &[&str]) -> Option<Field<'s>> {
        names.iter().find_map(|name| self.take(name))
    }

    /// Whether it is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.rest.iter().any(|(found, _)| *found == name)
    }

    /// The field, which must be there.
    pub(super) fn need(&mut self, name: &str) -> Result<Field<'s>, ImportError> {
        self.take(name).ok_or_else(|| self.map.problem(&format!("must have `{name}`")))
    }

    /// The map itself.
    pub(super) fn map(&self) -> &Field<'s> {
        &self.map
    }

    /// What nobody took.
    pub(super) fn rest(self) -> Vec<(&'s str, Field<'s>)> {
        self.rest
    }
}
