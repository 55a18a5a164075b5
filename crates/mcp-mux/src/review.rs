//! What an operator looks at before a tool is approved: what waits, how it differs from what was approved, and what is suspicious about it.
//!
//! Nothing is decided here. Findings are hints for whoever decides; see `docs/tools.md` for what they cannot see.

mod difference;
mod known;
mod lint;
mod place;

use serde_json::Value;
use serde_json::value::RawValue;
use tenant_store::{OnNewTool, Upstream, Waiting};

pub(crate) use self::difference::{Difference, differences};
pub(crate) use self::known::Known;
pub(crate) use self::lint::{Finding, findings};
use crate::json;

/// A tool that waits, with what there is to be said about it.
#[derive(Debug)]
pub(crate) struct Review {
    /// The tool.
    pub(crate) waiting: Waiting,
    /// What of it is not as it was approved. Every member is new, where nothing was.
    pub(crate) differences: Vec<Difference>,
    /// What is suspicious about it.
    pub(crate) findings: Vec<Finding>,
}

impl Review {
    pub(crate) fn of(waiting: Waiting, known: &Known<'_>) -> Self {
        let new = value(&waiting.tool.definition);
        let old = waiting.approved_definition.as_deref().map_or(Value::Null, value);
        let differences = differences(&old, &new);
        let mut findings = findings(&waiting.tool, &new, known);
        if json::strict(waiting.tool.definition.get().as_bytes()).is_none() {
            findings.insert(0, Finding::unreadable());
        }
        Self { waiting, differences, findings }
    }

    /// Why it waits, in the words of its upstream's rules.
    pub(crate) fn reason(&self, upstream: &Upstream) -> &'static str {
        match (self.waiting.is_rejected, self.waiting.tool.approved) {
            (true, _) => "rejected",
            (false, Some(_)) => "changed",
            (false, None) if self.is_homograph() => "new, with a name that looks like another one",
            (false, None) if upstream.spec.on_new_tool == OnNewTool::Quarantine => "new",
            (false, None) => "never approved",
        }
    }

    /// Whether its name could be taken for another tool's.
    fn is_homograph(&self) -> bool {
        self.findings.iter().any(|finding| finding.rule == lint::HOMOGRAPH)
    }
}

/// What a definition says; its text, where that cannot be held.
pub(crate) fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().into())
}
