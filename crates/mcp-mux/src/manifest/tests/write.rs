//! What is written is read as the same, whatever the texts in it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use insta::assert_snapshot;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tenant_store::{
    AccessTestSpec, AccountAuth, AccountClient, AccountListing, AuditContent, AuthorizationServer, ClientProof,
    FlowPolicy, GrantSpec, Level, Listing, LocalName, OnArguments, OnNewTool, OnToolChange, RequestedType, TenantSpec,
    TokenExchange, TokenRequest, ToolClass, UpstreamAuth, UpstreamProtocol, UpstreamSpec, is_visible,
};

use super::super::{Object, parse, write};
use super::GOOD;
use super::schema::faults;

/// What YAML would read as something else, or not at all, if it stood there as it is.
const HOSTILE: &[&str] = &[
    "yes",
    "No",
    "on",
    "OFF",
    "y",
    "true",
    "null",
    "~",
    "NULL",
    "0",
    "007",
    "0x1f",
    "0o7",
    "1e3",
    "-1",
    "+.5",
    ".inf",
    ".NaN",
    "1_000",
    "12:30:45",
    "2026-11-26",
    "2026-11-26 10:00:00",
    "<<",
    "=",
    "-",
    "- a",
    "?",
    "? a",
    ":",
    "a: b",
    "a:",
    ":a",
    "#a",
    "a #b",
    "a#b",
    "@a",
    "`a",
    "*",
    "*a",
    "&a",
    "!a",
    "!!str a",
    "%a",
    "|",
    ">",
    ">-",
    "'",
    "''",
    "\"",
    "\\",
    "a\\n",
    "[",
    "[a]",
    "{",
    "{a: b}",
    ",",
    "---",
    "--- a",
    "...",
    " a",
    "a ",
    "  ",
    "a  b",
    "\u{a0}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{202e}a",
    "\u{fffe}",
    "\u{fffd}",
    "\u{e000}",
    "\u{10ffff}",
    "Zoë",
    "数据",
    "🦀",
    "${HOME}",
    "{{a}}",
    "$(a)",
];

static CERTIFICATE: LazyLock<String> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
});

fn parsed<T: FromStr<Err: fmt::Debug> + fmt::Debug + 'static>(pattern: &'static str) -> BoxedStrategy<T> {
    pattern.prop_map(|text| text.parse().unwrap()).boxed()
}

fn slug<T: FromStr<Err: fmt::Debug> + fmt::Debug + 'static>() -> BoxedStrategy<T> {
    // Numbers and words of YAML are slugs too.
    let words = ["no", "null", "true", "0", "1e3", "123", "0x1f", "12e03", "2026-11-26"].map(ToOwned::to_owned);
    prop_oneof![3 => "[a-z0-9]{1,6}(-[a-z0-9]{1,6}){0,1}", 1 => select(words.to_vec())]
        .prop_map(|text| text.parse().unwrap())
        .boxed()
}

/// Texts that the type takes, hostile ones and any other.
fn text<T: FromStr + fmt::Debug + 'static>() -> BoxedStrategy<T> {
    let hostile = || select(HOSTILE).prop_map(ToOwned::to_owned);
    let joined = (hostile(), "[ :#,]{0,2}", hostile()).prop_map(|(one, between, other)| one + &between + &other);
    let long = select(HOSTILE).prop_map(|word| word.repeat(120 / word.len()));
    let texts = prop_oneof![hostile(), joined, long, "\\PC{1,20}", "[ -~]{1,100}", any::<String>()];
    texts.prop_filter_map("not such a text", |text| text.parse().ok()).boxed()
}

fn web() -> BoxedStrategy<url::Url> {
    parsed("https://[a-z]{1,8}\\.example(:[1-9][0-9]{3})?(/[a-zA-Z0-9_~:@!*',#&;%.-]{0,8}){0,3}(\\?[a-z]{1,4}=[ -~]{0,8})?")
        .prop_map(|mut url: url::Url| {
            url.set_fragment(None);
            url
        }).boxed()
}

