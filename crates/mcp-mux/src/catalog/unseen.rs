//! Characters that nobody sees, or that turn what is seen: people overlook what they spell, models read it.

use std::iter;

/// What makes an emoji of a key of what stands before it (COMBINING ENCLOSING KEYCAP).
const KEY: char = '\u{20e3}';

/// Only what a text means to its readers is left of it. What ends a line in some other way ends it plainly.
pub(super) fn seen(chars: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let mut chars = chars.peekable();
    let mut before = Before::default();
    iter::from_fn(move || {
        loop {
            let char = match chars.next()? {
                '\r' if chars.peek() == Some(&'\n') => '\r',
                '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => '\n',
                char if is_unseen(char) && !before.is_shaped_by(char, chars.peek()) => continue,
                char => char,
            };
            before.goes_on(char);
            return Some(char);
        }
    })
}

/// The same of a text that must keep its length in characters, such as a key: what nobody sees is there to be seen.
pub(super) fn marked(text: &str) -> String {
    let (mut chars, mut before) = (text.chars().peekable(), Before::default());
    let mark = || {
        let char = chars.next()?;
        let is_idle = is_unseen(char) && !before.is_shaped_by(char, chars.peek());
        // Nothing shapes a mark.
        before.goes_on(if is_idle { ' ' } else { char });
        Some(if is_idle { char::REPLACEMENT_CHARACTER } else { char })
    };
    iter::from_fn(mark).collect()
}

/// The first character of a text that is not seen, and that no script and no emoji needs where it is.
pub(crate) fn first_unseen(text: &str) -> Option<char> {
    let (mut chars, mut before) = (text.chars().peekable(), Before::default());
    while let Some(char) = chars.next() {
        if is_unseen(char) && !before.is_shaped_by(char, chars.peek()) {
            return Some(char);
        }
        before.goes_on(char);
    }
    None
}

