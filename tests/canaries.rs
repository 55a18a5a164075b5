//! No secret of the test run is in any log or database that it left behind.
//!
//! Every secret that a test makes up contains [`MARKER`]. The servers under test log everything they can and write to
//! `target/test-output/`; once all other tests are over, this program reads what lies there, byte by byte, and looks for the
//! marker in every form in which a program might have written it down, and for tokens, which carry no marker. It therefore
//! runs alone and last: `cargo nextest run --test canaries --ignore-default-filter`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

/// What every secret of the tests contains.
const MARKER: &[u8] = b"CANARY-";

/// Shortest part of a token, in characters, that is taken for one: prose with dots in it has shorter ones.
const TOKEN_PART_CHARS_MIN: usize = 10;

/// How much is shown of what stands in front of a leak, in bytes. The leak itself is not shown again.
const EXCERPT_BYTES: usize = 60;
const LEAKS_SHOWN_MAX: usize = 50;

/// The marker as some program would have written it.
struct Needle {
    form: &'static str,
    text: String,
}

/// All forms of the marker.
fn needles() -> Vec<Needle> {
    let each = |write: fn(&u8) -> String, between: &str| MARKER.iter().map(write).collect::<Vec<_>>().join(between);
    let mut needles = vec![
        ("plain", each(|byte| char::from(*byte).to_string(), "")),
        ("lower-case hexadecimal", each(|byte| format!("{byte:02x}"), "")),
        ("upper-case hexadecimal", each(|byte| format!("{byte:02X}"), "")),
        ("lower-case percent-encoded", each(|byte| format!("%{byte:02x}"), "")),
        ("upper-case percent-encoded", each(|byte| format!("%{byte:02X}"), "")),
        ("percent-encoded punctuation", "CANARY%2D".to_owned()),
        ("percent-encoded punctuation", "CANARY%2d".to_owned()),
        ("escaped as in JSON", "CANARY\\u002d".to_owned()),
        ("escaped as in JSON", "CANARY\\u002D".to_owned()),
        ("a list of bytes", each(u8::to_string, ", ")),
        ("a list of bytes", each(u8::to_string, ",")),
        ("UTF-16", each(|byte| char::from(*byte).to_string(), "\0")),
        ("an API key", "mcpmux_".to_owned()),
    ];
    for alphabet in [alphabet::STANDARD, alphabet::URL_SAFE] {
        let engine = GeneralPurpose::new(&alphabet, NO_PAD);
        needles.extend((0..3).map(|before| ("base64", inner_base64(&engine, before))));
    }
    needles.sort_by(|one, other| one.1.cmp(&other.1));
    needles.dedup_by(|one, other| one.1 == other.1);
    needles.into_iter().map(|(form, text)| Needle { form, text }).collect()
}

/// The characters of base64 that depend on the marker alone, when it stands behind `before` other bytes and in front of more.
fn inner_base64(engine: &GeneralPurpose, before: usize) -> String {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(MARKER);
    let whole = bytes.len() * 8 / 6;
    engine.encode(bytes).chars().take(whole).skip((before * 8).div_ceil(6)).collect()
}

/// Something that must not be there.
#[derive(Debug)]
struct Leak {
    file: PathBuf,
    offset: usize,
    form: &'static str,
    before: String,
}

/// The leaks in one file.
fn leaks_in(file: &Path, needles: &[Needle]) -> anyhow::Result<Vec<Leak>> {
    let mut bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    // All that is searched for is ASCII. Without the eighth bit everything is, and text is searched fast in any build.
    for byte in &mut bytes {
        *byte &= 0x7f;
    }
    let text = String::from_utf8(bytes)?;
    let leak = |offset, form| {
        let before = text.get(..offset).unwrap_or_default();
        let excerpt = before.get(before.len().saturating_sub(EXCERPT_BYTES)..).unwrap_or_default();
        Leak { file: file.to_owned(), offset, form, before: excerpt.escape_default().to_string() }
    };
    let mut leaks = Vec::new();
    for needle in needles {
        leaks.extend(text.match_indices(&needle.text).map(|(offset, _)| leak(offset, needle.form)));
    }
    let tokens = text.match_indices("eyJ").filter(|(offset, _)| text.get(*offset..).is_some_and(begins_a_token));
    leaks.extend(tokens.map(|(offset, _)| leak(offset, "a signed or encrypted token")));
    Ok(leaks)
}

/// Whether a compact JWT begins here: a JSON object in base64url, and at least two more parts behind dots.
fn begins_a_token(text: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let part = |text: &str| text.find(|c| !is_token(c)).unwrap_or(text.len());
    let mut rest = text;
    for _ in 0..2 {
        let Some((first, behind)) = rest.split_at_checked(part(rest)) else { return false };
        let Some(next) = behind.strip_prefix('.').filter(|_| first.len() >= TOKEN_PART_CHARS_MIN) else { return false };
        rest = next;
    }
    part(rest) >= TOKEN_PART_CHARS_MIN
}