fn token_request() -> BoxedStrategy<TokenRequest> {
    let address = "https://as\\.example/[a-z0-9/]{0,10}";
    let server = prop_oneof![
        parsed(address).prop_map(AuthorizationServer::Issuer),
        parsed(address).prop_map(AuthorizationServer::TokenUrl)
    ];
    let resource = option::of(parsed("(urn:[a-z]{1,5}:|https://r\\.example/)[a-z0-9:]{1,5}"));
    (server, text(), proof(), option::of(text()), resource, option::of(text()))
        .prop_map(|(server, client_id, proof, scope, resource, audience)| TokenRequest {
            server,
            client_id,
            proof,
            scope,
            resource,
            audience,
        })
        .boxed()
}

fn proof() -> BoxedStrategy<ClientProof> {
    prop_oneof![
        slug().prop_map(|secret| ClientProof::Basic { secret }),
        slug().prop_map(|secret| ClientProof::Post { secret }),
        (slug(), option::of(text()))
            .prop_map(|(private_key, key_id)| ClientProof::PrivateKeyJwt { private_key, key_id }),
    ]
    .boxed()
}

/// What is the same for each request.
fn fixed_auth() -> BoxedStrategy<UpstreamAuth> {
    prop_oneof![
        Just(UpstreamAuth::None),
        slug().prop_map(|secret| UpstreamAuth::Bearer { secret }),
        btree_map(text(), slug(), 1..=8).prop_map(|headers| UpstreamAuth::Headers { headers }),
        (text(), slug()).prop_map(|(username, secret)| UpstreamAuth::Basic { username, secret }),
        (text(), slug()).prop_map(|(parameter, secret)| UpstreamAuth::Query { parameter, secret }),
    ]
    .boxed()
}

fn account() -> BoxedStrategy<AccountAuth> {
    let client = (text(), option::of(proof())).prop_map(|(client_id, proof)| AccountClient { client_id, proof });
    let listing = prop_oneof![
        Just(AccountListing::None),
        Just(AccountListing::ClientCredentials),
        (slug(), text()).prop_map(|(issuer, subject)| AccountListing::Account { issuer, subject }),
    ];
    let issuer = option::of(parsed("https://as\\.example/[a-z0-9]{0,5}"));
    let resource = option::of(parsed("https://r\\.example/[a-z0-9]{1,5}"));
    (issuer, option::of(client), option::of(text()), resource, listing)
        .prop_map(|(issuer, client, scope, resource, listing)| AccountAuth { issuer, client, scope, resource, listing })
        .boxed()
}

fn auth() -> BoxedStrategy<UpstreamAuth> {
    let exchange = (
        token_request(),
        select(vec![RequestedType::AccessToken, RequestedType::Jwt]),
        select(vec![Listing::ClientCredentials, Listing::None]),
    )
        .prop_map(|(request, requested_type, listing)| TokenExchange { request, requested_type, listing });
    // What stands around the certificates of a file is remembered as well.
    let around = "([ -~]{0,20}\n){0,3}";
    let ca = (around, around, "(\r\n|\n){0,3}").prop_map(|(before, after, end)| before + &CERTIFICATE + &after + &end);
    prop_oneof![
        5 => fixed_auth(),
        2 => token_request().prop_map(|request| UpstreamAuth::ClientCredentials(Box::new(request))),
        2 => exchange.prop_map(|exchange| UpstreamAuth::TokenExchange(Box::new(exchange))),
        3 => account().prop_map(|account| UpstreamAuth::Account(Box::new(account))),
        2 => (slug(), option::of(ca), fixed_auth())
            .prop_map(|(secret, ca, with)| UpstreamAuth::Mtls { secret, ca, with: Box::new(with) }),
        1 => (text(), slug(), option::of(slug()), slug(), slug()).prop_map(
            |(access_key_id, secret_access_key, session_token, region, service)| UpstreamAuth::AwsSigV4 {
                access_key_id, secret_access_key, session_token, region, service,
            }
        ),
    ]
    .boxed()
}

