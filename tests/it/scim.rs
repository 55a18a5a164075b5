//! Directories: what identity providers push, as an independent checker, Entra ID and Okta send it.

mod access;
mod providers;
mod recorded;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::config::{Config, DirectoryConfig, GroupAttribute, UserAttribute};
use reqwest::Method;
use reqwest::header::HeaderValue;
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::{Group, Level, Revoked, Subject};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::canary;
use crate::support::client::{Answer, Http};
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::RealUpstream;

/// In this time every replica has it, where nobody is told.
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
        ensure!(body["status"] == json!(answer.status.to_string()), "{}", answer.text);
        Ok((answer.status, body["scimType"].as_str().unwrap_or_default().to_owned()))
    };
    for (method, path, body, status, kind) in [
        (Method::POST, "/Users".to_owned(), "no JSON", 400, "invalidSyntax"),
        (Method::POST, "/Users".to_owned(), "[]", 400, "invalidSyntax"),
        (Method::POST, "/Users".to_owned(), "{}", 400, "invalidValue"),
        (Method::POST, "/Users".to_owned(), r#"{"userName":1}"#, 400, "invalidValue"),
        (Method::POST, "/Users".to_owned(), r#"{"userName":"a","USERNAME":"b"}"#, 400, "invalidSyntax"),
        (Method::POST, "/Users".to_owned(), r#"{"userName":"a","userName":"b"}"#, 400, "invalidSyntax"),
        (Method::PUT, user.clone(), r#"{"userName":"alice","active":false,"active":true}"#, 400, "invalidSyntax"),
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
        (Method::GET, format!("/Users?{}", query("userName eq true")), "", 400, "invalidFilter"),
        (Method::GET, format!("/Groups?{}", query(r#"userName eq "a""#)), "", 400, "invalidFilter"),
        (Method::GET, "/Users?count=x".to_owned(), "", 400, "invalidValue"),
        (Method::GET, "/Schemas?filter=x".to_owned(), "", 400, "invalidFilter"),
    ] {
        let answer = bed.at(&path)?.send_as(method.clone(), body).await?;
        assert_eq!(said(&answer)?, (status, kind.to_owned()), "{method} {path} {body}: {}", answer.text);
    }
    let allowed = bed.at(&user)?.request(Method::POST).await?;
    assert_eq!(allowed.headers.get("allow").map(HeaderValue::as_bytes), Some(b"GET, PUT, PATCH, DELETE".as_slice()));
    assert_eq!(bed.get("/ServiceProviderConfig").await?.pointer("/etag/supported"), Some(&json!(false)));
    let named: Group = "acme".parse()?;
    assert_eq!(bed.server.app.store().directory(&"corp".parse()?).people(Some(&named)).await?, []);
    Ok(())
}

#[tokio::test]
async fn a_body_of_very_many_names_and_a_filter_of_none_cost_nothing() -> Result<()> {
    let bed = Bed::new("scim_many", &upstream().await?, BY_NAMES).await?;
    bed.add("alice").await?;
    // As many names as fit: each compared with all others would take minutes.
    let names: Vec<String> = (0..300_000).map(|n| format!("\"{n:x}\":0")).collect();
    let body = format!("{{\"userName\":\"bob\",{}}}", names.join(","));
    let answer = bed.at("/Users")?.send_as(Method::POST, body).await?;
    assert_eq!(answer.status, 400, "{}", answer.text);
    // What no attribute can be, none is.
    let found = bed.get("/Users?filter=userName%20eq%20%22%5Cu0000%22").await?;
    assert_eq!(found["totalResults"], 0, "{found}");
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
    // Ids of the same moment are in no order.
    seen.sort();
    assert_eq!(seen, ["user-0", "user-1", "user-2", "user-3", "user-4"]);
    Ok(())
}
