//! Good manifests, bad ones, and what applying them does.

use std::fmt::Write as _;
use std::sync::Arc;

use crypto::{Key, KeyRing};
use insta::assert_snapshot;
use miette::{Diagnostic as _, GraphicalReportHandler, GraphicalTheme};
use proptest::prelude::*;
use secrecy::SecretString;
use tenant_store::{Level, LocalKeys, OnToolChange, Revision, Store, SystemClock, TenantSpec, ToolClass, UpstreamAuth};

use super::*;
use crate::policy::Administration;

mod access;
mod auth;
mod openapi;
mod schema;
mod write;

const GOOD: &str = r#"
apiVersion: mcp-mux/v1
kind: Grant
metadata: { tenant: acme, name: analysts }
spec: { issuer: corp, groups: [acme-analysts], level: read, tools: { allow: ["*"], deny: ["*export*"] } }
---
kind: Upstream
metadata: { tenant: acme, name: jira }
spec:
  http: { url: https://mcp.acme.example/mcp }
  prefix: jira
  auth: { bearer: { secret: jira-token } }
  onToolChange: quarantine
  classes: { delete_issue: admin }
  timeout: 2m
  concurrency: 8
  enabled: false
---
kind: Upstream
metadata: { tenant: acme, name: wiki }
spec: { http: { url: "http://127.0.0.1:8080/mcp" }, auth: { headers: { X-Api-Key: { secret: key } } } }
---
apiVersion: mcp-mux/v1
kind: Tenant
metadata: { name: acme }
spec: { displayName: Acme Corp }
"#;

fn error(text: &str) -> String {
    parse("acme.yaml", text).unwrap_err().to_string()
}

/// The error of an upstream's document with one more line in its `spec`, at line 6.
fn upstream_error(line: &str) -> String {
    let head = "apiVersion: mcp-mux/v1\nkind: Upstream\nmetadata: { tenant: acme, name: jira }\nspec:\n  auth: none\n";
    let http = if line.contains("http:") { "" } else { "  http: { url: \"https://acme.example\" }\n" };
    error(&format!("{head}  {line}\n{http}"))
}

#[test]
fn a_manifest_becomes_typed_documents() {
    let manifest = parse("acme.yaml", GOOD).unwrap();
    let objects: Vec<_> = manifest.documents().iter().map(Document::object).collect();
    let [
        Object::Grant { spec: grant, .. },
        Object::Upstream { spec: jira, .. },
        Object::Upstream { spec: wiki, .. },
        tenant,
    ] = objects[..]
    else {
        panic!("{objects:?}");
    };
    assert_eq!((grant.level, grant.deny[0].as_str(), grant.subjects.len()), (Level::Read, "*export*", 0));
    assert_eq!((jira.call_timeout.as_secs(), jira.concurrency, jira.enabled), (120, 8, false));
    assert_eq!(jira.classes.values().collect::<Vec<_>>(), [&ToolClass::Admin]);
    assert_eq!(jira.auth, UpstreamAuth::Bearer { secret: "jira-token".parse().unwrap() });
    assert_eq!((wiki.call_timeout.as_secs(), wiki.concurrency, wiki.enabled), (60, 64, true));
    assert_eq!((wiki.on_tool_change, &wiki.prefix), (OnToolChange::Accept, &None));
    let headers = [("x-api-key".parse().unwrap(), "key".parse().unwrap())].into();
    assert_eq!(wiki.auth, UpstreamAuth::Headers { headers });
    assert_eq!((tenant.kind(), tenant.name().as_str()), (Kind::Tenant, "acme"));
}

#[test]
fn empty_documents_are_left_out() {
    assert!(parse("empty.yaml", "").unwrap().documents().is_empty());
    assert_eq!(parse("acme.yaml", &format!("---\n{GOOD}\n---\n")).unwrap().documents().len(), 4);
}

#[test]
fn a_misspelt_field_is_shown_with_the_right_one() {
    assert_snapshot!(upstream_error("onToolchange: accept"), @"acme.yaml:6:3: `spec.onToolchange`: is unknown; did you mean `onToolChange`?");
    assert_snapshot!(upstream_error("http: { ulr: https://acme.example }"), @"acme.yaml:6:11: `spec.http.ulr`: is unknown; did you mean `url`?");
    assert_snapshot!(upstream_error("colour: red"), @"acme.yaml:6:3: `spec.colour`: is unknown; known here: `http`, `openapi`, `prefix`, `auth`, `onToolChange`, `onNewTool`, `onArguments`, `classes`, `timeout`, `concurrency`, `enabled`");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: tenant\nmetadata: { name: acme }\nspec: {}"), @"acme.yaml:2:7: `kind`: `tenant` is unknown; did you mean `Tenant`?");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: Tennant\nmetadata: { name: acme }\nspec: {}"), @"acme.yaml:2:7: `kind`: `Tennant` is unknown; did you mean `Tenant`?");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: Pod\nmetadata: { name: acme }\nspec: {}"), @"acme.yaml:2:7: `kind`: `Pod` is unknown; known here: `Tenant`, `Upstream`, `Grant`, `AccessTest`");
}