fn upstream() -> BoxedStrategy<UpstreamSpec> {
    let protocol = prop_oneof![Just(None), Just(Some(None)), web().prop_map(|document| Some(Some(document))),];
    let classes = btree_map(text(), select(vec![ToolClass::Read, ToolClass::Write, ToolClass::Admin]), 0..4);
    let limits = (select(vec![1_u64, 30, 60, 120, 300]), prop_oneof![Just(64_u32), 1_u32..=1024]);
    let changes = select(vec![OnToolChange::Accept, OnToolChange::Quarantine]);
    let new = select(vec![OnNewTool::Accept, OnNewTool::Quarantine]);
    let rules = (changes, new, select(vec![OnArguments::Check, OnArguments::Pass]));
    let parts = (web(), protocol, option::of(text()), auth(), limits, rules, classes, any::<bool>());
    parts
        .prop_filter_map("not such an upstream", |parts| {
            let (url, protocol, prefix, auth, (seconds, concurrency), rules, classes, enabled) = parts;
            let (on_tool_change, on_new_tool, on_arguments) = rules;
            let protocol = protocol.map_or(UpstreamProtocol::Mcp, |document| UpstreamProtocol::OpenApi {
                document: document.unwrap_or_else(|| UpstreamProtocol::usual_document(&url)),
            });
            let call_timeout = Duration::from_secs(seconds);
            let spec = UpstreamSpec {
                url,
                protocol,
                prefix,
                auth,
                call_timeout,
                concurrency,
                on_tool_change,
                on_new_tool,
                on_arguments,
                classes,
                enabled,
            };
            spec.check().is_ok().then_some(spec)
        })
        .boxed()
}

fn tenant() -> BoxedStrategy<TenantSpec> {
    let host = parsed("(\\*\\.)?[a-z0-9]{1,5}\\.(example|test)");
    let policy = select(vec![FlowPolicy::Off, FlowPolicy::Log, FlowPolicy::Ask, FlowPolicy::Block]);
    let content = select(vec![AuditContent::None, AuditContent::Arguments, AuditContent::All]);
    let named = (text::<String>(), option::of(vec(host, 1..4)), policy, content);
    named
        .prop_filter_map("not such a tenant", |(display_name, hosts, flow_policy, audit_content)| {
            let egress_hosts = hosts.map(|hosts| hosts.try_into().unwrap());
            let spec = TenantSpec { display_name, egress_hosts, flow_policy, audit_content };
            spec.check().is_ok().then_some(spec)
        })
        .boxed()
}

fn grant() -> BoxedStrategy<GrantSpec> {
    let level = select(vec![Level::Read, Level::Write, Level::Admin]);
    let covered = (vec(text(), 0..4), vec(text(), 0..4));
    (slug(), covered, level, vec(text(), 1..4), vec(text(), 0..4))
        .prop_filter_map("not such a grant", |(issuer, (groups, subjects), level, allow, deny)| {
            let spec = GrantSpec { issuer, groups, subjects, level, allow, deny };
            spec.check().is_ok().then_some(spec)
        })
        .boxed()
}

fn access_test() -> BoxedStrategy<AccessTestSpec> {
    (slug(), vec(text(), 0..4), option::of(text()), vec(text(), 0..4), vec(text(), 0..4))
        .prop_filter_map("not such a test", |(issuer, groups, subject, can, cannot)| {
            let spec = AccessTestSpec { issuer, groups, subject, can, cannot };
            spec.check().is_ok().then_some(spec)
        })
        .boxed()
}

