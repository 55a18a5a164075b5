//! The repository as text: its files, and enough understanding of Rust to tell code from prose.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// Folders that are not ours: made by tools, or by running the product.
const FOLDERS_SKIPPED: &[&str] = &[".git", ".mcp-mux", "__pycache__", "artifacts", "corpus", "node_modules", "target"];

const SERVER: &str = "crates/mcp-mux/src/";

/// A text file, with its path from the root of the repository.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }

    /// Whether the file is the module or the folder `place`, or lies below it.
    pub(crate) fn is_within(&self, place: &str) -> bool {
        self.path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }

    /// Whether the whole file is a test.
    pub(crate) fn is_test(&self) -> bool {
        self.is_within("tests") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// How many lines stand before the unit tests.
    pub(crate) fn production_lines(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests =
            lines.windows(2).position(|pair| matches!(pair, ["#[cfg(test)]", next] if next.starts_with("mod tests")));
        if self.is_test() { 0 } else { tests.unwrap_or(lines.len()) }
    }

    /// The name of the module of the server that this file is or belongs to, and how deep it lies below the root.
    pub(crate) fn server_module(&self) -> Option<(&str, usize)> {
        let path = self.path.strip_prefix(SERVER)?.strip_suffix(".rs")?;
        Some((path.split('/').next()?, path.split('/').count())).filter(|_| path != "lib")
    }
}

/// All text files of the repository.
pub(crate) fn files() -> anyhow::Result<Vec<File>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && !FOLDERS_SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
            {
                files.push(File { path: entry.path().strip_prefix(root)?.to_string_lossy().into_owned(), text });
            }
        }
    }
    ensure!(files.iter().any(|file| file.path == "tests/tidy.rs"), "this is not the tree that was meant");
    Ok(files)
}

/// `text` with comments and literals blanked out, so that what is left is code, on the same lines.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blank = prose_bytes(rest);
        let (here, after) = rest.split_at_checked(blank.unwrap_or(first.len_utf8())).unwrap_or((rest, ""));
        match blank {
            Some(_) => code.extend(here.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => code.push_str(here),
        }
        rest = after;
    }
    code
}

/// The length of the comment or literal that begins `text`, if one does.
fn prose_bytes(text: &str) -> Option<usize> {
    let until = |opening: usize, closing: &str| {
        let found = text.get(opening..)?.find(closing);
        Some(found.map_or(text.len(), |at| opening + at + closing.len()))
    };
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.bytes().take_while(|byte| *byte == b'#').count();
        let opens = raw.as_bytes().get(hashes) == Some(&b'"');
        return if opens { until(hashes + 2, &format!("\"{}", "#".repeat(hashes))) } else { None };
    }
    if let Some(string) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = string.bytes().position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        });
        return Some(end.map_or(text.len(), |at| at + 2));
    }
    // A character, not a lifetime: one that is escaped, or one that is closed behind itself.
    let mut characters = text.strip_prefix('\'')?.chars();
    let first = characters.next()?;
    if first == '\\' { until(3, "'") } else { (characters.next() == Some('\'')).then(|| first.len_utf8() + 2) }
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` begins in `code` without being the end of a longer word, as the line and what follows it.
pub(crate) fn occurrences<'c>(code: &'c str, word: &str) -> Vec<(usize, &'c str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(word) {
        let Some((before, rest)) = code.split_at_checked(at) else { continue };
        if !(before.ends_with(is_word) && word.starts_with(is_word)) {
            found.push((before.matches('\n').count() + 1, rest.strip_prefix(word).unwrap_or(rest)));
        }
    }
    found
}

/// The names that `code` takes from `root`, as in `root::name` and `root::{name, other::Thing}`, with their lines.
pub(crate) fn names_under<'c>(code: &'c str, root: &str) -> Vec<(usize, &'c str)> {
    let mut names = Vec::new();
    for (line, rest) in occurrences(code, &format!("{root}::")) {
        let paths = rest.strip_prefix('{').map_or_else(|| vec![rest], outermost_paths);
        names.extend(
            paths.into_iter().filter_map(|path| Some((line, path.trim_start().split(|c| !is_word(c)).next()?))),
        );
    }
    names
}

/// The paths of a list in braces, which begins in front of `list`; a path's own braces are part of it.
fn outermost_paths(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut paths) = (1, 0, Vec::new());
    for (at, c) in list.char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 || (depth == 1 && c == ',') {
            paths.extend(list.get(start..at));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_of_rust_knows_code_from_prose() {
        let code = code_of("a // b\n/* c\n */ d(\"e \\\" f\", r#\"g \"h\"#, 'i', '\\'', '\"') <'j> k");
        assert_eq!(code.split_whitespace().collect::<String>(), "ad(,,,,)<'j>k");
        assert_eq!(code.lines().count(), 3);
    }

    #[test]
    fn the_reader_of_rust_finds_names_in_nested_lists() {
        let code = "use crate::{one, two::{self, not}, three::Not};\nuse crate::four::Not; subcrate::Not";
        assert_eq!(names_under(code, "crate"), [(1, "one"), (1, "two"), (1, "three"), (2, "four")]);
    }
}
