//! What the parts of a specification must obey together, beyond what the type of each part says.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use crate::access_tests::AccessTestSpec;
use crate::grants::GrantSpec;
use crate::tenants::TenantSpec;
use crate::upstream_auth::{AccountAuth, AccountListing, UpstreamAuth};
use crate::upstreams::UpstreamSpec;

/// How long a call to an upstream may take.
const CALL_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);
/// How many calls to an upstream may run at once.
const CONCURRENCY: RangeInclusive<u32> = 1..=1024;
/// How many headers may carry secrets to an upstream.
const HEADERS: RangeInclusive<usize> = 1..=8;
/// How many tools of an upstream may have a class set by the operator.
const CLASSES_MAX: usize = 1000;
/// How many groups, and how many subjects, a grant may name.
const COVERED_MAX: usize = 1000;
/// How many allow patterns, and how many deny patterns, a grant may have.
const PATTERNS_MAX: usize = 1000;
/// How many groups somebody in an access test may be in, and how many names it may list.
const TESTED_MAX: usize = 100;
/// Length of the longest display name, in characters.
const DISPLAY_NAME_CHARS_MAX: usize = 100;
/// Length of the longest upstream URL, in bytes.
const URL_BYTES_MAX: usize = 2048;
/// Length of all certificates that vouch for an upstream, in bytes.
const CA_BYTES_MAX: usize = 64 * 1024;

/// A part of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecField {
    /// What people call a tenant.
    DisplayName,
    /// The hosts that a tenant's upstreams are narrowed to.
    EgressHosts,
    /// An upstream's address.
    Url,
    /// The address of an upstream's OpenAPI document.
    Document,
    /// The headers that carry an upstream's secrets.
    Headers,
    /// The parameter that carries an upstream's secret.
    Parameter,
    /// The certificates that vouch for an upstream.
    Ca,
    /// What goes along with a certificate of ours.
    AlongWithMtls,
    /// The client that an operator registered for accounts.
    Client,
    /// What is shown when tools are listed.
    Listing,
    /// How long a call may take.
    CallTimeout,
    /// How many calls may run at once.
    Concurrency,
    /// The classes that the operator set.
    Classes,
    /// Whom a grant covers by group.
    Groups,
    /// Whom a grant covers by name.
    Subjects,
    /// What a grant allows.
    Allow,
    /// What a grant denies.
    Deny,
    /// The groups of somebody in an access test.
    TestedGroups,
    /// What an access test says that they can use.
    Can,
    /// What it says that they cannot.
    Cannot,
}

/// A specification that breaks a rule. The message names the part and the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct SpecError {
    field: SpecField,
    rule: &'static str,
}

impl SpecError {
    /// The part at fault.
    pub fn field(self) -> SpecField {
        self.field
    }

    /// The rule it breaks, as the end of a sentence that begins with the part.
    pub fn rule(self) -> &'static str {
        self.rule
    }
}

impl fmt::Display for SpecField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DisplayName => "the display name",
            Self::EgressHosts => "the list of hosts",
            Self::Url => "the upstream's URL",
            Self::Document => "the URL of the OpenAPI document",
            Self::Headers => "the list of headers",
            Self::Parameter => "the parameter that carries the secret",
            Self::Ca => "the list of certificates that vouch for the upstream",
            Self::AlongWithMtls => "what goes along with the certificate",
            Self::Client => "the registered client",
            Self::Listing => "what tools are listed with",
            Self::CallTimeout => "the call timeout",
            Self::Concurrency => "the concurrency",
            Self::Classes => "the list of tool classes",
            Self::Groups | Self::TestedGroups => "the list of groups",
            Self::Subjects => "the list of subjects",
            Self::Allow => "the list of allow patterns",
            Self::Deny => "the list of deny patterns",
            Self::Can => "the list of what they can use",
            Self::Cannot => "the list of what they cannot use",
        })
    }
}

impl TenantSpec {
    /// Checks what the types of the parts cannot say.
    pub fn check(&self) -> Result<(), SpecError> {
        check_display_name(&self.display_name)
    }
}

impl UpstreamSpec {
    /// Checks what the types of the parts cannot say.
    pub fn check(&self) -> Result<(), SpecError> {
        check_url(&self.url, SpecField::Url)?;
        self.protocol.document().map_or(Ok(()), |document| check_url(document, SpecField::Document))?;
        check_auth(&self.auth, &self.url)?;
        rule(CALL_TIMEOUT.contains(&self.call_timeout), SpecField::CallTimeout, "must be 1 to 300 seconds")?;
        rule(CONCURRENCY.contains(&self.concurrency), SpecField::Concurrency, "must be 1 to 1024")?;
        rule(self.classes.len() <= CLASSES_MAX, SpecField::Classes, "must have at most 1000 tools")
    }
}