fn object() -> BoxedStrategy<Object> {
    prop_oneof![
        1 => (slug(), tenant()).prop_map(|(slug, spec)| Object::Tenant { slug, spec }),
        3 => (slug(), slug(), upstream())
            .prop_map(|(tenant, slug, spec)| Object::Upstream { tenant, slug, spec: Box::new(spec) }),
        1 => (slug(), slug(), grant()).prop_map(|(tenant, name, spec)| Object::Grant { tenant, name, spec }),
        1 => (slug(), slug(), access_test()).prop_map(|(tenant, name, spec)| Object::AccessTest { tenant, name, spec }),
    ]
    .boxed()
}

fn read(text: &str) -> Result<Vec<Object>, String> {
    let manifest = parse("written.yaml", text).map_err(|error| format!("{error}\n{text}"))?;
    Ok(manifest.documents().iter().map(|document| document.object().clone()).collect())
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(objects in vec(object(), 0..5)) {
        let text = write(&objects).unwrap();
        prop_assert_eq!(read(&text), Ok(objects), "{}", text);
        prop_assert_eq!(faults(&text), [""; 0], "{}", text);
        // Nothing that a terminal obeys, or that turns the direction of what is read.
        prop_assert!(text.chars().all(|c| c == '\n' || is_visible(c)), "{:?}", text);
    }
}

#[test]
fn the_longest_names_are_read_again_as_keys() {
    for unit in ["é", "\u{10ffff}", "\"", "\\", "a: ", "🦀", "\u{fffe}"] {
        let name: LocalName = unit.repeat(256 / unit.len()).parse().unwrap();
        let mut objects = read(GOOD).unwrap();
        for object in &mut objects {
            if let Object::Upstream { spec, .. } = object {
                spec.classes = [(name.clone(), ToolClass::Read)].into();
            }
        }
        assert_eq!(read(&write(&objects).unwrap()), Ok(objects), "{unit:?}");
    }
}

#[test]
fn defaults_are_left_out() {
    let objects = read(GOOD).unwrap();
    assert_snapshot!(write(&objects).unwrap(), @r#"
    apiVersion: mcp-mux/v1
    kind: Grant
    metadata:
      tenant: acme
      name: analysts
    spec:
      issuer: corp
      groups:
      - acme-analysts
      level: read
      tools:
        allow:
        - "*"
        deny:
        - "*export*"
    ---
    kind: Upstream
    metadata:
      tenant: acme
      name: jira
    spec:
      http:
        url: https://mcp.acme.example/mcp
      prefix: jira
      auth:
        bearer:
          secret: jira-token
      onToolChange: quarantine
      classes:
        delete_issue: admin
      timeout: 120s
      concurrency: 8
      enabled: false
    ---
    kind: Upstream
    metadata:
      tenant: acme
      name: wiki
    spec:
      http:
        url: http://127.0.0.1:8080/mcp
      auth:
        headers:
          x-api-key:
            secret: key
    ---
    kind: Tenant
    metadata:
      name: acme
    spec:
      displayName: Acme Corp
    "#);
    let bare = Object::Tenant { slug: "acme".parse().unwrap(), spec: TenantSpec::named("acme") };
    assert_snapshot!(write([&bare]).unwrap(), @r"
    apiVersion: mcp-mux/v1
    kind: Tenant
    metadata:
      name: acme
    spec: {}
    ");
    assert_eq!(write([]).unwrap(), "");
}

#[test]
fn a_timeout_is_written_in_whole_seconds_and_never_as_none() {
    let mut objects = read(GOOD).unwrap();
    for (written, milliseconds) in [("2s", 1_001), ("1s", 1_000), ("300s", 299_999)] {
        for object in &mut objects {
            if let Object::Upstream { spec, .. } = object {
                spec.call_timeout = Duration::from_millis(milliseconds);
                spec.classes = BTreeMap::new();
            }
        }
        let text = write(&objects).unwrap();
        assert_eq!(text.matches(&format!("timeout: {written}\n")).count(), 2, "{text}");
        assert!(read(&text).is_ok());
    }
}
