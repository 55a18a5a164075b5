//! What a child speaks: the modern era first, then the legacy handshake, as with any upstream. And what is answered from it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::time::timeout;

use super::conversation::{Cancels, Client, Conversation};
use super::message;
use crate::gateway::era::VERSIONS;
use crate::json::{self, Members};
use crate::protocol::MODERN_VERSION;

/// How long a child is given to answer `server/discover` before the handshake is tried. A process that starts is slow.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a child is given for the handshake: it may have to be fetched and unpacked first.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_mins(1);

const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

/// What was agreed on with a child.
#[derive(Debug)]
pub(super) enum Agreement {
    /// What it answered to `server/discover`.
    Modern(Box<RawValue>),
    /// What it answered to `initialize`, and the version that it chose.
    Legacy { initialized: Box<RawValue>, version: String },
}

/// Why there is no agreement.
#[derive(Debug, thiserror::Error)]
pub(super) enum Disagreement {
    #[error("it did not answer `initialize` in time")]
    Silent,
    #[error("it stopped before it answered `initialize`")]
    Stopped,
    #[error("it refused `initialize`: {0}")]
    Refused(String),
}

/// Finds out what the child speaks. One that `is_legacy` is known to be is not asked for the other era again.
pub(super) async fn agree(conversation: &Arc<Conversation>, is_legacy: bool) -> Result<Agreement, Disagreement> {
    if !is_legacy && let Some(discovered) = discover(conversation).await {
        return Ok(Agreement::Modern(discovered));
    }
    let version = legacy_versions().next().unwrap_or_default();
    let asked = ask(conversation, |id| message::initialize(id, version));
    let answer = timeout(HANDSHAKE_TIMEOUT, asked).await.map_err(|_| Disagreement::Silent)?;
    let answer = answer.ok_or(Disagreement::Stopped)?;
    let members = Members::parse(&answer).map_err(|_| Disagreement::Stopped)?;
    let result = members.get("result").ok_or_else(|| Disagreement::Refused(error_text(&members)))?;
    let chosen = Members::parse(result.get()).ok().and_then(|result| result.get_str("protocolVersion"));
    let version = chosen.ok_or_else(|| Disagreement::Refused("its answer has no `protocolVersion`".to_owned()))?;
    conversation.tell(message::initialized()).await;
    Ok(Agreement::Legacy { version: version.into_owned(), initialized: result.to_owned() })
}

/// The answer to `server/discover`, if it lists the modern version.
async fn discover(conversation: &Arc<Conversation>) -> Option<Box<RawValue>> {
    let answer = timeout(DISCOVER_TIMEOUT, ask(conversation, message::discover)).await.ok()??;
    let result = Members::parse(&answer).ok()?.get("result")?;
    let versions = Members::parse(result.get()).ok()?.get("supportedVersions")?;
    let versions: Vec<String> = serde_json::from_str(versions.get()).ok()?;
    versions.iter().any(|version| version == MODERN_VERSION).then(|| result.to_owned())
}

async fn ask(conversation: &Arc<Conversation>, line: impl FnOnce(u64) -> String) -> Option<String> {
    let client = Client { id: RawValue::NULL.to_owned(), progress_token: None };
    conversation.ask(client, Cancels::Never, line).await?.answer().await
}

fn error_text(message: &Members<'_>) -> String {
    let error = message.get("error").and_then(|error| Members::parse(error.get()).ok());
    let text = error.and_then(|error| error.get_str("message"));
    text.map_or_else(|| "its answer has no `result`".to_owned(), |text| text.chars().take(200).collect())
}

/// The legacy versions that are spoken over Streamable HTTP, newest first.
fn legacy_versions() -> impl Iterator<Item = &'static str> {
    VERSIONS.into_iter().filter(|version| *version < MODERN_VERSION)
}

impl Agreement {
    pub(super) fn is_modern(&self) -> bool {
        matches!(self, Self::Modern(_))
    }

    /// The version that a child speaks.
    pub(super) fn version(&self) -> &str {
        match self {
            Self::Modern(_) => MODERN_VERSION,
            Self::Legacy { version, .. } => version,
        }
    }