/// All leaks below `folder`. Nothing to look at is an error: then the search has proved nothing.
fn scan(folder: &Path) -> anyhow::Result<Vec<Leak>> {
    let (mut logs, mut databases) = (0, 0);
    let needles = needles();
    let mut leaks = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            leaks.extend(leaks_in(&entry.path(), &needles)?);
            let written = entry.metadata()?.len() > 0;
            logs += u32::from(written && entry.path().extension().is_some_and(|extension| extension == "log"));
            databases += u32::from(written && entry.path().extension().is_some_and(|extension| extension == "db"));
        }
    }
    ensure!(logs > 0, "there is no log in {}: run all other tests first", folder.display());
    ensure!(databases > 0, "there is no database in {}: run all other tests first", folder.display());
    Ok(leaks)
}

#[test]
fn no_log_and_no_database_of_the_test_run_holds_a_secret() -> anyhow::Result<()> {
    let leaks = scan(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-output"))?;
    let lines = leaks.iter().take(LEAKS_SHOWN_MAX).map(|leak| {
        format!("{}, byte {}: {}, behind \"{}\"\n", leak.file.display(), leak.offset, leak.form, leak.before)
    });
    ensure!(leaks.is_empty(), "{} secrets were written down:\n{}", leaks.len(), lines.collect::<String>());
    Ok(())
}

/// The search against planted secrets.
#[cfg(test)]
mod bites {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    /// What the search finds in a log with `content`, beside a harmless database.
    fn found_in(content: &[u8]) -> Vec<Leak> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("server")).unwrap();
        fs::write(folder.path().join("server/one.log"), content).unwrap();
        fs::write(folder.path().join("one.db"), "harmless").unwrap();
        scan(folder.path()).unwrap()
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = b"CANARY-6f1d";
        let list = |separator: &str| secret.map(|byte| byte.to_string()).join(separator);
        let hexadecimal = secret.map(|byte| format!("{byte:02x}")).concat();
        let percent = secret.map(|byte| format!("%{byte:02X}")).concat();
        let mut forms = vec![
            "Bearer CANARY-6f1d".to_owned(),
            "CANARY%2D6f1d".to_owned(),
            hexadecimal.to_uppercase(),
            hexadecimal,
            percent.to_lowercase(),
            percent,
            format!("{secret:?}"),
            list(","),
            r#"{"key":"CANARY\u002d6f1d"}"#.to_owned(),
            "C\0A\0N\0A\0R\0Y\0-\x006\0".to_owned(),
        ];
        for before in ["", "a", "ab", "abc", "user:", "a longer text"] {
            let text = [before.as_bytes(), secret, b" and more"].concat();
            forms.extend([STANDARD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
        }
        for form in forms {
            let leaks = found_in(format!("a line\nanother: {form}\n").as_bytes());
            assert_eq!(leaks.len(), 1, "{form:?} was found as {leaks:?}");
        }
    }

    #[test]
    fn a_token_is_found_although_it_has_no_marker() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLW9mLWl0";
        let leaks = found_in(format!("authorization: Bearer {token}").as_bytes());
        assert!(leaks.iter().any(|leak| leak.form == "a signed or encrypted token" && leak.offset == 22), "{leaks:?}");
        assert!(leaks.iter().all(|leak| !leak.before.contains("c2lnbmF0")), "{leaks:?}");
    }

    #[test]
    fn what_is_no_secret_is_not_found() {
        let harmless = "CANARY canary- eyJ.eyJ.x eyJhbGciOiJSUzI1NiJ9.short.short 43414e, \u{1f426}";
        assert!(found_in(harmless.as_bytes()).is_empty());
    }

    #[test]
    fn a_leak_is_shown_with_its_place_but_not_repeated() {
        let leaks = found_in(b"key=CANARY-6f1d");
        let [leak] = leaks.as_slice() else { panic!("{leaks:?}") };
        assert_eq!((leak.offset, leak.form, leak.before.as_str()), (4, "plain", "key="));
        assert!(leak.file.ends_with("server/one.log"), "{leak:?}");
    }

    #[test]
    fn nothing_to_search_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(scan(&folder.path().join("missing")).is_err());
        fs::write(folder.path().join("one.log"), "a line").unwrap();
        let error = scan(folder.path()).unwrap_err();
        assert!(error.to_string().starts_with("there is no database"), "{error}");
        fs::write(folder.path().join("one.db"), "").unwrap();
        assert!(scan(folder.path()).is_err(), "an empty database was taken for one");
        fs::write(folder.path().join("one.db"), "rows").unwrap();
        assert!(scan(folder.path()).unwrap().is_empty());
    }
}
