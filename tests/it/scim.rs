//! Directories: what identity providers push, as an independent checker, Entra ID and Okta send it; and who loses what by it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::config::{Config, DirectoryConfig, GroupAttribute, IssuerConfig, UserAttribute};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::testing::is_on_postgres;
use tenant_store::{Group, Level, Revoked, Subject};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use crate::support::canary;
use crate::support::client::{Answer, Events, Http};
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::{ByteUpstream, RealUpstream, Say};

/// In this time every replica has it, where the database tells of changes, and where it does not.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const FOUND_WITHIN: Duration = Duration::from_secs(10);
/// What the checker asks for and there is not, which it says of itself: that POST searches is optional (RFC 7644 §3.4.3).
const NOT_ASKED: [&str; 1] = ["search_with_attributes"];
const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// A server with a directory of `corp`, and what proves that.
struct Bed {
    server: TestServer,
    token: String,
}

fn directory(issuer: &str, token: &str, (user, group): (UserAttribute, GroupAttribute)) -> Result<DirectoryConfig> {
    Ok(DirectoryConfig {
        issuer: issuer.parse()?,
        token: Some(SecretString::from(token)),
        token_file: None,
        user,
        user_prefix: String::new(),
        group,
    })
}

const BY_NAMES: (UserAttribute, GroupAttribute) = (UserAttribute::UserName, GroupAttribute::DisplayName);

impl Bed {
    async fn new(name: &str, url: &str, by: (UserAttribute, GroupAttribute)) -> Result<Self> {
        Self::with(name, url, by, |_| Ok(())).await
    }

    async fn with(
        name: &str,
        url: &str,
        by: (UserAttribute, GroupAttribute),
        change: impl FnOnce(&mut Config) -> Result<()>,
    ) -> Result<Self> {
        let token = canary("scim-token");
        let setup = Setup { tenant: "acme", upstream: "desk", url, key: None, level: Level::Write };
        let server = TestServer::start_with(name, &[setup], |config| {
            config.directories.push(directory("corp", &token, by)?);
            change(config)
        })
        .await?;
        Ok(Self { server, token })
    }

    /// A client of a path below that of the directory of `corp`.
    fn at(&self, path: &str) -> Result<Http> {
        self.as_bearer(Some(&self.token), &format!("/scim/v2/corp{path}"))
    }

    fn as_bearer(&self, token: Option<&str>, path: &str) -> Result<Http> {
        Http::new(&self.server.url(path), token)?.with("content-type", "application/scim+json")
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.at(path)?.request(Method::GET).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text);
        answer.json()
    }

    /// Sends a body, which must be answered so.
    async fn send(&self, method: Method, path: &str, body: &Value, status: u16) -> Result<Value> {
        let answer = self.at(path)?.send_as(method, body.to_string()).await?;
        ensure!(answer.status == status, "{path} {body}: {} {}", answer.status, answer.text);
        if answer.text.is_empty() { Ok(Value::Null) } else { answer.json() }
    }

    async fn patch(&self, path: &str, operations: Value, status: u16) -> Result<Value> {
        self.send(Method::PATCH, path, &json!({"schemas": [PATCH], "Operations": operations}), status).await
    }

    /// A user, and its id.
    async fn add(&self, name: &str) -> Result<String> {
        let user = json!({"schemas": [USER], "userName": name, "externalId": format!("ext-{name}"), "active": true});
        text(&self.send(Method::POST, "/Users", &user, 201).await?, "/id")
    }

    async fn revoked(&self) -> Result<Vec<String>> {
        let all = self.server.app.store().still().await?.revocations().await?;
        let subject = |what: Revoked| match what {
            Revoked::Principal { subject, .. } => subject.to_string(),
            other => format!("{other:?}"),
        };
        Ok(all.into_iter().map(|one| subject(one.what)).collect())
    }

    async fn groups_of(&self, subject: &str) -> Result<Vec<String>> {
        let subject: Subject = subject.parse()?;
        let groups = self.server.app.store().directory(&"corp".parse()?).groups_of(&subject).await?;
        Ok(groups.into_iter().map(|group| group.name.to_string()).collect())
    }
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    Ok(found.with_context(|| format!("{pointer} in {value}"))?.to_owned())
}