impl GrantSpec {
    /// Checks what the types of the parts cannot say. An empty list never means everybody or everything.
    pub fn check(&self) -> Result<(), SpecError> {
        let covers = !self.groups.is_empty() || !self.subjects.is_empty();
        rule(covers, SpecField::Groups, "must not be empty unless subjects are named: a grant must cover somebody")?;
        rule(self.groups.len() <= COVERED_MAX, SpecField::Groups, "must have at most 1000 groups")?;
        rule(self.subjects.len() <= COVERED_MAX, SpecField::Subjects, "must have at most 1000 subjects")?;
        rule(!self.allow.is_empty(), SpecField::Allow, "must not be empty: \"*\" allows every tool of the tenant")?;
        rule(self.allow.len() <= PATTERNS_MAX, SpecField::Allow, "must have at most 1000 patterns")?;
        rule(self.deny.len() <= PATTERNS_MAX, SpecField::Deny, "must have at most 1000 patterns")
    }
}

impl AccessTestSpec {
    /// Checks what the types of the parts cannot say.
    pub fn check(&self) -> Result<(), SpecError> {
        let somebody = !self.groups.is_empty() || self.subject.is_some();
        rule(somebody, SpecField::TestedGroups, "must not be empty unless a subject is named")?;
        rule(self.groups.len() <= TESTED_MAX, SpecField::TestedGroups, "must have at most 100 groups")?;
        let says = !self.can.is_empty() || !self.cannot.is_empty();
        rule(
            says,
            SpecField::Can,
            "must not be empty unless something stands under `cannot`: a test must test something",
        )?;
        rule(self.can.len() <= TESTED_MAX, SpecField::Can, "must have at most 100 names")?;
        rule(self.cannot.len() <= TESTED_MAX, SpecField::Cannot, "must have at most 100 names")
    }
}

fn check_display_name(text: &str) -> Result<(), SpecError> {
    let sized = (1..=DISPLAY_NAME_CHARS_MAX).contains(&text.chars().count());
    let printable = !text.chars().any(char::is_control) && text.trim() == text;
    let wanted = "must be 1 to 100 characters, without control characters and without white space around it";
    rule(sized && printable, SpecField::DisplayName, wanted)
}

fn check_auth(auth: &UpstreamAuth, url: &Url) -> Result<(), SpecError> {
    match auth {
        UpstreamAuth::Headers { headers } => {
            rule(HEADERS.contains(&headers.len()), SpecField::Headers, "must have 1 to 8 headers")
        }
        UpstreamAuth::Query { parameter, .. } => {
            let taken = url.query_pairs().any(|(name, _)| name == parameter.as_str());
            rule(!taken, SpecField::Parameter, "must not be in the upstream's URL already")
        }
        UpstreamAuth::Mtls { ca, with, .. } => {
            rule(url.scheme() == "https", SpecField::Url, "must begin with `https://`: a certificate needs TLS")?;
            let fits = ca.as_ref().is_none_or(|ca| ca.len() <= CA_BYTES_MAX);
            rule(fits, SpecField::Ca, "must be at most 65536 bytes long")?;
            let along = "must be `bearer`, `basic`, `headers` or `query`, or nothing";
            rule(with.is_static(), SpecField::AlongWithMtls, along)?;
            check_auth(with, url)
        }
        UpstreamAuth::Account(account) => check_account(account),
        _ => Ok(()),
    }
}

/// A client is registered at one authorization server, and what proves it is shown to no other.
fn check_account(account: &AccountAuth) -> Result<(), SpecError> {
    let named = account.client.is_none() || account.issuer.is_some();
    rule(
        named,
        SpecField::Client,
        "needs an `issuer` beside it: what proves a client goes to no server that others name",
    )?;
    let lists = account.listing != AccountListing::ClientCredentials || account.proof().is_some();
    rule(
        lists,
        SpecField::Listing,
        "must not be `clientCredentials` where no `client` with a `secret` or `privateKey` is registered",
    )
}

/// Checks the form of an address of an upstream's. Which addresses may be called is decided where they are called.
fn check_url(url: &Url, field: SpecField) -> Result<(), SpecError> {
    rule(matches!(url.scheme(), "http" | "https"), field, "must begin with `https://` or `http://`")?;
    rule(url.host_str().is_some_and(|host| !host.is_empty()), field, "must name a host")?;
    let anonymous = url.username().is_empty() && url.password().is_none();
    rule(anonymous, field, "must not hold a user name or a password: secrets are stored apart and named under `auth`")?;
    rule(url.fragment().is_none(), field, "must not have a fragment (`#…`)")?;
    rule(url.as_str().len() <= URL_BYTES_MAX, field, "must be at most 2048 bytes long")
}

