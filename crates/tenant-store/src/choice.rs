//! Closed sets of words: levels, classes, states. In the database and in text each is the word itself.

use std::fmt;
use std::str::FromStr;

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

/// A word that is not in the set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {words}")]
pub struct ChoiceError {
    what: &'static str,
    words: &'static str,
}

/// Defines a set of words, in their order.
macro_rules! choice {
    (
        $(#[$docs:meta])+ $name:ident, $what:literal, $words:literal,
        { $($(#[$choice_docs:meta])+ $choice:ident = $word:literal,)+ }
    ) => {
        $(#[$docs])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType)]
        #[sea_orm(value_type = "String")]
        pub enum $name {
            $($(#[$choice_docs])+ #[serde(rename = $word)] $choice,)+
        }

        impl $name {
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$choice => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ChoiceError;

            fn from_str(text: &str) -> Result<Self, ChoiceError> {
                match text {
                    $($word => Ok(Self::$choice),)+
                    _ => Err(ChoiceError { what: $what, words: $words }),
                }
            }
        }
    };
}

choice!(
    /// Whether a tenant is served.
    TenantState, "a tenant's state", "`active`, `suspended` or `shredded`",
    {
        /// It is served.
        Active = "active",
        /// Its grants cover nobody until it is active again.
        Suspended = "suspended",
        /// Its keys are destroyed; it stays only so that its name is not given away.
        Shredded = "shredded",
    }
);
choice!(
    /// What becomes of a call that brings a tenant's text to another tenant.
    FlowPolicy, "the answer to text that goes to another tenant", "`off`, `log`, `ask` or `block`",
    {
        /// Nobody looks.
        Off = "off",
        /// It is written down.
        Log = "log",
        /// The user is asked first; where nobody can be asked, it is refused.
        Ask = "ask",
        /// It is refused.
        Block = "block",
    }
);
choice!(
    /// What of calls a tenant's record holds besides that they were made.
    AuditContent, "what a record holds of calls", "`none`, `arguments` or `all`",
    {
        /// Nothing.
        None = "none",
        /// What upstreams were asked with.
        Arguments = "arguments",
        /// That, and what they answered.
        All = "all",
    }
);
choice!(
    /// What a grant allows in a tenant. Higher levels include the lower ones.
    Level, "a level", "`read`, `write` or `admin`",
    {
        /// Look.
        Read = "read",
        /// Change.
        Write = "write",
        /// Do what the operator put apart.
        Admin = "admin",
    }
);
choice!(
    /// The level that a tool asks for.
    ToolClass, "a tool class", "`read`, `write` or `admin`",
    {
        /// It only looks.
        Read = "read",
        /// It changes something.
        Write = "write",
        /// The operator put it apart.
        Admin = "admin",
    }
);
choice!(
    /// What an upstream may offer besides tools.
    OfferKind, "an offer's kind", "`prompt`, `resource`, `template` or `skill`",
    {
        /// A text to be filled in, known by its name.
        Prompt = "prompt",
        /// Something to be read, known by its URI.
        Resource = "resource",
        /// URIs with holes in them.
        Template = "template",
        /// A directory of instructions, known by the URI of its `SKILL.md`.
        Skill = "skill",
    }
);
choice!(
    /// The kinds of objects that somebody may manage.
    ManagedKind, "a kind of object", "`tenant`, `upstream`, `grant` or `access-test`",
    {
        /// A tenant, by its slug.
        Tenant = "tenant",
        /// An upstream, by its slug.
        Upstream = "upstream",
        /// A grant, by its name.
        Grant = "grant",
        /// An access test, by its name.
        AccessTest = "access-test",
    }
);
choice!(
    /// What happens when an upstream changes the definition of a tool that it listed before.
    OnToolChange, "the answer to a changed tool", "`accept` or `quarantine`",
    {
        /// The new definition is approved.
        Accept = "accept",
        /// The tool is hidden until the new definition is approved, or the old one is back.
        Quarantine = "quarantine",
    }
);
choice!(
    /// What happens when an upstream lists a tool for the first time.
    OnNewTool, "the answer to a new tool", "`accept` or `quarantine`",
    {
        /// Its definition is approved.
        Accept = "accept",
        /// The tool is hidden until its definition is approved.
        Quarantine = "quarantine",
    }
);
choice!(
    /// What is done with the arguments of a call before the upstream gets them.
    OnArguments, "what is done with arguments", "`check` or `pass`",
    {
        /// They are held against the tool's schema.
        Check = "check",
        /// Nothing.
        Pass = "pass",
    }
);

choice!(
    /// What a directory says of a user.
    DirectoryState, "the state of a directory's user", "`active`, `inactive` or `removed`",
    {
        /// The directory has nothing against it.
        Active = "active",
        /// Nobody is let in as this one.
        Inactive = "inactive",
        /// The same, and the directory knows it no more; the row stays to tell that.
        Removed = "removed",
    }
);

choice!(
    /// What a data key is good for.
    DataKeyState, "a data key's state", "`active`, `decrypt-only` or `destroyed`",
    {
        /// It seals and opens.
        Active = "active",
        /// It opens what it sealed, until all of that is sealed anew.
        DecryptOnly = "decrypt-only",
        /// It is gone; the row stays to tell that it was.
        Destroyed = "destroyed",
    }
);
choice!(
    /// What a credential holds. A value of one kind is never opened as another.
    CredentialKind, "a credential's kind", "`secret`, `tokens` or `client`",
    {
        /// What an operator set: a key, a password, a certificate.
        Secret = "secret",
        /// What an authorization server gave for one principal: an access token, perhaps a refresh token.
        Tokens = "tokens",
        /// What an authorization server registered us as.
        Client = "client",
    }
);

impl Level {
    /// Whether the level is enough for a tool of that class.
    pub fn covers(self, class: ToolClass) -> bool {
        let needed = match class {
            ToolClass::Read => Self::Read,
            ToolClass::Write => Self::Write,
            ToolClass::Admin => Self::Admin,
        };
        self >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_covers_its_own_class_and_those_below() {
        let classes = [ToolClass::Read, ToolClass::Write, ToolClass::Admin];
        assert_eq!(classes.map(|class| Level::Read.covers(class)), [true, false, false]);
        assert_eq!(classes.map(|class| Level::Write.covers(class)), [true, true, false]);
        assert_eq!(classes.map(|class| Level::Admin.covers(class)), [true, true, true]);
    }

    #[test]
    fn a_word_is_printed_and_read_back() {
        for state in [TenantState::Active, TenantState::Suspended, TenantState::Shredded] {
            assert_eq!(state.to_string().parse(), Ok(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_known_ones() {
        let error = "Read".parse::<Level>().unwrap_err();
        assert_eq!(error.to_string(), "a level is `read`, `write` or `admin`");
        assert!(serde_json::from_str::<OnToolChange>("\"ignore\"").is_err());
    }
}