async fn upstream() -> Result<String> {
    Ok(RealUpstream::named("acme").serve_to(Arc::new(|_, _| true), false).await?.0)
}

fn query(filter: &str) -> String {
    let encoded: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
    format!("filter={encoded}")
}

#[tokio::test]
async fn the_independent_checker_of_conformance_finds_nothing() -> Result<()> {
    let bed = Bed::new("scim_checker", &upstream().await?, BY_NAMES).await?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("target/venv/bin/python"))
        .arg(root.join("tests/clients/python/scim.py"))
        .arg(bed.server.url("/scim/v2/corp"))
        .env("TOKEN", &bed.token)
        .kill_on_drop(true)
        .output()
        .await
        .context("running python: `tests/run.sh --install` installs what the clients need")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    let is_good = |result: &&Value| {
        let is_not_asked = NOT_ASKED.iter().any(|title| result["title"] == *title);
        result["status"] == "SUCCESS" || (result["status"] == "SKIPPED" && is_not_asked)
    };
    let bad: Vec<_> = found.iter().filter(|result| !is_good(result)).collect();
    assert!(bad.is_empty(), "{} of {}: {}", bad.len(), found.len(), serde_json::to_string_pretty(&bad)?);
    for of in ["User", "Group"] {
        assert!(found.iter().filter(|result| result["of"] == of).count() >= 12, "{found:?}");
    }
    assert!(found.len() >= 50, "{}", found.len());
    Ok(())
}

