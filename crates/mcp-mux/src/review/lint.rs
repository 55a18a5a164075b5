//! What is suspicious about a definition. Each rule has a name, is short, and misses whatever is said in other words: `docs/tools.md` lists
//! them, and what they cannot see.

use serde::Serialize;
use serde_json::Value;
use tenant_store::Tool;
use unicode_security::MixedScript as _;

use super::known::{Alike, Known};
use super::place::Place;
use crate::catalog::{first_unseen, is_unseen};

/// Most findings of one rule that are told.
const OF_RULE_MAX: usize = 10;
/// Longest quotation in a finding, in characters.
const QUOTE_CHARS_MAX: usize = 80;
/// Most texts of one definition that are looked at, keys included.
const TEXTS_MAX: usize = 20_000;
/// What models read of a tool before all else, and then what it is called by: nothing else uses up what is told of a rule.
const READ_FIRST: [&str; 6] = ["name", "title", "description", "inputSchema", "outputSchema", "annotations"];

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
pub(crate) fn findings(tool: &Tool, definition: &Value, known: &Known<'_>) -> Vec<Finding> {
    let mut lint = Lint { tool, known, texts: 0, few: Vec::new(), left_out: 0 };
    lint.names();
    lint.definition(definition);
    lint.end()
}

/// Goes through one definition, once.
struct Lint<'l> {
    tool: &'l Tool,
    known: &'l Known<'l>,
    /// How many texts there were so far.
    texts: usize,
    /// At most [`OF_RULE_MAX`] of each rule, so that none hides behind many of another.
    few: Vec<Finding>,
    left_out: usize,
}

impl Lint<'_> {
    fn find(&mut self, rule: &'static str, at: Place<'_>, what: impl FnOnce() -> String) {
        if self.few.iter().filter(|other| other.rule == rule).count() < OF_RULE_MAX {
            self.few.push(Finding { rule, at: at.to_string(), what: what() });
        } else {
            self.left_out += 1;
        }
    }

    fn names(&mut self) {
        let Alike { some, more } = self.known.alike(self.tool, OF_RULE_MAX);
        for other in some {
            let what = || format!("looks like `{}`, which is `{}`", other.local, other.exposed);
            self.find(HOMOGRAPH, Place::Member(&Place::Root, "name"), what);
        }
        self.left_out += more;
    }

    /// What models read first, then the rest.
    fn definition(&mut self, definition: &Value) {
        let Value::Object(members) = definition else { return self.value(definition, Place::Root) };
        let is_first = |key: &str| READ_FIRST.contains(&key);
        let first = READ_FIRST.iter().filter_map(|key| members.get_key_value(*key));
        for (key, member) in first.chain(members.iter().filter(|(key, _)| !is_first(key))) {
            self.member(key, member, Place::Root);
        }
    }

    /// Every string of a value, keys of objects too.
    fn value(&mut self, value: &Value, at: Place<'_>) {
        match value {
            Value::String(text) => self.text(text, at),
            Value::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.value(item, Place::Item(&at, place));
                }
            }
            Value::Object(members) => members.iter().for_each(|(key, member)| self.member(key, member, at)),
            _ => {}
        }
    }

    fn member(&mut self, key: &str, member: &Value, at: Place<'_>) {
        let at = Place::Member(&at, key);
        self.text(key, at);
        self.value(member, at);
    }

    fn text(&mut self, text: &str, at: Place<'_>) {
        self.texts += 1;
        if self.texts <= TEXTS_MAX {
            self.in_text(text, at);
            self.mentions(text, at);
        }
    }

    /// What the rules about texts alone find in one.
    fn in_text(&mut self, text: &str, at: Place<'_>) {
        if let Some(hidden) = first_unseen(text) {
            let what = || format!("has U+{:04X}, which is not seen, or turns what is", u32::from(hidden));
            self.find("hidden-characters", at, what);
        }
        // As a model reads it: what is not seen is no way to part a word.
        let seen: String = text.chars().filter(|char| !is_unseen(*char) || char.is_whitespace()).collect();
        if let Some(word) = seen.split(|char: char| !char.is_alphanumeric()).find(|word| !word.is_single_script()) {
            let what = || format!("has letters of several scripts in one word: \"{}\"", quoted(word));
            self.find("mixed-scripts", at, what);
        }
        let plain = seen.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
        for (rule, phrases) in [("instruction", &INSTRUCTIONS[..]), ("secret", &SECRETS[..])] {
            if let Some(phrase) = phrases.iter().find(|phrase| plain.contains(**phrase)) {
                self.find(rule, at, || format!("says \"{phrase}\": \"{}\"", quoted(text)));
            }
        }
        let carries = |word: &&str| {
            let is_url = word.contains("http://") || word.contains("https://");
            is_url && ["?", "{", "%s", "$"].iter().any(|sign| word.contains(sign))
        };
        if let Some(url) = plain.split(' ').find(carries) {
            self.find("url", at, || format!("has a URL that can carry data away: \"{}\"", quoted(url)));
        }
    }

    /// Names of other tools and tenants.
    fn mentions(&mut self, text: &str, at: Place<'_>) {
        let is_part = |char: char| char.is_alphanumeric() || "_-.".contains(char);
        let words = || text.split(|char| !is_part(char)).map(|word| word.trim_matches('.'));
        let (tool, known) = (self.tool, self.known);
        for (rule, named) in [
            ("other-tool", words().find(|word| known.is_other_tool(word, tool))),
            ("other-tenant", words().find(|word| known.is_other_tenant(word))),
        ] {
            if let Some(name) = named {
                self.find(rule, at, || format!("names `{name}`: \"{}\"", quoted(text)));
            }
        }
    }

    /// What was found, and in words what was not looked at and what is left out.
    fn end(mut self) -> Vec<Finding> {
        if self.texts > TEXTS_MAX {
            let what = || format!("has more than {TEXTS_MAX} texts: what follows was not looked at");
            self.find("too-many-texts", Place::Root, what);
        }
        if self.left_out > 0 {
            let what = format!("at least {} more findings are not shown", self.left_out);
            self.few.push(Finding { rule: "more", at: String::new(), what });
        }
        self.few
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
