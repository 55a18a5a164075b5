//! URIs in what upstreams answer, as the caller can use them: links, embedded resources and contents say whose they are, where that
//! must be said.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::Error as _;
use serde_json::value::RawValue;
use tenant_store::{TenantSlug, UpstreamSlug};

use super::Sight;
use super::wish::{Target, Wish};
use crate::catalog::{Face, carry, is_ours, skill_files};
use crate::json::{self, Members};
use crate::upstream::UpstreamError;

type Edits = Vec<(Range<usize>, String)>;

/// How one answer's URIs are put.
#[derive(Debug, Clone)]
pub(super) struct Uris {
    tenant: TenantSlug,
    upstream: UpstreamSlug,
    /// Where in an answer they are.
    inside: Inside,
    /// The upstream's own URIs say enough.
    keeps_own: bool,
    /// What was asked for, and under which URI it is known at the upstream: contents of that keep the name that the caller used.
    asked: Option<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// `content[…]`
    Tool,
    /// `messages[…].content`
    Prompt,
    /// `contents[…]`
    Resource,
    /// `result.content[…]`
    Task,
    /// `skill` and `skill.resources[…]`
    Skill,
    Nothing,
}

impl Uris {
    pub(super) fn of(sight: &Sight, target: &Target<'_>, wish: &Wish<'_>) -> Self {
        let (tenant, upstream) = target.slugs();
        let (inside, asked) = match wish {
            Wish::Tool { .. } => (Inside::Tool, None),
            Wish::Prompt { .. } => (Inside::Prompt, None),
            Wish::Resource { uri } => (Inside::Resource, Some((uri.to_string(), target.local.clone()))),
            Wish::Completion { .. } => (Inside::Nothing, None),
            Wish::Task { .. } => (Inside::Task, None),
            Wish::Skill { uri } => (Inside::Skill, Some((uri.to_string(), target.local.clone()))),
        };
        let is_only = target.shelf.only_with_resources().is_some_and(|only| only.id == target.upstream.id);
        // A skill is asked for by one name, and its files lie below that.
        let is_carried = matches!(wish, Wish::Skill { uri } if *uri != target.local);
        let keeps_own = sight.face == Face::Tenant && is_only && !is_carried;
        Self { tenant, upstream, inside, keeps_own, asked }
    }

    /// The result with its URIs put. What could have one and cannot be read is refused: two readers could find two.
    pub(super) fn put(&self, result: Box<RawValue>) -> Result<Box<RawValue>, UpstreamError> {
        let text = result.get();
        let may_have_one = text.contains("\"uri\"") || text.contains("\\u");
        if self.inside == Inside::Nothing || (!may_have_one && self.inside != Inside::Skill) {
            return Ok(result);
        }
        let mut edits = Vec::new();
        self.find(text, &mut edits).map_err(|_| UpstreamError::NotMcp)?;
        if edits.is_empty() {
            return Ok(result);
        }
        RawValue::from_string(json::splice(text, edits)).map_err(|_| UpstreamError::Setup)
    }

    fn find(&self, text: &str, edits: &mut Edits) -> Result<(), serde_json::Error> {
        let result = Members::parse(text)?;
        match self.inside {
            Inside::Tool => self.blocks(text, result.get("content"), edits)?,
            Inside::Prompt => {
                for message in elements(result.get("messages")) {
                    match Members::parse(message.get())?.get("content") {
                        Some(block) if json::is_object(block) => self.block(text, block, edits)?,
                        blocks => self.blocks(text, blocks, edits)?,
                    }
                }
            }
            Inside::Resource => {
                for contents in elements(result.get("contents")) {
                    self.uri(text, contents, edits)?;
                }
            }
            Inside::Task => {
                if let Some(done) = result.get("result").filter(|raw| json::is_object(raw)) {
                    self.blocks(text, Members::parse(done.get())?.get("content"), edits)?;
                }
            }
            Inside::Skill => {
                let skill = result.get("skill").filter(|raw| json::is_object(raw));
                let skill = skill.ok_or_else(|| serde_json::Error::custom("no skill"))?;
                let members = Members::parse(skill.get())?;
                // Another one was not asked for, and nobody decided about it.
                let uri = members.get_str("uri").filter(|uri| self.asked.as_ref().is_some_and(|(_, own)| own == uri));
                let uri = uri.ok_or_else(|| serde_json::Error::custom("another skill"))?;
                // What would not be listed is not described.
                skill_files(skill, &uri).ok_or_else(|| serde_json::Error::custom("no skill that a host may load"))?;
                self.uri(text, skill, edits)?;
                elements(members.get("resources")).try_for_each(|file| self.uri(text, file, edits))?;
            }
            Inside::Nothing => {}
        }
        Ok(())
    }

    fn blocks(&self, text: &str, blocks: Option<&RawValue>, edits: &mut Edits) -> Result<(), serde_json::Error> {
        elements(blocks).try_for_each(|block| self.block(text, block, edits))
    }

    /// A link, or an embedded resource.
    fn block(&self, text: &str, block: &RawValue, edits: &mut Edits) -> Result<(), serde_json::Error> {
        if !json::is_object(block) {
            return Ok(());
        }
        let members = Members::parse(block.get())?;
        match (members.get_str("type").as_deref(), members.get("resource")) {
            (Some("resource_link"), _) => self.uri(text, block, edits),
            (Some("resource"), Some(inner)) => self.uri(text, inner, edits),
            _ => Ok(()),
        }
    }

