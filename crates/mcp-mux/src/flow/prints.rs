//! Prints of a text: hashes of what is distinctive in it.
//!
//! Three things leave prints. **Tokens** that by their shape are somebody's own: e-mail addresses, numbers of accounts and orders.
//! **Names**: two capitalised words beside each other, of which the first is no ordinary word. **Pieces** of running text: eight words in a
//! row. Of an answer's pieces some are picked so that every run of twelve words keeps one (winnowing: Schleimer, Wilkerson and Aiken,
//! "Winnowing: Local Algorithms for Document Fingerprinting", 2003); of arguments all are looked up.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, Hash, Hasher as _};
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use serde_json::value::RawValue;
use unicode_normalization::UnicodeNormalization as _;

use super::scan::Texts;

/// Words in a piece.
const PIECE_WORDS: usize = 8;
/// Of so many pieces in a row one is kept.
const WINDOW: usize = 5;
/// Most text of an answer that is looked at, in bytes. Arguments are looked at whole.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
/// Most prints of an answer.
const ANSWER_PRINTS_MAX: usize = 20_000;
/// A string of so many bytes without a single space is no text: a picture, say.
const SOLID_BYTES: usize = 256;
/// JSON stands in text, and again in that.
const NESTED_MAX: u8 = 3;
/// Shortest and longest token, in bytes.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 7..=128;

/// Words that name nobody: what documents, systems and calendars are full of.
static ORDINARY: LazyLock<HashSet<&'static str, RandomState>> =
    LazyLock::new(|| include_str!("ordinary.txt").split_whitespace().collect());

/// Which side of the comparison a text is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// What was read. What is distinctive is kept.
    Answer,
    /// What is said. Whatever could have been kept is looked up.
    Arguments,
}

/// One print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Print {
    /// Of a token or a name.
    Own(u64),
    /// Of a piece of running text.
    Piece(u64),
}

/// The prints of one JSON value.
#[derive(Debug, Default)]
pub(super) struct Prints(HashSet<Print, RandomState>);

impl Print {
    pub(super) fn value(self) -> u64 {
        match self {
            Self::Own(hash) | Self::Piece(hash) => hash,
        }
    }
}

impl Prints {
    /// The prints of all strings and long numbers in a JSON value; of keys there are none.
    pub(super) fn of(json: &str, side: Side, hasher: &RandomState) -> Self {
        let mut reader = Reader { side, hasher, prints: Self::default(), bytes_left: ANSWER_BYTES_MAX, nested: 0 };
        if side == Side::Arguments {
            reader.bytes_left = usize::MAX;
        }
        reader.json(json);
        reader.prints
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn each(&self) -> impl Iterator<Item = Print> {
        self.0.iter().copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|print| print.value())
    }

    pub(super) fn has(&self, print: Print) -> bool {
        self.0.contains(&print)
    }
}

/// Takes the prints of a text.
struct Reader<'h> {
    side: Side,
    hasher: &'h RandomState,
    prints: Prints,
    bytes_left: usize,
    nested: u8,
}

/// What is remembered of the word before.
#[derive(Clone, Copy)]
struct Word {
    hash: u64,
    /// It could begin a name.
    begins: bool,
    end: usize,
}