/// Whether a character is not seen or turns what is: controls but for line ends and tabs, marks of direction, what is ignored by default
/// (Unicode `Default_Ignorable_Code_Point`: joiners, fillers, selectors of variants, tags, and places kept for more of them), other line
/// ends, and marks of annotations.
pub(crate) fn is_unseen(char: char) -> bool {
    let is_plain_space = matches!(char, '\n' | '\r' | '\t');
    (char.is_control() && !is_plain_space)
        || matches!(
            char,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// What stands before a character: the last one, and the one before that.
#[derive(Debug, Default)]
struct Before {
    last: char,
    second_last: char,
}

impl Before {
    fn goes_on(&mut self, char: char) {
        (self.second_last, self.last) = (self.last, char);
    }

    /// Whether a character that is not seen shapes what is before it: one joiner behind a letter of a script whose letters join, as Persian
    /// and the scripts of India need it; one selector behind a sign that may be an emoji, or between what a key is marked with and the key,
    /// and behind that emoji or the selector the one joiner that makes it a part of the next. A row of anything else shapes nothing, and
    /// could spell something.
    fn is_shaped_by(&self, char: char, next: Option<&char>) -> bool {
        let Self { last, second_last } = *self;
        match char {
            '\u{200c}' => has_joined_letters(last),
            '\u{200d}' => has_joined_letters(last) || is_emoji(last) || (is_selector(last) && is_emoji(second_last)),
            selector if is_selector(selector) => {
                let is_on_key = matches!(last, '0'..='9' | '#' | '*') && next == Some(&KEY);
                is_emoji(last) || is_on_key
            }
            // Variants of Mongolian letters.
            '\u{180b}'..='\u{180d}' | '\u{180f}' => matches!(last, '\u{1820}'..='\u{18aa}'),
            _ => false,
        }
    }
}

/// What says whether a sign is an emoji.
fn is_selector(char: char) -> bool {
    matches!(char, '\u{fe0e}' | '\u{fe0f}')
}

/// A sign that may be an emoji (near to Unicode `Extended_Pictographic`, with the colours of skin).
fn is_emoji(char: char) -> bool {
    matches!(
        char,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2190}'..='\u{21ff}'
            | '\u{2300}'..='\u{27bf}' | '\u{2900}'..='\u{297f}' | '\u{2b00}'..='\u{2bff}' | '\u{3030}' | '\u{303d}'
            | '\u{3297}' | '\u{3299}' | '\u{1f000}'..='\u{1faff}'
    )
}

/// A letter or mark of a script whose letters change with their neighbours: Arabic and its kin, those of India and of the south-east of
/// Asia, and Mongolian.
fn has_joined_letters(char: char) -> bool {
    let is_of_such_a_script = matches!(
        char,
        '\u{600}'..='\u{109f}' | '\u{1700}'..='\u{1cff}' | '\u{a800}'..='\u{abff}' | '\u{fb50}'..='\u{fdff}'
            | '\u{fe70}'..='\u{fefc}' | '\u{10a00}'..='\u{11fff}' | '\u{1e900}'..='\u{1e95f}'
    );
    is_of_such_a_script && !is_unseen(char)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn left(text: &str) -> String {
        seen(text.chars()).collect()
    }

    #[test]
    fn what_scripts_and_emoji_need_stays() {
        for text in [
            "a\tb\nc\r\nd",
            "می\u{200c}خواهم",
            "ക\u{d4d}\u{200d}",
            "👩\u{200d}💻",
            "❤\u{fe0f}\u{200d}🔥",
            "⚠\u{fe0f} 1\u{fe0f}\u{20e3} #\u{fe0f}\u{20e3} ©\u{fe0f}",
            "👩🏽\u{200d}💻 🏳\u{fe0f}\u{200d}🌈 🏴\u{200d}☠\u{fe0f} ⛹🏻\u{200d}♂\u{fe0f} 👁\u{fe0f}\u{200d}🗨\u{fe0f}",
            "क\u{94d}\u{200d}ष ක\u{dca}\u{200d}ර",
            "ᠠ\u{180b}ᠮ",
            "Größe, señor, 課題, 한국어",
        ] {
            assert_eq!((left(text).as_str(), first_unseen(text)), (text, None), "{text:?}");
        }
    }

    #[test]
    fn what_nobody_sees_goes() {
        for (text, plain) in [
            ("a\u{200b}b\u{200c}c\u{200d}d\u{2060}\u{2064}\u{feff}\u{ad}e", "abcde"),
            ("a\u{202e}b\u{2066}c\u{2069}\u{200e}\u{200f}\u{61c}", "abc"),
            ("a\u{e0049}\u{e007f}\u{e0100}\u{e01ef}b", "ab"),
            ("a\u{180e}\u{115f}\u{1160}\u{3164}\u{ffa0}b", "ab"),
            ("a\u{0}\u{8}\u{1b}[8m\u{7f}\u{9b}b", "a[8mb"),
            ("😀\u{fe0f}\u{fe0f}\u{fe0e}\u{fe00}\u{fe0b}b", "😀\u{fe0f}b"),
            ("я\u{200d}\u{200c}\u{fe0f}\u{200d}b", "яb"),
            ("م\u{200c}\u{200d}\u{fe0f}\u{200c}b", "م\u{200c}b"),
            ("م\u{fe0f}\u{200d}b", "م\u{200d}b"),
            ("👩\u{200c}\u{200d}\u{200d}\u{fe0f}b", "👩\u{200d}b"),
            ("👩\u{fe0f}\u{200d}\u{fe0f}\u{200d}b", "👩\u{fe0f}\u{200d}b"),
            ("課\u{fe0f}\u{200d}b ü\u{200d}", "課b ü"),
            ("1\u{fe0f}2\u{fe0e}#\u{fe0f}b 3\u{fe0f}\u{200b}\u{20e3}", "12#b 3\u{20e3}"),
        ] {
            assert_eq!(left(text), plain, "{text:?}");
            assert!(first_unseen(text).is_some(), "{text:?}");
        }
        assert_eq!(left("a\rb\u{b}c\u{c}d\u{85}e\u{2028}f\u{2029}g"), "a\nb\nc\nd\ne\nf\ng");
    }

    #[test]
    fn what_nobody_sees_in_a_key_is_there_to_be_seen() {
        for (text, shown) in [
            ("com.example/x", "com.example/x"),
            ("a\u{200b}\u{200d}b", "a��b"),
            ("می\u{200c}خواهم", "می\u{200c}خواهم"),
            ("👩\u{200c}\u{200d}", "👩��"),
        ] {
            assert_eq!((marked(text).as_str(), marked(&marked(text)).as_str()), (shown, shown));
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_left_alone(text in "([a-zяم👩❤1]|\\x{20e3}|[\\x{200b}-\\x{200f}]|[\\x{fe00}-\\x{fe0f}]|\r|\n|\\x{e0100}){0,20}") {
            let once = left(&text);
            prop_assert_eq!(first_unseen(&once), None);
            prop_assert_eq!(left(&once), once);
        }
    }
}