#[test]
fn an_access_test_is_about_somebody_and_says_something() {
    let test = |spec: &str| {
        let head = "apiVersion: mcp-mux/v1\nkind: AccessTest\nmetadata: { tenant: acme, name: t }\nspec: ";
        error(&format!("{head}{spec}"))
    };
    assert_snapshot!(test("{}"), @"acme.yaml:4:7: `spec.as`: is missing");
    assert_snapshot!(test("{ as: { issuer: corp }, can: [acme__x] }"), @"acme.yaml:4:13: `spec.as.groups`: must not be empty unless a subject is named");
    assert_snapshot!(test("{ as: { issuer: corp, groups: [g] } }"), @"acme.yaml:4:7: `spec.can`: must not be empty unless something stands under `cannot`: a test must test something");
    assert_snapshot!(test("{ as: { issuer: corp, groups: [g] }, cant: [x] }"), @"acme.yaml:4:44: `spec.cant`: is unknown; did you mean `can`?");
}

#[test]
fn a_missing_field_is_named() {
    assert_snapshot!(error("kind: Tenant\nmetadata: { name: acme }\nspec: {}"), @"acme.yaml:1:1: `apiVersion`: is missing: begin the first document with `apiVersion: mcp-mux/v1`");
    assert_snapshot!(error("apiVersion: mcp-mux/v2\nkind: Tenant\nmetadata: { name: acme }\nspec: {}"), @"acme.yaml:1:13: `apiVersion`: must be `mcp-mux/v1`, the one version that is read");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: {}\nspec: {}"), @"acme.yaml:3:11: `metadata.name`: is missing");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: acme }"), @"acme.yaml:1:1: `spec`: is missing");
    assert_snapshot!(upstream_error("http: {}"), @"acme.yaml:6:9: `spec.http.url`: is missing");
    let no_auth = GOOD.replace("  auth: { bearer: { secret: jira-token } }\n", "");
    assert_snapshot!(error(&no_auth), @"acme.yaml:10:3: `spec.auth`: is missing: an upstream that asks for no proof has `auth: none`");
}