impl Reader<'_> {
    fn json(&mut self, json: &str) {
        for text in Texts::of(json) {
            self.string(&text);
        }
    }

    fn string(&mut self, text: &str) {
        if text.trim_start().starts_with(['{', '[']) && self.nested < NESTED_MAX && is_json(text) {
            self.nested += 1;
            self.json(text);
            self.nested -= 1;
            return;
        }
        let is_solid = |byte: u8| byte.is_ascii() && !byte.is_ascii_whitespace();
        let is_picture = self.side == Side::Answer && text.len() >= SOLID_BYTES && text.bytes().all(is_solid);
        if is_picture || self.bytes_left == 0 {
            return;
        }
        let text = text.get(..text.floor_char_boundary(self.bytes_left)).unwrap_or_default();
        self.bytes_left -= text.len();
        if text.is_ascii() {
            self.text(text);
        } else {
            // One letter may be written in several ways, and with what nobody sees in between.
            self.text(&text.nfkc().filter(|letter| !is_invisible(*letter)).collect::<String>());
        }
    }

    fn put(&mut self, print: Print) {
        if self.side == Side::Arguments || self.prints.len() < ANSWER_PRINTS_MAX {
            self.prints.0.insert(print);
        }
    }

    fn text(&mut self, text: &str) {
        self.tokens(text);
        self.words(text);
    }

    fn tokens(&mut self, text: &str) {
        let is_part = |letter: char| letter.is_alphanumeric() || "-_.@+".contains(letter);
        for token in text.split(|letter| !is_part(letter)) {
            let token = token.trim_matches(['-', '_', '.', '+']);
            if TOKEN_BYTES.contains(&token.len()) && is_own(token) {
                let hash = self.hash(0, token);
                self.put(Print::Own(hash));
            }
        }
    }

    fn words(&mut self, text: &str) {
        let mut before: Option<Word> = None;
        let mut piece = Pieces::default();
        for (start, word) in words(text) {
            let hash = self.hash(1, word);
            let is_capital = word.chars().next().is_some_and(char::is_uppercase);
            let could = self.side == Side::Arguments || is_capital;
            if let Some(first) = before
                && could
                && first.begins
                && text.get(first.end..start).is_some_and(|gap| matches!(gap, " " | "-" | "'" | "’" | " & "))
            {
                self.put(Print::Own(self.pair(first.hash, hash)));
            }
            let begins = could && (self.side == Side::Arguments || !is_ordinary(word));
            before = Some(Word { hash, begins, end: start + word.len() });
            if let Some(print) = piece.next(hash, self.side, self.hasher) {
                self.put(Print::Piece(print));
            }
        }
    }

    fn hash(&self, kind: u8, text: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u8(kind);
        for letter in text.chars().flat_map(char::to_lowercase) {
            hasher.write_u32(letter.into());
        }
        hasher.finish()
    }

    fn pair(&self, first: u64, second: u64) -> u64 {
        self.hasher.hash_one((first, second))
    }
}

/// The last words, and the last pieces of them.
#[derive(Default)]
struct Pieces {
    words: VecDeque<u64>,
    /// Hashes of pieces, with how often a word came until then.
    window: VecDeque<(u64, usize)>,
    count: usize,
    kept: Option<usize>,
}

impl Pieces {
    /// The print that is kept now that this word came.
    fn next(&mut self, word: u64, side: Side, hasher: &RandomState) -> Option<u64> {
        self.words.push_back(word);
        if self.words.len() < PIECE_WORDS {
            return None;
        }
        let piece = hasher.hash_one(&self.words);
        self.words.pop_front();
        if side == Side::Arguments {
            return Some(piece);
        }
        self.count += 1;
        self.window.push_back((piece, self.count));
        if self.window.len() < WINDOW {
            return None;
        }
        let (least, place) = self.window.iter().copied().min()?;
        self.window.pop_front();
        (self.kept.replace(place) != Some(place)).then_some(least)
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The words of a text, with where they begin. Scripts that put no spaces between words have a word for each letter.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut letters = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = letters.find(|(_, letter)| letter.is_alphanumeric())?;
        let mut end = start + first.len_utf8();
        if !has_no_spaces(first) {
            while let Some((at, letter)) =
                letters.next_if(|(_, letter)| letter.is_alphanumeric() && !has_no_spaces(*letter))
            {
                end = at + letter.len_utf8();
            }
        }
        Some((start, text.get(start..end)?))
    })
}

/// Chinese, Japanese, Thai and their neighbours.
fn has_no_spaces(letter: char) -> bool {
    matches!(letter, '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// What is written and not seen: joiners, marks of direction, soft hyphens, tags.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn is_ordinary(word: &str) -> bool {
    ORDINARY.contains(word.to_lowercase().as_str())
}

/// Whether a token is somebody's own by its shape: an address, a long number, letters and digits together.
fn is_own(token: &str) -> bool {
    let digits = token.bytes().filter(u8::is_ascii_digit).count();
    let has_letters = token.chars().any(char::is_alphabetic);
    if token.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.')) {
        return true;
    }
    if is_date(token) {
        return false;
    }
    if has_letters { digits >= 3 && token.len() > *TOKEN_BYTES.start() } else { digits >= 7 }
}

/// `2026-11-26…`, `26.11.2026`: everybody has days.
fn is_date(token: &str) -> bool {
    let shape: String =
        token.chars().take(10).map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    matches!(shape.as_str(), "0000-00-00" | "0000.00.00" | "00.00.0000" | "00-00-0000" | "0000_00_00")
        || (token.len() >= 8 && token.bytes().all(|byte| byte.is_ascii_digit()) && is_compact_date(token))
}

/// `20261126` and what follows it.
fn is_compact_date(digits: &str) -> bool {
    let part =
        |range| digits.get::<std::ops::Range<usize>>(range).and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
    matches!(digits.len(), 8 | 14)
        && (1990..=2099).contains(&part(0..4))
        && (1..=12).contains(&part(4..6))
        && (1..=31).contains(&part(6..8))
}