pub(crate) fn rule(holds: bool, field: SpecField, rule: &'static str) -> Result<(), SpecError> {
    if holds { Ok(()) } else { Err(SpecError { field, rule }) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::choice::{Level, OnArguments, OnNewTool, OnToolChange, ToolClass};
    use crate::protocol::UpstreamProtocol;

    fn upstream(url: &str) -> UpstreamSpec {
        UpstreamSpec {
            url: url.parse().unwrap(),
            protocol: UpstreamProtocol::Mcp,
            prefix: None,
            auth: UpstreamAuth::None,
            call_timeout: Duration::from_mins(1),
            concurrency: 64,
            on_tool_change: OnToolChange::Accept,
            on_new_tool: OnNewTool::Accept,
            on_arguments: OnArguments::Check,
            classes: BTreeMap::new(),
            enabled: true,
        }
    }

    fn grant() -> GrantSpec {
        GrantSpec {
            issuer: "corp".parse().unwrap(),
            groups: vec!["analysts".parse().unwrap()],
            subjects: Vec::new(),
            level: Level::Read,
            allow: vec!["*".parse().unwrap()],
            deny: Vec::new(),
        }
    }

    fn field(result: Result<(), SpecError>) -> Option<SpecField> {
        result.err().map(SpecError::field)
    }

    #[test]
    fn an_upstreams_url_is_a_plain_web_address() {
        for url in ["https://acme.example", "http://127.0.0.1:8080/mcp?x=1", "https://[::1]/"] {
            assert_eq!(upstream(url).check(), Ok(()), "{url}");
        }
        for url in [
            "ftp://acme.example/",
            "file:///etc/passwd",
            "data:text/plain,x",
            "unix:/run/mcp.sock",
            "https://anna@acme.example/",
            "https://:CANARY-pw@acme.example/",
            "https://acme.example/#part",
            &format!("https://acme.example/{}", "x".repeat(2048)),
        ] {
            assert_eq!(field(upstream(url).check()), Some(SpecField::Url), "{url}");
            let protocol = UpstreamProtocol::OpenApi { document: url.parse().unwrap() };
            let spec = UpstreamSpec { protocol, ..upstream("https://acme.example") };
            assert_eq!(field(spec.check()), Some(SpecField::Document), "{url}");
        }
    }

    #[test]
    fn times_and_numbers_have_bounds() {
        for (seconds, fits) in [(0.999, false), (1.0, true), (300.0, true), (300.001, false)] {
            let call_timeout = Duration::from_secs_f64(seconds);
            let spec = UpstreamSpec { call_timeout, ..upstream("https://acme.example") };
            assert_eq!(field(spec.check()), (!fits).then_some(SpecField::CallTimeout), "{seconds}");
        }
        for (concurrency, fits) in [(0, false), (1, true), (1024, true), (1025, false)] {
            let spec = UpstreamSpec { concurrency, ..upstream("https://acme.example") };
            assert_eq!(field(spec.check()), (!fits).then_some(SpecField::Concurrency), "{concurrency}");
        }
    }

    #[test]
    fn lists_have_bounds() {
        for (count, fits) in [(0, false), (1, true), (8, true), (9, false)] {
            let headers = (0..count).map(|n| (format!("x-{n}").parse().unwrap(), "key".parse().unwrap())).collect();
            let spec = UpstreamSpec { auth: UpstreamAuth::Headers { headers }, ..upstream("https://acme.example") };
            assert_eq!(field(spec.check()), (!fits).then_some(SpecField::Headers), "{count}");
        }
        for (count, fits) in [(1000, true), (1001, false)] {
            let classes = (0..count).map(|n| (format!("t{n}").parse().unwrap(), ToolClass::Read)).collect();
            let spec = UpstreamSpec { classes, ..upstream("https://acme.example") };
            assert_eq!(field(spec.check()), (!fits).then_some(SpecField::Classes), "{count}");

            let patterns = vec!["*".parse().unwrap(); count];
            let many = |field| (!fits).then_some(field);
            let spec = GrantSpec { groups: vec!["g".parse().unwrap(); count], ..grant() };
            assert_eq!(field(spec.check()), many(SpecField::Groups), "{count}");
            let spec = GrantSpec { subjects: vec!["s".parse().unwrap(); count], ..grant() };
            assert_eq!(field(spec.check()), many(SpecField::Subjects), "{count}");
            assert_eq!(
                field(GrantSpec { allow: patterns.clone(), ..grant() }.check()),
                many(SpecField::Allow),
                "{count}"
            );
            assert_eq!(field(GrantSpec { deny: patterns, ..grant() }.check()), many(SpecField::Deny), "{count}");
        }
    }

    #[test]
    fn a_grant_covers_somebody_and_allows_something() {
        let by_subject = GrantSpec { groups: Vec::new(), subjects: vec!["s".parse().unwrap()], ..grant() };
        assert_eq!(by_subject.check(), Ok(()));
        assert_eq!(field(GrantSpec { groups: Vec::new(), ..grant() }.check()), Some(SpecField::Groups));
        let error = GrantSpec { allow: Vec::new(), ..grant() }.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the list of allow patterns must not be empty: \"*\" allows every tool of the tenant"
        );
    }
}