#[test]
fn a_value_of_the_wrong_form_is_refused() {
    assert_snapshot!(upstream_error("prefix: 12"), @"acme.yaml:6:11: `spec.prefix`: must be a text: put it in quotes");
    assert_snapshot!(upstream_error("prefix:"), @"acme.yaml:6:9: `spec.prefix`: must be a text, and is empty");
    assert_snapshot!(upstream_error("prefix: [a]"), @"acme.yaml:6:11: `spec.prefix`: must be a text");
    assert_snapshot!(upstream_error("prefix: a.b"), @"acme.yaml:6:11: `spec.prefix`: a prefix is 1 to 16 of `A-Z`, `a-z`, `0-9`, `_` and `-`, but this has `.` as character 2");
    assert_snapshot!(upstream_error("enabled: yes"), @"acme.yaml:6:12: `spec.enabled`: must be `true` or `false`");
    assert_snapshot!(upstream_error("concurrency: many"), @"acme.yaml:6:16: `spec.concurrency`: must be a whole number");
    assert_snapshot!(upstream_error("concurrency: -1"), @"acme.yaml:6:16: `spec.concurrency`: must be a whole number");
    assert_snapshot!(upstream_error("concurrency: 5000000000"), @"acme.yaml:6:16: `spec.concurrency`: is too large");
    assert_snapshot!(upstream_error("concurrency: 1025"), @"acme.yaml:6:16: `spec.concurrency`: must be 1 to 1024");
    assert_snapshot!(upstream_error("timeout: 30"), @"acme.yaml:6:12: `spec.timeout`: must be a number with its unit `s` or `m`, such as `30s`");
    assert_snapshot!(upstream_error("timeout: 30 s"), @"acme.yaml:6:12: `spec.timeout`: must be a number with its unit `s` or `m`, such as `30s`");
    assert_snapshot!(upstream_error("timeout: 301s"), @"acme.yaml:6:12: `spec.timeout`: must be 1 to 300 seconds");
    assert_snapshot!(upstream_error("timeout: 0s"), @"acme.yaml:6:12: `spec.timeout`: must be 1 to 300 seconds");
    assert_snapshot!(upstream_error("onNewTool: ask"), @"acme.yaml:6:14: `spec.onNewTool`: the answer to a new tool is `accept` or `quarantine`");
    assert_snapshot!(upstream_error("onArguments: drop"), @"acme.yaml:6:16: `spec.onArguments`: what is done with arguments is `check` or `pass`");
    assert_snapshot!(upstream_error("onToolChange: ignore"), @"acme.yaml:6:17: `spec.onToolChange`: the answer to a changed tool is `accept` or `quarantine`");
    assert_snapshot!(upstream_error("classes: { delete_issue: root }"), @"acme.yaml:6:28: `spec.classes.delete_issue`: a tool class is `read`, `write` or `admin`");
    assert_snapshot!(upstream_error("classes: [delete_issue]"), @"acme.yaml:6:12: `spec.classes`: must be a map (`key: value`)");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: ACME }\nspec: {}"), @"acme.yaml:3:19: `metadata.name`: a tenant's name is 1 to 20 of `a-z` and `0-9`, with single hyphens between them, but this has `A` as character 1");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: acme }\nspec: { displayName: ' ' }"), @"acme.yaml:4:22: `spec.displayName`: must be 1 to 100 characters, without control characters and without white space around it");
    assert_snapshot!(error("just text"), @"acme.yaml:1:1: must be a map (`key: value`)");
    assert_snapshot!(error("- a\n- b"), @"acme.yaml:1:1: must be a map (`key: value`)");
}

#[test]
fn an_upstreams_url_is_a_plain_web_address() {
    assert_snapshot!(upstream_error("http: { url: mcp.acme.example }"), @"acme.yaml:6:16: `spec.http.url`: must be a whole web address, such as `https://mcp.acme.example/mcp`");
    assert_snapshot!(upstream_error("http: { url: 'file:///etc/passwd' }"), @"acme.yaml:6:16: `spec.http.url`: must begin with `https://` or `http://`");
    assert_snapshot!(upstream_error("http: { url: 'https://anna:CANARY-pw@acme.example' }"), @"acme.yaml:6:16: `spec.http.url`: must not hold a user name or a password: secrets are stored apart and named under `auth`");
    assert_snapshot!(upstream_error("http: { url: 'https://acme.example/#x' }"), @"acme.yaml:6:16: `spec.http.url`: must not have a fragment (`#…`)");
}

#[test]
fn a_secret_is_named_and_never_held() {
    let auth = |auth: &str| {
        let text = GOOD.replace("{ bearer: { secret: jira-token } }", auth);
        error(&text)
    };
    assert_snapshot!(auth("{ bearer: { token: CANARY-t } }"), @"acme.yaml:12:21: `spec.auth.bearer.token`: is unknown; known here: `secret`");
    assert_snapshot!(auth("{ bearer: CANARY-t }"), @"acme.yaml:12:19: `spec.auth.bearer`: must be a map (`key: value`)");
    assert_snapshot!(auth("bearer"), @"acme.yaml:12:9: `spec.auth`: must be `none`, or a map with one of `bearer`, `headers`, `basic`, `query`, `clientCredentials`, `tokenExchange`, `account`, `awsSigV4`, `mtls`");
    assert_snapshot!(auth("{}"), @"acme.yaml:12:9: `spec.auth`: must have one of `bearer`, `headers`, `basic`, `query`, `clientCredentials`, `tokenExchange`, `account`, `awsSigV4`, `mtls`");
    assert_snapshot!(auth("{ bearer: { secret: a }, headers: { X-A: { secret: b } } }"), @"acme.yaml:12:9: `spec.auth`: must have one of `bearer`, `headers`, `basic`, `query`, `clientCredentials`, `tokenExchange`, `account`, `awsSigV4`, `mtls`, and this has 2");
    assert_snapshot!(auth("{ headers: {} }"), @"acme.yaml:12:20: `spec.auth.headers`: must have 1 to 8 headers");
    assert_snapshot!(auth("{ headers: { Host: { secret: a } } }"), @"acme.yaml:12:22: `spec.auth.headers.Host`: a header's name is 1 to 64 token characters and no name that HTTP, MCP or a proxy needs for itself, but this is such a name");
    assert_snapshot!(auth("{ headers: { X-A: { secret: a }, x-a: { secret: b } } }"), @"acme.yaml:12:47: `spec.auth.headers.x-a`: is the same header as an earlier one");
}

