//! Characters that nobody sees, or that turn what is seen: people overlook what they spell, models read it.

use std::iter;

/// Only what a text means to its readers is left of it. What ends a line in some other way ends it plainly.
pub(super) fn seen(chars: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let mut chars = chars.peekable();
    let mut before = ' ';
    iter::from_fn(move || {
        loop {
            let char = match chars.next()? {
                '\r' if chars.peek() == Some(&'\n') => '\r',
                '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => '\n',
                char if is_unseen(char) && !shapes(before, char) => continue,
                char => char,
            };
            before = char;
            return Some(char);
        }
    })
}

/// The first character of a text that is not seen, and that no script and no emoji needs where it is.
pub(crate) fn first_unseen(text: &str) -> Option<char> {
    let mut before = ' ';
    text.chars().find(|char| {
        let is_idle = is_unseen(*char) && !shapes(before, *char);
        before = if is_idle { before } else { *char };
        is_idle
    })
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

/// Whether a character that is not seen shapes the one before it: one joiner behind a letter of a script other than Latin's plain one,
/// which Persian and the scripts of India need, or behind an emoji; one selector that says whether a sign is an emoji. A row of them
/// shapes nothing, and could spell something. No text needs another selector to be understood.
fn shapes(before: char, char: char) -> bool {
    let is_joiner = |char| matches!(char, '\u{200c}' | '\u{200d}');
    let is_selector = |char| matches!(char, '\u{fe0e}' | '\u{fe0f}');
    let is_keycap = before.is_ascii_digit() || matches!(before, '#' | '*');
    let is_letter = !before.is_ascii() && !is_joiner(before);
    (is_joiner(char) && is_letter) || (is_selector(char) && !is_selector(before) && (is_letter || is_keycap))
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
            "⚠\u{fe0f} 1\u{fe0f}\u{20e3}",
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
            ("я\u{200d}\u{200c}\u{200d}\u{fe0f}b", "я\u{200d}b"),
        ] {
            assert_eq!(left(text), plain, "{text:?}");
            assert!(first_unseen(text).is_some(), "{text:?}");
        }
        assert_eq!(left("a\rb\u{b}c\u{c}d\u{85}e\u{2028}f\u{2029}g"), "a\nb\nc\nd\ne\nf\ng");
    }

    proptest! {
        #[test]
        fn what_is_left_is_left_alone(text in "([a-zя👩❤]|[\\x{200b}-\\x{200f}]|[\\x{fe00}-\\x{fe0f}]|\r|\n|\\x{e0100}){0,20}") {
            let once = left(&text);
            prop_assert_eq!(first_unseen(&once), None);
            prop_assert_eq!(left(&once), once);
        }
    }
}
