//! What applying manifests did, or would do: told to people, and to programs.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use tenant_store::{Put, Revision, TenantSlug};

use super::document::Kind;
use super::effect::{Effect, Named, Thing, Whom};
use super::verify::Verified;

/// What applying did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether it is made, and not only looked at.
    #[serde(rename = "applied")]
    pub is_made: bool,
    /// What became of each object, in the order in which they were applied.
    #[serde(rename = "objects")]
    pub applied: Vec<Applied>,
    /// The tenants that are in no document any more, and stay.
    pub kept: Vec<String>,
    /// Who gains and loses what.
    pub effects: Vec<Effect>,
    /// The new upstreams of which nobody knows yet what they list.
    pub unlisted: Vec<String>,
    /// What access tests found; none of it is a failure.
    #[serde(rename = "accessTests")]
    pub tests: Verified,
    /// The state of the configuration since then; or, if nothing was made, that which was looked at.
    pub revision: Revision,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Its kind.
    pub kind: Kind,
    /// Its name, with that of its tenant in front.
    pub name: String,
    /// What became of it.
    pub became: Became,
    /// What is gone because it was for another address, or another authorization server.
    pub dropped: Dropped,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Became {
    /// It did not exist.
    Created,
    /// It was different.
    Changed,
    /// It was the same.
    Unchanged,
    /// It is gone.
    Removed,
}

/// What an upstream that moved lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Dropped {
    /// Secrets that an operator had set.
    pub secrets: usize,
    /// Accounts that callers had connected.
    pub accounts: usize,
}

impl Report {
    /// Whether anything is, or would be, other than before.
    pub fn is_a_change(&self) -> bool {
        self.applied.iter().any(|applied| applied.became != Became::Unchanged)
    }
}

impl Applied {
    pub(super) fn removed(kind: Kind, tenant: &TenantSlug, name: &str) -> Self {
        Self { kind, name: format!("{tenant}/{name}"), became: Became::Removed, dropped: Dropped::default() }
    }
}

impl From<Put> for Became {
    fn from(put: Put) -> Self {
        match put {
            Put::Created => Self::Created,
            Put::Changed => Self::Changed,
            Put::Unchanged => Self::Unchanged,
        }
    }
}

impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Removed => "removed",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.applied.iter().try_for_each(|applied| applied.fmt(f))?;
        for tenant in &self.kept {
            writeln!(
                f,
                "kept       Tenant      {tenant}: a tenant is not taken away by leaving it out; see `mcp-mux keys shred`"
            )?;
        }
        self.effects.iter().try_for_each(|effect| effect.fmt(f))?;
        for upstream in &self.unlisted {
            writeln!(f, "upstream {upstream}: what it lists is not known yet")?;
        }
        for finding in &self.tests.unknown {
            writeln!(f, "access test {finding}; it is looked at again with every change")?;
        }
        for finding in &self.tests.already {
            writeln!(f, "access test {finding}; so it was before")?;
        }
        match (self.tests.tests, self.tests.already.len()) {
            (0, _) => {}
            (tests, 0) => writeln!(f, "{tests} access tests: none fails")?,
            (tests, _) => writeln!(f, "{tests} access tests: none fails that did not before")?,
        }
        let count = |wanted| self.applied.iter().filter(|applied| applied.became == wanted).count();
        let (created, changed, unchanged) = (count(Became::Created), count(Became::Changed), count(Became::Unchanged));
        write!(f, "{created} created, {changed} changed, {unchanged} unchanged")?;
        match count(Became::Removed) {
            0 => {}
            removed => write!(f, ", {removed} removed")?,
        }
        if self.is_made {
            write!(f, "; revision {}", self.revision)
        } else {
            write!(f, "; nothing was applied, revision {} was looked at", self.revision)
        }
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, became, dropped } = self;
        writeln!(f, "{became:9}  {kind:10}  {name}")?;
        if dropped.secrets > 0 {
            writeln!(
                f,
                "           its secrets were for another address and are gone: set them again with `mcp-mux secret set`"
            )?;
        }
        match dropped.accounts {
            0 => Ok(()),
            1 => writeln!(f, "           1 account of a caller was for another address and is gone"),
            count => writeln!(f, "           {count} accounts of callers were for another address and are gone"),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, whom, is_covered, gained, lost, denied, undenied } = self;
        let covered = match is_covered {
            Some(true) => ", whom no grant covered there",
            Some(false) => ", whom no grant covers there any more",
            None => "",
        };
        writeln!(f, "in {tenant}, {whom}{covered}")?;
        things(f, "+", gained, "")?;
        things(f, "-", lost, "")?;
        things(f, "!", denied, ": denied, whatever other grants allow")?;
        things(f, "~", undenied, ": no longer denied, so that other grants may allow it")
    }
}

fn things(f: &mut fmt::Formatter<'_>, sign: &str, things: &BTreeSet<Thing>, remark: &str) -> fmt::Result {
    things.iter().try_for_each(|Thing { kind, name }| writeln!(f, "  {sign} {kind} {name}{remark}"))
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.named {
            Named::Group(group) => write!(f, "group {group} of {}", self.issuer),
            Named::Subject(subject) => write!(f, "{subject} of {}", self.issuer),
        }
    }
}