    /// The legacy versions that clients are offered, newest first. None is newer than the child's, unless that knows no Streamable
    /// HTTP: then it is the oldest that does, of which nothing else differs.
    pub(super) fn offered(&self) -> Vec<&'static str> {
        let ours: Vec<&str> = legacy_versions().filter(|version| *version <= self.version()).collect();
        if ours.is_empty() { legacy_versions().last().into_iter().collect() } else { ours }
    }

    /// The result of `initialize` for a client that asks for `version`: the child's own, under a version that both know.
    pub(super) fn initialize_result(&self, version: Option<&str>) -> String {
        let offered = self.offered();
        let agreed = offered.iter().find(|offer| Some(**offer) == version).or(offered.first());
        let agreed = json::quote(agreed.copied().unwrap_or_default());
        match self {
            Self::Modern(discovered) => format!("{{\"protocolVersion\":{agreed}{}}}", described(discovered)),
            Self::Legacy { initialized, .. } => {
                let text = initialized.get();
                let version = Members::parse(text).ok().and_then(|members| members.get("protocolVersion"));
                let span = version.and_then(|version| json::span_in(text, version.get()));
                span.map_or_else(|| text.to_owned(), |span| json::splice(text, vec![(span, agreed)]))
            }
        }
    }

    /// The result of `server/discover` where the child is legacy: that it is, so that the client does the handshake.
    pub(super) fn discover_result(&self) -> Option<String> {
        let Self::Legacy { initialized, .. } = self else { return None };
        let versions = serde_json::json!(self.offered());
        Some(format!(
            "{{\"resultType\":\"complete\",\"supportedVersions\":{versions},\"ttlMs\":0,\"cacheScope\":\"private\"{}}}",
            described(initialized)
        ))
    }
}

/// `,"key":value…`: what a server says about itself in either era. Both eras demand its name, and keep it in different places.
fn described(result: &RawValue) -> String {
    let Ok(members) = Members::parse(result.get()) else { return String::new() };
    let meta = members.get("_meta").and_then(|meta| Members::parse(meta.get()).ok());
    let named = members.get("serverInfo").or_else(|| meta.and_then(|meta| meta.get(META_SERVER)));
    let name = named.map_or(r#"{"name":"mcp-mux-bridge","version":"0"}"#, |name| name.get());
    let capabilities = members.get("capabilities").map_or("{}", |capabilities| capabilities.get());
    let instructions = members.get("instructions").map(|text| format!(",\"instructions\":{}", text.get()));
    format!(
        ",\"capabilities\":{capabilities},\"serverInfo\":{name}{},\"_meta\":{{\"{META_SERVER}\":{name}}}",
        instructions.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy(version: &str) -> Agreement {
        let text = format!(
            r#"{{ "protocolVersion":"{version}", "x":1.0,"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"n","version":"1"}} }}"#
        );
        Agreement::Legacy { initialized: serde_json::from_str(&text).unwrap(), version: version.to_owned() }
    }

    #[test]
    fn a_client_gets_its_own_version_if_the_child_knows_it() {
        for (child, client, agreed) in [
            ("2025-11-25", Some("2025-06-18"), "2025-06-18"),
            ("2025-06-18", Some("2025-11-25"), "2025-06-18"),
            ("2025-11-25", Some("1999-01-01"), "2025-11-25"),
            ("2024-11-05", Some("2025-11-25"), "2025-03-26"),
            ("2025-06-18", None, "2025-06-18"),
        ] {
            let wanted = legacy(agreed);
            let Agreement::Legacy { initialized, .. } = wanted else { panic!() };
            assert_eq!(legacy(child).initialize_result(client), initialized.get(), "{child} {client:?}");
        }
    }

    #[test]
    fn each_era_is_told_of_a_child_of_the_other() {
        let discovered: serde_json::Value =
            serde_json::from_str(&legacy("2025-06-18").discover_result().unwrap()).unwrap();
        assert_eq!(discovered["supportedVersions"], serde_json::json!(["2025-06-18", "2025-03-26"]));
        assert_eq!(discovered["_meta"][META_SERVER]["name"], "n");
        let text = r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"m","version":"2"}}}"#;
        let modern = Agreement::Modern(serde_json::from_str(text).unwrap());
        let initialized: serde_json::Value =
            serde_json::from_str(&modern.initialize_result(Some("2025-06-18"))).unwrap();
        assert_eq!(
            (&initialized["protocolVersion"], &initialized["serverInfo"]["name"]),
            (&"2025-06-18".into(), &"m".into())
        );
        assert!(modern.discover_result().is_none() && modern.is_modern());
    }
}