/// As Microsoft documents the requests of Entra ID, in its older and in its newer form.
#[tokio::test]
async fn what_entra_id_sends_is_understood() -> Result<()> {
    let tenant = "2c6b1f0e-0000-4000-8000-000000000001";
    let bed = Bed::with(
        "scim_entra",
        &upstream().await?,
        (UserAttribute::ExternalId, GroupAttribute::ExternalId),
        |config| {
            config.directories[0].user_prefix = format!("{tenant}/");
            Ok(())
        },
    )
    .await?;
    // The test of the connection asks for somebody who is not there.
    let nobody = bed.get(&format!("/Users?{}", query(r#"userName eq "non-existent user""#))).await?;
    assert_eq!((&nobody["totalResults"], &nobody["Resources"]), (&json!(0), &json!([])));
    let (secret, alice) = (canary("mail"), "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef");
    let new = json!({
        "schemas": [USER, "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],
        "externalId": alice, "userName": "alice@corp.example", "active": true,
        "emails": [{"primary": true, "type": "work", "value": secret}], "meta": {"resourceType": "User"},
        "name": {"formatted": secret, "familyName": secret, "givenName": secret}, "roles": [],
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": secret},
    });
    let created = bed.send(Method::POST, "/Users", &new, 201).await?;
    assert!(!created.to_string().contains(&secret), "{created}");
    let user = format!("/Users/{}", text(&created, "/id")?);
    assert_eq!(text(&created, "/meta/location")?, bed.server.url(&format!("/scim/v2/corp{user}")));
    assert_eq!(
        bed.get(&format!("/Users?{}", query(r#"externalId eq "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef""#))).await?["totalResults"],
        1
    );
    let changed = json!([
        {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": secret},
        {"op": "Replace", "path": "name.familyName", "value": secret},
        {"op": "Add", "path": "displayName", "value": "Alice"},
    ]);
    assert_eq!(bed.patch(&user, changed, 200).await?["displayName"], "Alice");

    let new = json!({
        "schemas": [GROUP, "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
        "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159", "displayName": "Analysts", "meta": {"resourceType": "Group"},
    });
    let created = bed.send(Method::POST, "/Groups", &new, 201).await?;
    let (group, id) = (format!("/Groups/{}", text(&created, "/id")?), text(&bed.get(&user).await?, "/id")?);
    let found =
        bed.get(&format!("/Groups?excludedAttributes=members&{}", query(r#"displayName eq "Analysts""#))).await?;
    assert_eq!((&found["totalResults"], found.pointer("/Resources/0/members")), (&json!(1), None));
    let subject = format!("{tenant}/{alice}");
    let member = |op: &str| json!([{"op": op, "path": "members", "value": [{"$ref": null, "value": id}]}]);
    for remove in [member("Remove"), json!([{"op": "remove", "path": format!("members[value eq \"{id}\"]")}])] {
        bed.patch(&group, member("Add"), 204).await?;
        assert_eq!(bed.groups_of(&subject).await?, ["8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159"]);
        let is_in = query(&format!(r#"id eq "{}" and members eq "{id}""#, text(&created, "/id")?));
        assert_eq!(bed.get(&format!("/Groups?{is_in}")).await?["totalResults"], 1);
        bed.patch(&group, remove, 204).await?;
        assert_eq!(bed.groups_of(&subject).await?, [""; 0]);
    }

    for disable in [json!("False"), json!(false)] {
        let switch = |value: Value| json!([{"op": "Replace", "path": "active", "value": value}]);
        assert_eq!(bed.patch(&user, switch(disable), 200).await?["active"], false);
        assert_eq!(bed.revoked().await?, [subject.clone()]);
        assert_eq!(bed.patch(&user, switch(json!("True")), 200).await?["active"], true);
        assert_eq!(bed.revoked().await?, [""; 0]);
    }
    // What says who it is cannot go.
    let gone = bed.patch(&user, json!([{"op": "Remove", "path": "externalId"}]), 400).await?;
    assert_eq!(gone["scimType"], "mutability");
    bed.send(Method::DELETE, &user, &Value::Null, 204).await?;
    assert_eq!(bed.revoked().await?, [subject]);
    let stored = bed.server.database.stolen()?;
    let kept = String::from_utf8_lossy(&stored);
    assert!(!kept.contains(&secret), "what is not used is not stored");
    Ok(())
}

/// As Okta documents its requests.
#[tokio::test]
async fn what_okta_sends_is_understood() -> Result<()> {
    let bed = Bed::new("scim_okta", &upstream().await?, BY_NAMES).await?;
    let empty = bed.get("/Users?startIndex=1&count=2").await?;
    assert_eq!((&empty["totalResults"], &empty["startIndex"]), (&json!(0), &json!(1)));
    bed.get("/Groups?startIndex=1&count=100").await?;
    let by_name = format!("/Users?{}&startIndex=1&count=100", query(r#"userName eq "test.user@okta.local""#));
    assert_eq!(bed.get(&by_name).await?["totalResults"], 0);
    let password = canary("password");
    let mut profile = json!({
        "schemas": [USER], "userName": "test.user@okta.local", "name": {"givenName": "Test", "familyName": "User"},
        "emails": [{"primary": true, "value": "test.user@okta.local", "type": "work"}], "displayName": "Test User",
        "locale": "en-US", "externalId": "00ujl29u0le5T6Aj10h7", "groups": [], "password": password, "active": true,
    });
    let created = bed.send(Method::POST, "/Users", &profile, 201).await?;
    assert!(created.get("password").is_none() && created.get("emails").is_none(), "{created}");
    let id = text(&created, "/id")?;
    let user = format!("/Users/{id}");
    assert_eq!(bed.get(&by_name).await?.pointer("/Resources/0/id"), Some(&json!(id)));

    profile["id"] = json!(id);
    profile["displayName"] = json!("Test Other");
    profile["meta"] = json!({"resourceType": "User"});
    assert_eq!(bed.send(Method::PUT, &user, &profile, 200).await?["displayName"], "Test Other");
    profile["active"] = json!(false);
    bed.send(Method::PUT, &user, &profile, 200).await?;
    assert_eq!(bed.revoked().await?, ["test.user@okta.local"]);
    // Not to say it is not to let somebody in.
    profile.as_object_mut().context("an object")?.remove("active");
    assert_eq!(bed.send(Method::PUT, &user, &profile, 200).await?["active"], false);
    let without_path = |value: Value| json!([{"op": "replace", "value": value}]);
    bed.patch(&user, without_path(json!({"active": true})), 200).await?;
    assert_eq!(bed.revoked().await?, [""; 0]);
    bed.patch(&user, without_path(json!({"password": password})), 200).await?;
    bed.patch(&user, without_path(json!({"active": false})), 200).await?;
    assert_eq!(bed.revoked().await?, ["test.user@okta.local"]);
    bed.patch(&user, without_path(json!({"active": true})), 200).await?;

    let new = json!({"schemas": [GROUP], "displayName": "acme", "members": [{"value": id, "display": "test.user@okta.local"}]});
    let created = bed.send(Method::POST, "/Groups", &new, 201).await?;
    assert_eq!(text(&created, "/members/0/value")?, id);
    let (group, own) = (format!("/Groups/{}", text(&created, "/id")?), text(&created, "/id")?);
    bed.patch(&group, without_path(json!({"id": own, "displayName": "acme-analysts"})), 204).await?;
    assert_eq!(bed.groups_of("test.user@okta.local").await?, ["acme-analysts"]);
    let edits = json!([
        {"op": "remove", "path": format!("members[value eq \"{id}\"]")},
        {"op": "add", "path": "members", "value": [{"value": id, "display": "test.user@okta.local"}]},
    ]);
    bed.patch(&group, edits, 204).await?;
    assert_eq!(bed.get(&group).await?.pointer("/members/0/value"), Some(&json!(id)));
    bed.patch(&group, json!([{"op": "replace", "path": "members", "value": []}]), 204).await?;
    assert_eq!(bed.get(&group).await?["members"], json!([]));
    bed.send(Method::DELETE, &group, &Value::Null, 204).await?;
    assert_eq!(bed.at(&group)?.request(Method::GET).await?.status, 404);
    Ok(())
}

fn held() -> Say {
    Say::Held(
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"working"}}"#.to_owned(),
    )
}

/// Reads a stream to its end.
async fn over(mut events: Events) {
    while events.next().await.is_ok() {}
}

#[tokio::test]
async fn whoever_is_deactivated_loses_what_runs_and_is_let_in_by_no_replica() -> Result<()> {
    let tools = r#"[{"name":"go","inputSchema":{}}]"#;
    let (url, seen) = ByteUpstream::with_tools(tools).on("tools/call", held()).serve().await?;
    let bed = Bed::new("scim_deactivated", &url, BY_NAMES).await?;
    let other = bed.server.replica().await?;
    let token = bed.server.idp.sign(&bed.server.idp.claims("alice", &["acme"], &other.endpoint()))?;
    let elsewhere = Http::new(&other.endpoint(), Some(&token))?;
    assert!(!elsewhere.tools().await?.is_empty());
    let user = format!("/Users/{}", bed.add("alice").await?);
    bed.add("bob").await?;
    let (alice, bob) = (bed.server.client("alice", &["acme"])?, bed.server.client("bob", &["acme"])?);
    let session = alice.begin_session().await?;
    let own_stream = alice.with("mcp-session-id", &session)?.listen().await?;
    let alice = bed.server.client("alice", &["acme"])?;
    let listening = alice.stream("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}})).await?;
    let call = alice.call("acme__go", json!({}));
    let deactivating = async {
        seen.until("tools/call").await;
        let began = Instant::now();
        bed.patch(&user, json!([{"op": "Replace", "path": "active", "value": "False"}]), 200).await?;
        anyhow::Ok(began)
    };
    let (answer, began) = tokio::join!(call, deactivating);
    let (answer, began) = (answer?, began?);
    assert!(answer.to_string().contains("your sign-in ended"), "{answer}");
    timeout(TOLD_WITHIN, over(own_stream)).await?;
    timeout(TOLD_WITHIN, over(listening)).await?;
    let refused = alice.request(Method::POST).await?;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("your access was revoked"), "{}", refused.text);
    let within = if is_on_postgres() { TOLD_WITHIN } else { FOUND_WITHIN };
    while elsewhere.request(Method::POST).await?.status != 403 {
        ensure!(began.elapsed() < within, "the other replica lets them in for {:?}", began.elapsed());
    }
    println!("in force everywhere after {:?}", began.elapsed());
    ensure!(began.elapsed() < within, "{:?}", began.elapsed());
    assert!(!bob.tools().await?.is_empty(), "nobody else is concerned");

    bed.patch(&user, json!([{"op": "Replace", "path": "active", "value": true}]), 200).await?;
    bed.server.app.follow().await?;
    assert!(!alice.tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn whoever_was_removed_stays_out_until_created_again() -> Result<()> {
    let bed = Bed::new("scim_removed", &upstream().await?, BY_NAMES).await?;
    let id = bed.add("alice").await?;
    let user = format!("/Users/{id}");
    bed.send(Method::DELETE, &user, &Value::Null, 204).await?;
    for (method, body) in [
        (Method::GET, Value::Null),
        (Method::DELETE, Value::Null),
        (Method::PUT, json!({"userName": "alice", "active": true})),
        (Method::PATCH, json!({"Operations": [{"op": "replace", "value": {"active": true}}]})),
    ] {
        let answer = bed.send(method, &user, &body, 404).await?;
        assert_eq!((&answer["schemas"], &answer["status"]), (&json!([ERROR]), &json!("404")));
    }
    assert_eq!(bed.get("/Users").await?["totalResults"], 0);
    let Bed { server, token } = bed;
    let bed = Bed { server: server.restart().await?, token };
    let refused = bed.server.client("alice", &["acme"])?.request(Method::POST).await?;
    assert_eq!(refused.status, 403, "a restart brings nobody back");
    assert_ne!(bed.add("alice").await?, id);
    bed.server.app.follow().await?;
    assert!(!bed.server.client("alice", &["acme"])?.tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_directory_gives_nobody_anything() -> Result<()> {
    let bed = Bed::new("scim_gives_nothing", &upstream().await?, BY_NAMES).await?;
    let id = bed.add("alice").await?;
    let group = json!({"schemas": [GROUP], "displayName": "acme", "members": [{"value": id}]});
    bed.send(Method::POST, "/Groups", &group, 201).await?;
    bed.server.app.follow().await?;
    assert_eq!(bed.groups_of("alice").await?, ["acme"]);
    assert!(bed.server.client("alice", &[])?.tools().await?.is_empty(), "the token is what says it");
    assert!(!bed.server.client("alice", &["acme"])?.tools().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_token_opens_its_own_directory_and_nothing_else() -> Result<()> {
    let partner = crate::support::identity::Idp::start().await?;
    let theirs = canary("partner-token");
    let bed = Bed::with("scim_tokens", &upstream().await?, BY_NAMES, |config| {
        config.issuers.push(IssuerConfig::new("partner".parse()?, &partner.url));
        config.issuers.push(IssuerConfig::new("bare".parse()?, "https://bare.example"));
        config.directories.push(directory("partner", &theirs, BY_NAMES)?);
        Ok(())
    })
    .await?;
    let alice = bed.add("alice").await?;
    let users = bed.server.token("alice", &["acme"])?;
    let key = canary("not-a-key");
    let mut answers = Vec::new();
    for (issuer, token) in [
        ("corp", Some(theirs.as_str())),
        ("corp", Some(users.as_str())),
        ("corp", Some(key.as_str())),
        ("corp", Some("")),
        ("corp", None),
        ("partner", Some(bed.token.as_str())),
        ("bare", Some(bed.token.as_str())),
        ("nobody", Some(bed.token.as_str())),
        ("CORP", Some(bed.token.as_str())),
        ("%ff", Some(bed.token.as_str())),
    ] {
        for (method, path) in [
            (Method::GET, "/Users".to_owned()),
            (Method::GET, format!("/Users/{alice}")),
            (Method::DELETE, format!("/Users/{alice}")),
            (Method::POST, "/Groups".to_owned()),
            (Method::GET, "/ServiceProviderConfig".to_owned()),
            (Method::GET, "/nothing".to_owned()),
        ] {
            let client = bed.as_bearer(token, &format!("/scim/v2/{issuer}{path}"))?;
            answers.push(client.request(method).await?.all());
        }
    }
    let (status, body, headers) = answers.first().context("an answer")?;
    assert_eq!(
        (*status, headers.get("www-authenticate").map(|value| value.as_bytes())),
        (401, Some(b"Bearer".as_slice()))
    );
    assert!(body.contains(ERROR) && !body.contains("corp"), "{body}");
    assert!(answers.iter().all(|answer| answer == &answers[0]), "all are the same to the byte: {answers:?}");

    // A directory's own token works there, is not alone in its header elsewhere, and is nobody's on the way to tools.
    let twice = bed.at("/Users")?.and("authorization", &format!("Bearer {}", bed.token))?;
    assert_eq!(twice.request(Method::GET).await?.status, 401);
    assert_eq!(
        bed.as_bearer(None, &format!("/scim/v2/corp/Users?access_token={}", bed.token))?
            .request(Method::GET)
            .await?
            .status,
        401
    );
    for path in ["/mcp", "/t/acme/mcp"] {
        let refused = Http::new(&bed.server.url(path), Some(&bed.token))?.modern("tools/list", json!({})).await?;
        assert_eq!(refused.status, 401);
    }
    let there = bed.as_bearer(Some(&theirs), &format!("/scim/v2/partner/Users/{alice}"))?;
    assert_eq!(there.request(Method::GET).await?.status, 404, "another directory's user is nobody");
    assert_eq!(there.request(Method::DELETE).await?.status, 404);
    let name = json!({"schemas": [USER], "userName": "alice", "active": false});
    let there = bed.as_bearer(Some(&theirs), "/scim/v2/partner/Users")?;
    assert_eq!(there.send_as(Method::POST, name.to_string()).await?.status, 201);
    bed.server.app.follow().await?;
    assert!(!bed.server.client("alice", &["acme"])?.tools().await?.is_empty(), "their alice is not ours");
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_body_is_read_before_it_is_known_who_sends_it() -> Result<()> {
    let bed = Bed::new("scim_body", &upstream().await?, BY_NAMES).await?;
    let endless = || reqwest::Body::wrap_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let stranger = bed.as_bearer(Some("wrong"), "/scim/v2/corp/Users")?;
    let refused = timeout(FOUND_WITHIN, stranger.send_as(Method::POST, endless())).await??;
    assert_eq!(refused.status, 401);
    let large = bed.at("/Users")?.send_as(Method::POST, format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20))).await?;
    assert_eq!((large.status, large.json()?["status"].clone()), (413, json!("413")));
    let deep = bed.at("/Users")?.send_as(Method::POST, format!("{{\"a\":{}", "[".repeat(100_000))).await?;
    assert_eq!(deep.status, 400);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_done_is_said_as_scim_says_it() -> Result<()> {
    let bed = Bed::new("scim_errors", &upstream().await?, BY_NAMES).await?;
    let user = format!("/Users/{}", bed.add("alice").await?);
    let said = |answer: &Answer| -> Result<(u16, String)> {
        let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        let body = answer.json()?;
        ensure!(kind == Some("application/scim+json") && body["schemas"] == json!([ERROR]), "{}", answer.text);
        ensure!(body["status"] == answer.status.to_string(), "{}", answer.text);
        Ok((answer.status, body["scimType"].as_str().unwrap_or_default().to_owned()))
    };
    for (method, path, body, status, kind) in [
        (Method::POST, "/Users".to_owned(), "no JSON", 400, "invalidSyntax"),
        (Method::POST, "/Users".to_owned(), "[]", 400, "invalidSyntax"),
        (Method::POST, "/Users".to_owned(), "{}", 400, "invalidValue"),
        (Method::POST, "/Users".to_owned(), r#"{"userName":1}"#, 400, "invalidValue"),
        (Method::POST, "/Users".to_owned(), r#"{"userName":"a","USERNAME":"b"}"#, 400, "invalidSyntax"),
        (Method::POST, "/Users".to_owned(), r#"{"userName":"alice"}"#, 409, "uniqueness"),
        (Method::POST, "/Users".to_owned(), r#"{"userName":"ALICE"}"#, 409, "uniqueness"),
        (Method::PUT, user.clone(), r#"{"active":true}"#, 400, "invalidValue"),
        (Method::PATCH, user.clone(), r#"{"Operations":[{"op":"replace","path":"[","value":1}]}"#, 400, "invalidPath"),
        (
            Method::PATCH,
            user.clone(),
            r#"{"Operations":[{"op":"replace","path":"id","value":"1"}]}"#,
            400,
            "mutability",
        ),
        (Method::PATCH, user.clone(), r#"{"Operations":[{"op":"remove"}]}"#, 400, "noTarget"),
        (Method::POST, "/Groups".to_owned(), r#"{"displayName":"role:admin"}"#, 400, "invalidValue"),
        (
            Method::POST,
            "/Groups".to_owned(),
            r#"{"displayName":"a","members":[{"value":"dus_1"}]}"#,
            400,
            "invalidValue",
        ),
        (Method::POST, user.clone(), "{}", 405, ""),
        (Method::GET, "/Users/dus_1".to_owned(), "", 404, ""),
        (Method::GET, "/Me".to_owned(), "", 404, ""),
        (Method::POST, "/Bulk".to_owned(), "{}", 404, ""),
        (Method::GET, format!("/Users?{}", query("userName pr")), "", 400, "invalidFilter"),
        (Method::GET, format!("/Users?{}", query(r#"emails eq "a""#)), "", 400, "invalidFilter"),
        (Method::GET, format!("/Users?{}", query(r#"userName eq true"#)), "", 400, "invalidFilter"),
        (Method::GET, format!("/Groups?{}", query(r#"userName eq "a""#)), "", 400, "invalidFilter"),
        (Method::GET, "/Users?count=x".to_owned(), "", 400, "invalidValue"),
        (Method::GET, "/Schemas?filter=x".to_owned(), "", 400, "invalidFilter"),
    ] {
        let answer = bed.at(&path)?.send_as(method.clone(), body).await?;
        assert_eq!(said(&answer)?, (status, kind.to_owned()), "{method} {path} {body}: {}", answer.text);
    }
    let allowed = bed.at(&user)?.request(Method::POST).await?;
    assert_eq!(allowed.headers.get("allow").map(|value| value.as_bytes()), Some(b"GET, PUT, PATCH, DELETE".as_slice()));
    assert_eq!(bed.get("/ServiceProviderConfig").await?.pointer("/etag/supported"), Some(&json!(false)));
    let named: Group = "acme".parse()?;
    assert_eq!(bed.server.app.store().directory(&"corp".parse()?).people(Some(&named)).await?, []);
    Ok(())
}

#[tokio::test]
async fn long_lists_come_in_pages() -> Result<()> {
    let bed = Bed::new("scim_pages", &upstream().await?, BY_NAMES).await?;
    for number in 0..5 {
        bed.add(&format!("user-{number}")).await?;
    }
    let mut seen = Vec::new();
    for start in [1, 3, 5, 7] {
        let page = bed.get(&format!("/Users?startIndex={start}&count=2&attributes=userName")).await?;
        let users = page["Resources"].as_array().context("a list")?;
        assert_eq!((&page["totalResults"], &page["startIndex"]), (&json!(5), &json!(start)));
        assert_eq!(page["itemsPerPage"], users.len());
        for user in users {
            assert!(user.get("active").is_none() && user.get("id").is_some(), "{user}");
            seen.push(text(user, "/userName")?);
        }
    }
    assert_eq!(seen, ["user-0", "user-1", "user-2", "user-3", "user-4"]);
    Ok(())
}