#[test]
fn a_grant_covers_somebody_and_allows_something() {
    let grant = |from: &str, to: &str| error(&GOOD.replace(from, to));
    assert_snapshot!(grant("groups: [acme-analysts], ", ""), @"acme.yaml:5:7: `spec.groups`: must not be empty unless subjects are named: a grant must cover somebody");
    assert_snapshot!(grant("groups: [acme-analysts]", "groups: []"), @"acme.yaml:5:31: `spec.groups`: must not be empty unless subjects are named: a grant must cover somebody");
    assert_snapshot!(grant("groups: [acme-analysts]", "groups: [a, 12]"), @"acme.yaml:5:35: `spec.groups[1]`: must be a text: put it in quotes");
    assert_snapshot!(grant("allow: [\"*\"]", "allow: []"), @r#"acme.yaml:5:77: `spec.tools.allow`: must not be empty: "*" allows every tool of the tenant"#);
    assert_snapshot!(grant("allow: [\"*\"], ", ""), @"acme.yaml:5:68: `spec.tools.allow`: is missing");
    assert_snapshot!(grant("level: read", "level: reed"), @"acme.yaml:5:55: `spec.level`: a level is `read`, `write` or `admin`");
}

#[test]
fn broken_yaml_is_shown_at_its_place() {
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: [Tenant"), @"acme.yaml:2:7: unclosed bracket '['");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: Tenant\nkind: Grant\n"), @"acme.yaml:3:1: `kind` is here twice");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\n1: a"), @"acme.yaml:2:1: `1`: is unknown; known here: `apiVersion`, `kind`, `metadata`, `spec`");
    assert_snapshot!(error("apiVersion: mcp-mux/v1\nkind: !!python/object a"), @"acme.yaml:2:23: unsupported tag `!!python/object`");
    assert_snapshot!(error("a: &a { b: c }\nd: { <<: *a }"), @"acme.yaml:2:6: `<<` is not understood here: write the fields out");
    assert_snapshot!(error("a: *nowhere"), @"acme.yaml:1:4: reference to unknown value");
    assert_snapshot!(error("a: \"\u{7}\""), @r#"acme.yaml:1:5: unexpected character: `\u{7}'"#);
}

#[test]
fn an_alias_repeats_a_value() {
    let text = "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: { name: &n acme }\nspec: { displayName: *n }";
    let manifest = parse("acme.yaml", text).unwrap();
    let wanted = Object::Tenant { slug: "acme".parse().unwrap(), spec: TenantSpec::named("acme") };
    assert_eq!(manifest.documents()[0].object(), &wanted);
}

#[test]
fn bombs_do_not_go_off() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{aliases}]").unwrap();
    }
    let deep = format!("a: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let block_deep: String = (0..2_000).map(|level| " ".repeat(level) + "a:\n").collect();
    let many = "--- {}\n".repeat(20_001);
    for text in [bomb, deep, block_deep, many, format!("a: [{}]", "x,".repeat(500_001))] {
        let error = error(&text);
        // Brackets within brackets are counted by the parser itself.
        let refused = ["this is too much: a manifest has at most 20000 documents", "recursion limit exceeded"];
        assert!(refused.iter().any(|refused| error.contains(refused)), "{error}");
    }
    let error = error(&"#".repeat(MANIFEST_BYTES_MAX + 1));
    assert_snapshot!(error, @"acme.yaml:1:1: a manifest has at most 8388608 bytes, and this has 8388609: split it");
}

/// The error with the lines that it is about.
fn shown(text: &str) -> String {
    let error = parse("acme.yaml", text).unwrap_err();
    let mut shown = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .with_width(120)
        .render_report(&mut shown, &error)
        .unwrap();
    shown
}

