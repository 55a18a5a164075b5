//! What is suspicious about a definition. Each rule has a name, is short, and misses whatever is said in other words: `docs/tools.md` lists
//! them, and what they cannot see.

use serde::Serialize;
use serde_json::Value;
use tenant_store::Tool;
use unicode_security::MixedScript as _;

use super::Among;
use crate::catalog::{first_unseen, is_unseen, look_alike, skeleton};

/// Most findings of one rule that are told.
const OF_RULE_MAX: usize = 10;
/// Longest quotation in a finding, in characters.
const QUOTE_CHARS_MAX: usize = 80;
/// Shortest name of a tenant that is looked for in texts: shorter ones are words.
const NAMED_CHARS_MIN: usize = 4;

/// The rule about names that could be taken for others.
pub(crate) const HOMOGRAPH: &str = "homograph";

/// What only a model is told, and what it is told to keep from people. In small letters, with single spaces.
const INSTRUCTIONS: [&str; 19] = [
    "ignore previous",
    "ignore all previous",
    "ignore the above",
    "ignore your",
    "disregard",
    "do not tell",
    "don't tell",
    "do not mention",
    "don't mention",
    "do not inform",
    "without telling",
    "without informing",
    "without asking",
    "system prompt",
    "you must always",
    "before using any other tool",
    "<important>",
    "<system>",
    "<instructions>",
];
/// What a tool has no reason to ask for in its texts.
const SECRETS: [&str; 15] = [
    "api key",
    "api_key",
    "apikey",
    "password",
    "private key",
    "access token",
    "credentials",
    "conversation history",
    "id_rsa",
    "~/.",
    ".ssh/",
    ".aws/",
    ".env",
    "/etc/passwd",
    "mcp.json",
];

/// Something suspicious.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The rule's name.
    pub(crate) rule: &'static str,
    /// Where: a JSON pointer.
    pub(crate) at: String,
    /// What it is, with part of the text.
    pub(crate) what: String,
}

impl Finding {
    /// Whoever reads it may understand something else than is shown here.
    pub(super) fn unreadable() -> Self {
        let what = "is JSON that not everybody reads in the same way: a number or a text that some cannot hold, or a member that is there twice";
        Self { rule: "unreadable", at: String::new(), what: what.to_owned() }
    }
}

/// All that the rules find.
pub(crate) fn findings(tool: &Tool, definition: &Value, among: Among<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for other in among.tools.iter().filter(|other| !is_same(tool, other)) {
        let alike = look_alike(&tool.local, &other.local)
            || skeleton(tool.exposed.as_str()) == skeleton(other.exposed.as_str());
        if alike {
            let what = format!("looks like `{}`, which is `{}`", other.local, other.exposed);
            found.push(Finding { rule: HOMOGRAPH, at: "/name".to_owned(), what });
        }
    }
    let mut texts = Vec::new();
    collect(definition, String::new(), &mut texts);
    for (at, text) in &texts {
        in_text(at, text, &mut found);
        mentions(at, text, (tool, among), &mut found);
    }
    few_of_each(found)
}

/// At most [`OF_RULE_MAX`] of each rule, so that none hides behind many of another, and what is left out is said.
fn few_of_each(found: Vec<Finding>) -> Vec<Finding> {
    let (mut few, mut left_out) = (Vec::<Finding>::new(), 0_usize);
    for finding in found {
        if few.iter().filter(|other| other.rule == finding.rule).count() < OF_RULE_MAX {
            few.push(finding);
        } else {
            left_out += 1;
        }
    }
    if left_out > 0 {
        few.push(Finding { rule: "more", at: String::new(), what: format!("{left_out} more findings are not shown") });
    }
    few
}

fn is_same(one: &Tool, other: &Tool) -> bool {
    (one.upstream, &one.local) == (other.upstream, &other.local)
}

/// Every string of a value with its place, keys of objects too.
fn collect(value: &Value, at: String, texts: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => texts.push((at, text.clone())),
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                collect(item, format!("{at}/{place}"), texts);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                texts.push((at.clone(), key.clone()));
                collect(member, at, texts);
            }
        }
        _ => {}
    }
}

/// What the rules about texts alone find in one.
fn in_text(at: &str, text: &str, found: &mut Vec<Finding>) {
    let mut find = |rule, what: String| found.push(Finding { rule, at: at.to_owned(), what });
    if let Some(hidden) = first_unseen(text) {
        find("hidden-characters", format!("has U+{:04X}, which is not seen, or turns what is", u32::from(hidden)));
    }
    // As a model reads it: what is not seen is no way to part a word.
    let seen: String = text.chars().filter(|char| !is_unseen(*char) || char.is_whitespace()).collect();
    if let Some(word) = seen.split(|char: char| !char.is_alphanumeric()).find(|word| !word.is_single_script()) {
        find("mixed-scripts", format!("has letters of several scripts in one word: \"{}\"", quoted(word)));
    }
    let plain = seen.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    for (rule, phrases) in [("instruction", &INSTRUCTIONS[..]), ("secret", &SECRETS[..])] {
        if let Some(phrase) = phrases.iter().find(|phrase| plain.contains(**phrase)) {
            find(rule, format!("says \"{phrase}\": \"{}\"", quoted(text)));
        }
    }
    let carries = |word: &&str| {
        let is_url = word.contains("http://") || word.contains("https://");
        is_url && ["?", "{", "%s", "$"].iter().any(|sign| word.contains(sign))
    };
    if let Some(url) = plain.split(' ').find(carries) {
        find("url", format!("has a URL that can carry data away: \"{}\"", quoted(url)));
    }
}

/// Names of other tools and tenants.
fn mentions(at: &str, text: &str, (tool, among): (&Tool, Among<'_>), found: &mut Vec<Finding>) {
    let is_part = |char: char| char.is_alphanumeric() || "_-.".contains(char);
    let words = || text.split(|char| !is_part(char)).map(|word| word.trim_matches('.'));
    // A name of one plain word is a word.
    let is_name = |name: &str| name.contains(['_', '-', '.']) || name.chars().skip(1).any(char::is_uppercase);
    let others = among.tools.iter().filter(|other| other.local != tool.local);
    let names = others.flat_map(|other| [other.local.as_str(), other.exposed.as_str()]).filter(|name| is_name(name));
    let tenants = among.tenants.iter().map(|slug| slug.as_str()).filter(|slug| slug.len() >= NAMED_CHARS_MIN);
    for (rule, names) in [("other-tool", names.collect::<Vec<_>>()), ("other-tenant", tenants.collect())] {
        if let Some(name) = names.iter().find(|name| words().any(|word| word == **name)) {
            let what = format!("names `{name}`: \"{}\"", quoted(text));
            found.push(Finding { rule, at: at.to_owned(), what });
        }
    }
}

fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let mut quoted: String = chars.by_ref().take(QUOTE_CHARS_MAX).collect();
    if chars.next().is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests;