    fn uri(&self, text: &str, object: &RawValue, edits: &mut Edits) -> Result<(), serde_json::Error> {
        if !json::is_object(object) {
            return Ok(());
        }
        let Some(raw) = Members::parse(object.get())?.get("uri") else { return Ok(()) };
        let (Some(uri), Some(span)) = (json::as_str(raw), json::span_in(text, raw.get())) else { return Ok(()) };
        if let Cow::Owned(name) = self.name(&uri) {
            edits.push((span, json::quote(&name)));
        }
        Ok(())
    }

    /// The name under which the caller knows what is `own` at the upstream.
    pub(super) fn name<'u>(&self, own: &'u str) -> Cow<'u, str> {
        match &self.asked {
            Some((name, asked)) if asked == own => Cow::Owned(name.clone()),
            _ if self.keeps_own && !is_ours(own) => Cow::Borrowed(own),
            _ => Cow::Owned(carry(&self.tenant, &self.upstream, own)),
        }
    }
}

fn elements(array: Option<&RawValue>) -> impl Iterator<Item = &RawValue> {
    let array: Option<Vec<&RawValue>> = array.and_then(|array| serde_json::from_str(array.get()).ok());
    array.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(inside: Inside, keeps_own: bool, asked: Option<(&str, &str)>) -> Uris {
        let asked = asked.map(|(shown, own)| (shown.to_owned(), own.to_owned()));
        Uris { tenant: "acme".parse().unwrap(), upstream: "files".parse().unwrap(), inside, keeps_own, asked }
    }

    fn put(uris: &Uris, text: &str) -> String {
        uris.put(RawValue::from_string(text.to_owned()).unwrap()).unwrap().get().to_owned()
    }

    #[test]
    fn links_and_embedded_resources_say_whose_they_are_and_nothing_else_changes() {
        let text = r#"{ "content":[{"type":"text","text":"\"uri\":\"x\""}, {"uri" : "file:///a","type":"resource_link","n":1.50},{"type":"resource","resource":{"uri":"b\u003ac","text":"t"},"uri":"mine"},{"type":"video","uri":"v"},7],"structuredContent":{"uri":"file:///s"}}"#;
        let expected = r#"{ "content":[{"type":"text","text":"\"uri\":\"x\""}, {"uri" : "mcp-mux://acme/files/file:///a","type":"resource_link","n":1.50},{"type":"resource","resource":{"uri":"mcp-mux://acme/files/b:c","text":"t"},"uri":"mine"},{"type":"video","uri":"v"},7],"structuredContent":{"uri":"file:///s"}}"#;
        assert_eq!(put(&uris(Inside::Tool, false, None), text), expected);
        assert_eq!(put(&uris(Inside::Tool, true, None), text), text, "one upstream's own URIs say enough");
        let forged = r#"{"content":[{"type":"resource_link","uri":"mcp-mux://globex/files/x"}]}"#;
        let wrapped = r#"{"content":[{"type":"resource_link","uri":"mcp-mux://acme/files/mcp-mux://globex/files/x"}]}"#;
        assert_eq!(put(&uris(Inside::Tool, true, None), forged), wrapped, "no upstream speaks for another");
    }

    #[test]
    fn a_link_that_is_spelt_otherwise_is_a_link_too_and_one_that_is_there_twice_is_refused() {
        let text = r#"{"content":[{"type":"resource_link","\u0075ri":"mcp-mux://globex/files/x"}]}"#;
        let expected =
            r#"{"content":[{"type":"resource_link","\u0075ri":"mcp-mux://acme/files/mcp-mux://globex/files/x"}]}"#;
        assert_eq!(put(&uris(Inside::Tool, true, None), text), expected);
        let twice = r#"{"content":[{"type":"resource_link","uri":"a:1","uri":"mcp-mux://globex/files/x"}]}"#;
        let twice = RawValue::from_string(twice.to_owned()).unwrap();
        assert_eq!(uris(Inside::Tool, true, None).put(twice).unwrap_err(), UpstreamError::NotMcp);
    }

    #[test]
    fn what_a_task_says_in_the_end_is_put_like_any_answer() {
        let text = r#"{"status":"completed","taskId":"1","result":{"content":[{"type":"resource_link","uri":"a:1"}]}}"#;
        let expected = r#"{"status":"completed","taskId":"1","result":{"content":[{"type":"resource_link","uri":"mcp-mux://acme/files/a:1"}]}}"#;
        assert_eq!(put(&uris(Inside::Task, false, None), text), expected);
    }

    #[test]
    fn messages_have_one_block_or_several() {
        let text = r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"a:1"}},{"content":[{"type":"resource_link","uri":"a:2"}]},{"content":"x"}]}"#;
        let expected = r#"{"messages":[{"role":"user","content":{"type":"resource_link","uri":"mcp-mux://acme/files/a:1"}},{"content":[{"type":"resource_link","uri":"mcp-mux://acme/files/a:2"}]},{"content":"x"}]}"#;
        assert_eq!(put(&uris(Inside::Prompt, false, None), text), expected);
    }

    #[test]
    fn what_was_asked_for_comes_back_under_the_uri_that_was_used() {
        let text = r#"{"contents":[{"uri":"a:1","text":"x"},{"uri":"a:2","text":"y"}]}"#;
        let asked = Some(("mcp-mux://acme/files/a:1", "a:1"));
        let expected = r#"{"contents":[{"uri":"mcp-mux://acme/files/a:1","text":"x"},{"uri":"mcp-mux://acme/files/a:2","text":"y"}]}"#;
        assert_eq!(put(&uris(Inside::Resource, false, asked), text), expected);
        assert_eq!(put(&uris(Inside::Resource, true, Some(("a:1", "a:1"))), text), text);
    }
}