#[test]
fn the_place_is_shown_in_its_lines() {
    let text = GOOD.replace("onToolChange: quarantine", "onToolChange: quarantäne");
    assert_snapshot!(shown(&text), @r#"
     × acme.yaml:13:17: `spec.onToolChange`: the answer to a changed tool is `accept` or `quarantine`
       ╭─[acme.yaml:13:17]
    12 │   auth: { bearer: { secret: jira-token } }
    13 │   onToolChange: quarantäne
       ·                 ─────┬────
       ·                      ╰── here
    14 │   classes: { delete_issue: admin }
       ╰────
    "#);
}

#[test]
fn the_place_of_what_is_no_yaml_is_shown_in_its_lines() {
    for (text, place, at) in [
        ("kind: é\nmetadata: [a}\n", "2:11", "[a}"),
        ("kind: é\r\nmetadata: [a}\r\n", "2:11", "[a}"),
        ("kind: é\r\rmetadata: [é}", "3:11", "[é}"),
        ("\u{feff}é: [a}", "1:4", "[a}"),
        ("é: \"", "1:4", "\""),
    ] {
        let error = parse("acme.yaml", text).unwrap_err();
        assert!(error.to_string().starts_with(&format!("acme.yaml:{place}: ")), "{error}");
        let label = error.labels().and_then(|mut labels| labels.next()).unwrap();
        assert_eq!(label.offset(), text.find(at).unwrap(), "{error}");
    }
    let drawn = shown("kind: Tenant\nmetadata: [a}\n");
    assert!(drawn.contains("acme.yaml:2:11]"), "{drawn}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-zA-Z0-9:{}\\[\\]&*!'\"#|>,\\-\n ]{0,200}") {
        drop(parse("any.yaml", &text));
    }

    #[test]
    fn no_cut_makes_the_parser_panic(at in 0..GOOD.len()) {
        drop(parse("cut.yaml", GOOD.get(..at).unwrap_or_default()));
        drop(parse("cut.yaml", GOOD.get(at..).unwrap_or_default()));
    }
}

async fn store() -> anyhow::Result<Store> {
    let keys = Arc::new(LocalKeys::new(KeyRing::new(Key::generate()?, Vec::new())));
    let store = Store::open(&SecretString::from("sqlite::memory:"), keys, Arc::new(SystemClock)).await?;
    store.migrate().await?;
    Ok(store)
}

async fn apply_with(store: &Store, texts: &[&str], options: Options) -> anyhow::Result<Report> {
    let names = ["one.yaml", "two.yaml"];
    let manifests = names.iter().zip(texts).map(|(name, text)| parse(name, text)).collect::<Result<Vec<_>, _>>()?;
    Ok(apply(store, &manifests, Administration::of_test(), options).await?)
}

async fn apply_all(store: &Store, texts: &[&str]) -> anyhow::Result<Report> {
    apply_with(store, texts, Options::default()).await
}

#[tokio::test]
async fn documents_are_applied_in_one_revision_whatever_their_order() -> anyhow::Result<()> {
    let store = store().await?;
    assert_snapshot!(apply_all(&store, &[GOOD]).await?, @r#"
    created    Tenant      acme
    created    Upstream    acme/jira
    created    Upstream    acme/wiki
    created    Grant       acme/analysts
    in acme, group acme-analysts of corp, whom no grant covered there
    upstream acme/wiki: what it lists is not known yet
    4 created, 0 changed, 0 unchanged; revision 1
    "#);
    assert_snapshot!(apply_all(&store, &[GOOD]).await?, @r#"
    unchanged  Tenant      acme
    unchanged  Upstream    acme/jira
    unchanged  Upstream    acme/wiki
    unchanged  Grant       acme/analysts
    0 created, 0 changed, 4 unchanged; revision 1
    "#);
    let changed = GOOD.replace("level: read", "level: write").replace("Acme Corp", "Acme");
    assert_snapshot!(apply_all(&store, &[&changed]).await?, @r#"
    changed    Tenant      acme
    unchanged  Upstream    acme/jira
    unchanged  Upstream    acme/wiki
    changed    Grant       acme/analysts
    0 created, 2 changed, 2 unchanged; revision 2
    "#);
    assert_eq!(store.revision().await?, Revision(2));
    Ok(())
}

#[tokio::test]
async fn a_document_may_belong_to_a_tenant_of_the_database_or_of_another_file() -> anyhow::Result<()> {
    let store = store().await?;
    let (upstreams, tenant) = GOOD.rsplit_once("---").unwrap_or_default();
    apply_all(&store, &[upstreams, tenant]).await?;
    let report = apply_all(&store, &[upstreams]).await?;
    assert_eq!((report.applied.len(), report.revision), (3, Revision(1)));
    Ok(())
}

#[tokio::test]
async fn an_unknown_tenant_is_an_error_and_applies_nothing() -> anyhow::Result<()> {
    let store = store().await?;
    let text = GOOD.replace("{ tenant: acme, name: analysts }", "{ tenant: acne, name: analysts }");
    let error = apply_all(&store, &[&text]).await.unwrap_err();
    assert_snapshot!(error, @"one.yaml:4:21: `metadata.tenant`: there is no tenant `acne`, neither here nor in the database: add a document of kind `Tenant`");
    assert!(store.tenants().await?.is_empty());
    assert_eq!(store.revision().await?, Revision(0));
    Ok(())
}

#[tokio::test]
async fn an_upstream_outside_of_its_tenants_hosts_is_an_error_and_applies_nothing() -> anyhow::Result<()> {
    let store = store().await?;
    let narrowed = |hosts: &str| GOOD.replace("Acme Corp }", &format!("Acme Corp, egress: {{ hosts: {hosts} }} }}"));
    let error = apply_all(&store, &[&narrowed("[mcp.acme.example]")]).await.unwrap_err();
    assert_snapshot!(error, @"one.yaml:21:22: `spec.http.url`: is at a host that the tenant's `spec.egress.hosts` does not list: add the host there");
    assert_eq!(store.revision().await?, Revision(0));

    apply_all(&store, &[GOOD]).await?;
    let (_, tenant) = GOOD.rsplit_once("---").unwrap_or_default();
    let tenant = tenant.replace("Acme Corp }", "Acme Corp, egress: { hosts: [mcp.acme.example] } }");
    assert_snapshot!(apply_all(&store, &[&tenant]).await.unwrap_err(), @"one.yaml:5:50: `spec.egress.hosts`: leaves out the host of the tenant's upstream `wiki`: add it, or delete the upstream");
    apply_all(&store, &[&narrowed("[\"*.acme.example\", 127.0.0.1]")]).await?;
    assert_eq!(store.revision().await?, Revision(2));
    Ok(())
}

#[test]
fn hosts_are_names_and_at_least_one() {
    let tenant = |egress: &str| {
        error(&format!(
            "apiVersion: mcp-mux/v1\nkind: Tenant\nmetadata: {{ name: acme }}\nspec: {{ egress: {egress} }}"
        ))
    };
    assert_snapshot!(tenant("{ hosts: [] }"), @"acme.yaml:4:26: `spec.egress.hosts`: must not be empty: leave it out to narrow nothing");
    assert_snapshot!(tenant("{ hosts: [a.example, 'https://a.example'] }"), @"acme.yaml:4:38: `spec.egress.hosts[1]`: a host is a name such as `mcp.acme.example`, `*.acme.example` for all names below it, or an address, but this has `/` as character 7");
    assert_snapshot!(tenant("{}"), @"acme.yaml:4:17: `spec.egress.hosts`: is missing");
    assert_snapshot!(tenant("{ ports: [80] }"), @"acme.yaml:4:19: `spec.egress.ports`: is unknown; did you mean `hosts`?");
}

#[tokio::test]
async fn an_object_is_defined_once() -> anyhow::Result<()> {
    let store = store().await?;
    assert_snapshot!(apply_all(&store, &[GOOD, GOOD]).await.unwrap_err(), @"two.yaml:4:33: `metadata.name`: this Grant is defined at one.yaml:4:33 already");
    assert!(store.tenants().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_the_database_refuses_is_named_and_applies_nothing() -> anyhow::Result<()> {
    let store = store().await?;
    apply_all(&store, &[GOOD]).await?;
    store.shred(&"acme".parse()?, "a test").await?;
    let error = apply_all(&store, &[GOOD]).await.unwrap_err();
    assert_snapshot!(error, @"Tenant `acme` cannot be stored; nothing was applied");
    Ok(())
}
