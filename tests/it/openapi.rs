//! APIs with an OpenAPI document as upstreams: a real `mcpo`, a public API as its documentation has it, and what a hostile document
//! or argument could try.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tenant_store::{Level, UpstreamAuth};

use crate::support::api::{Api, Mcpo};
use crate::support::bridge::text;
use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};

fn setup(url: &str) -> Setup<'_> {
    Setup { tenant: "acme", upstream: "api", url, key: None, level: Level::Write }
}

fn bearer() -> Result<UpstreamAuth> {
    Ok(UpstreamAuth::Bearer { secret: "key".parse()? })
}

/// A document of these paths.
fn document(paths: &Value) -> Value {
    json!({"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths})
}

/// A server with an API that is shown a key, and a client that may use it.
async fn bed(name: &str, api: &Api, key: &str) -> Result<(TestServer, Http)> {
    let server = TestServer::start(name, &[]).await?;
    server.add_api(&setup(&api.url), &api.document(), bearer()?, &[("key", key)]).await?;
    let client = server.client("alice", &["acme"])?;
    Ok((server, client))
}

fn all_texts(answer: &Value) -> String {
    let blocks = answer["result"]["content"].as_array().cloned().unwrap_or_default();
    blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_real_mcpo_is_an_upstream() -> Result<()> {
    let key = canary("mcpo-key");
    let mcpo = Mcpo::start(&key).await?;
    let server = TestServer::start("openapi_mcpo", &[]).await?;
    let document = format!("{}/openapi.json", mcpo.url);
    server.add_api(&setup(&mcpo.url), &document, bearer()?, &[("key", &key)]).await?;
    let alice = server.client("alice", &["acme"])?;
    let tools = alice.tools().await?;
    let add = tools.iter().find(|name| name.contains("add")).with_context(|| format!("{tools:?}"))?.clone();
    let sum = alice.call(&add, json!({"a": 2, "b": 3})).await?;
    ensure!(text(&sum) == "5", "{sum}");
    let wrong = alice.call(&add, json!({"a": "two"})).await?;
    assert_eq!(wrong["result"]["isError"], true, "{wrong}");
    assert_eq!(
        text(&wrong),
        "The call was not made: the argument `a` must be an integer; the argument `b` is missing.",
        "{wrong}"
    );
    ensure!(!server.logged()?.contains(&key), "the log holds the key");
    Ok(())
}

/// Exchange rates as Frankfurter (api.frankfurter.dev) documents them, in our words.
fn frankfurter() -> Value {
    let base = json!({"name": "base", "in": "query", "description": "the currency to convert from", "schema": {"type": "string", "default": "EUR"}});
    let symbols = json!({"name": "symbols", "in": "query", "explode": false, "description": "the currencies to convert to",
        "schema": {"type": "array", "items": {"type": "string"}}});
    let rates = json!({"200": {"description": "rates of a day"}});
    json!({
        "openapi": "3.0.3", "info": {"title": "Exchange rates", "version": "v1"},
        "servers": [{"url": "https://api.frankfurter.dev/v1"}],
        "paths": {
            "/latest": {"get": {"operationId": "latestRates", "summary": "The newest rates", "parameters": [base, symbols], "responses": rates}},
            "/{date}": {"get": {"operationId": "historicalRates", "summary": "The rates of a day", "parameters": [
                {"name": "date", "in": "path", "required": true, "schema": {"type": "string", "format": "date"}}, base, symbols,
            ], "responses": rates}},
            "/currencies": {"get": {"operationId": "currencies", "summary": "Which currencies there are", "responses": rates}},
        },
    })
}

#[tokio::test]
async fn a_public_api_is_called_as_its_documentation_says() -> Result<()> {
    let api = Api::serve(&frankfurter(), |_, uri, _, _| match uri.path() {
        "/v1/latest" => (200, "application/json; charset=utf-8", br#"{"base":"EUR","rates":{"USD":1.10}}"#.to_vec()),
        "/v1/2024-01-02" => (200, "application/json", br#"{ "date":"2024-01-02","rates":{"USD":1.0956} }"#.to_vec()),
        _ => (404, "application/json", br#"{"message":"not found"}"#.to_vec()),
    })
    .await?;
    let server = TestServer::start("openapi_rates", &[]).await?;
    let base = format!("{}/v1", api.url);
    server.add_api(&setup(&base), &api.document(), UpstreamAuth::None, &[]).await?;
    let alice = server.client("alice", &["acme"])?;
    assert_eq!(alice.tools().await?, ["acme__latestRates", "acme__historicalRates", "acme__currencies"]);
    let latest = alice.call("acme__latestRates", json!({"base": "EUR", "symbols": ["USD", "GBP"]})).await?;
    assert_eq!(latest["result"]["structuredContent"]["rates"]["USD"], 1.1, "{latest}");
    assert_eq!(text(&latest), r#"{"base":"EUR","rates":{"USD":1.10}}"#);
    api.seen.until("/v1/latest?base=EUR&symbols=USD%2CGBP").await;
    let day = alice.call("acme__historicalRates", json!({"date": "2024-01-02"})).await?;
    assert_eq!(day["result"]["structuredContent"]["date"], "2024-01-02", "{day}");
    // Another operation's address is not reached by an argument.
    let sneaky = alice.call("acme__historicalRates", json!({"date": "latest"})).await?;
    assert_eq!(sneaky["result"]["isError"], true, "{sneaky}");
    let missing = alice.call("acme__historicalRates", json!({"date": "1900-01-01"})).await?;
    assert_eq!(missing["result"]["isError"], true, "{missing}");
    assert_eq!(all_texts(&missing), "The API answered with HTTP status 404 Not Found.\n{\"message\":\"not found\"}");
    Ok(())
}

#[tokio::test]
async fn arguments_leave_neither_their_segment_nor_their_header() -> Result<()> {
    let paths = json!({"/files/{name}": {"get": {"operationId": "show", "parameters": [
        {"name": "name", "in": "path", "required": true, "schema": {"type": "string"}},
        {"name": "X-Note", "in": "header", "schema": {"type": "string"}},
        {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
        {"name": "Host", "in": "header", "schema": {"type": "string"}},
        {"name": "cookie", "in": "header", "schema": {"type": "string"}},
        {"name": "Transfer-Encoding", "in": "header", "schema": {"type": "string"}},
        {"name": "X-HTTP-Method-Override", "in": "header", "schema": {"type": "string"}},
    ]}}});
    let api = Api::serve(&document(&paths), |_, _, _, _| (200, "text/plain", b"fine".to_vec())).await?;
    let (server, alice) = bed("openapi_arguments", &api, &canary("key")).await?;
    for name in ["../admin", "..", ".", "", "a/b", "..\\x", "%2e%2e", "%2e%2e%2fadmin", "%252e%252e", "a\r\nb", "..;x"]
    {
        let answer = alice.call("acme__show", json!({"name": name})).await?;
        assert_eq!(answer["result"]["isError"], true, "{name}: {answer}");
        ensure!(text(&answer).contains("must be a single part of a path"), "{name}: {answer}");
    }
    let value = canary("argument");
    for (argument, value) in [
        ("X-Note", format!("{value}\r\nX-Evil: 1")),
        ("Authorization", value.clone()),
        ("Host", value.clone()),
        ("cookie", value.clone()),
        ("Transfer-Encoding", "chunked".to_owned()),
        ("X-HTTP-Method-Override", "DELETE".to_owned()),
    ] {
        let answer = alice.call("acme__show", json!({"name": "a", argument: value})).await?;
        assert_eq!(answer["result"]["isError"], true, "{argument}: {answer}");
    }
    let seen = api.seen.text();
    ensure!(!seen.contains("/files"), "no request was made: {seen}");
    let fine = alice.call("acme__show", json!({"name": "ä?x=1#y", "X-Note": value})).await?;
    assert_eq!(text(&fine), "fine");
    api.seen.until("/files/%C3%A4%3Fx%3D1%23y").await;
    api.seen.until(&format!("x-note: {value}")).await;
    ensure!(!server.logged()?.contains(&value), "the log holds an argument");
    Ok(())
}

#[tokio::test]
async fn the_document_does_not_decide_where_we_connect() -> Result<()> {
    let elsewhere = Api::serve(&document(&json!({})), |_, _, _, _| (200, "application/json", b"{}".to_vec())).await?;
    let far = |path: &str| json!({"$ref": format!("{}{path}", elsewhere.url)});
    let servers = json!([{"url": elsewhere.url}, {"url": "//evil.example"}]);
    let mut hostile = document(&json!({
        "/a": {"servers": servers, "get": {"operationId": "a", "servers": servers, "parameters": [
            {"name": "x", "in": "query", "schema": far("/schema.json")}, far("/parameter.json"),
        ]}},
        "/b": far("/path.json"),
        "/c": {"post": {"operationId": "c", "requestBody": far("/body.json")}},
        "//elsewhere/x": {"get": {"operationId": "d"}},
        "/../e": {"get": {"operationId": "e"}},
    }));
    hostile["servers"] = servers;
    let api = Api::serve(&hostile, |_, _, _, _| (302, "text/plain", Vec::new())).await?;
    let (_server, alice) = bed("openapi_servers", &api, &canary("key")).await?;
    assert_eq!(alice.tools().await?, ["acme__c"], "{:?}", alice.tools().await?);
    let moved = alice.call("acme__c", json!({})).await?;
    assert_eq!(text(&moved), "The API answered with HTTP status 302 Found; redirects are not followed.");
    api.seen.until("/c").await;
    assert_eq!(elsewhere.seen.text(), "", "nothing came to where the document points");
    Ok(())
}

#[tokio::test]
async fn a_document_at_another_origin_is_not_shown_the_credential() -> Result<()> {
    let key = canary("key");
    let paths = json!({"/a": {"get": {"operationId": "a"}}});
    let library = Api::serve(&document(&paths), |_, _, _, _| (404, "text/plain", Vec::new())).await?;
    let api = Api::serve(&document(&json!({})), |_, _, _, _| (200, "text/plain", b"here".to_vec())).await?;
    let server = TestServer::start("openapi_library", &[]).await?;
    server.add_api(&setup(&api.url), &library.document(), bearer()?, &[("key", &key)]).await?;
    let alice = server.client("alice", &["acme"])?;
    assert_eq!(text(&alice.call("acme__a", json!({})).await?), "here");
    api.seen.until(&format!("authorization: Bearer {key}")).await;
    library.seen.until("/openapi.json").await;
    let seen = library.seen.text();
    ensure!(!seen.contains(&key) && !seen.to_lowercase().contains("authorization"), "{seen}");
    Ok(())
}

#[tokio::test]
async fn documents_that_are_too_much_cost_only_themselves() -> Result<()> {
    let good = document(&json!({"/a": {"get": {"operationId": "a"}}}));
    let api = Api::serve(&good, |_, _, _, _| (200, "text/plain", b"fine".to_vec())).await?;
    let (server, alice) = bed("openapi_documents", &api, &canary("key")).await?;
    let cyclic = json!({"openapi": "3.0.0", "paths": {"/n": {"post": {"operationId": "n", "requestBody": {"content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/Node"}}}}}}},
        "components": {"schemas": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}}}}});
    for (bad, name) in [
        (" ".repeat(5 * 1024 * 1024), "too large"),
        (format!("{{\"openapi\":\"3.1.0\",\"x\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000)), "too deep"),
        ("{\"swagger\":\"2.0\"}".to_owned(), "another version"),
        ("<html>not found</html>".to_owned(), "a page"),
    ] {
        api.describes(bad);
        server.app.refresher().refresh_all().await;
        assert_eq!(alice.tools().await?, ["acme__a"], "{name}: what was known stays");
        assert_eq!(text(&alice.call("acme__a", json!({})).await?), "fine", "{name}");
    }
    api.describes(cyclic.to_string());
    server.app.refresher().refresh_all().await;
    assert_eq!(alice.tools().await?, ["acme__n"]);
    let answer = alice.call("acme__n", json!({"next": {"next": {}}})).await?;
    assert_eq!(text(&answer), "fine", "{answer}");
    api.seen.until(r#"{"next":{"next":{}}}"#).await;
    Ok(())
}

#[tokio::test]
async fn answers_of_each_kind_become_content() -> Result<()> {
    let paths: serde_json::Map<String, Value> =
        ["object", "list", "image", "binary", "nothing", "denied", "failed", "svg", "deep"]
            .iter()
            .map(|name| (format!("/{name}"), json!({"get": {"operationId": name}})))
            .collect();
    let api = Api::serve(&document(&Value::Object(paths)), |_, uri, _, _| match uri.path() {
        "/object" => (200, "application/problem+json", br#"{"n":1.50}"#.to_vec()),
        "/list" => (200, "application/json", b"[1,2]".to_vec()),
        "/image" => (200, "image/png", vec![0x89, b'P', b'N', b'G']),
        "/svg" => (200, "image/svg+xml", b"<svg/>".to_vec()),
        "/binary" => (200, "application/zip", vec![0xff, 0xfe]),
        "/denied" => (403, "text/plain", b"not yours".to_vec()),
        "/failed" => (500, "application/json", br#"{"error":"x"}"#.to_vec()),
        "/deep" => (200, "application/json", format!("{{\"a\":{}{}}}", "[".repeat(300), "]".repeat(300)).into_bytes()),
        _ => (204, "text/plain", Vec::new()),
    })
    .await?;
    let (_server, alice) = bed("openapi_answers", &api, &canary("key")).await?;
    let call = async |name: &str| -> Result<Value> {
        Ok(alice.call(&format!("acme__{name}"), json!({})).await?["result"].take())
    };
    assert_eq!(call("object").await?["structuredContent"]["n"], 1.5);
    let list = call("list").await?;
    assert_eq!((&list["content"][0]["text"], list.get("structuredContent")), (&json!("[1,2]"), None));
    let image = call("image").await?;
    assert_eq!(image["content"][0], json!({"type": "image", "data": "iVBORw==", "mimeType": "image/png"}));
    assert_eq!(call("svg").await?["content"][0]["text"], "<svg/>");
    let binary = call("binary").await?;
    assert_eq!(
        binary["content"][0]["text"],
        "The API answered with 2 bytes of application/zip, which cannot be shown."
    );
    assert_eq!(call("nothing").await?["content"][0]["text"], "The API answered with HTTP status 204 No Content.");
    for (name, status) in [("denied", "403 Forbidden"), ("failed", "500 Internal Server Error")] {
        let answer = call(name).await?;
        assert_eq!(answer["isError"], true, "{answer}");
        assert_eq!(answer["content"][0]["text"], format!("The API answered with HTTP status {status}."));
        ensure!(answer["content"][1]["text"].is_string() && answer.get("structuredContent").is_none(), "{answer}");
    }
    ensure!(call("deep").await?.get("structuredContent").is_none(), "what is too deep is text only");
    Ok(())
}

#[tokio::test]
async fn a_secret_that_is_repeated_is_not_passed_on() -> Result<()> {
    let key = canary("key");
    let get = |name: &str| json!({"get": {"operationId": name}});
    let paths = json!({"/echo": get("echo"), "/error": get("error"), "/picture": get("picture")});
    let mut described = document(&paths);
    described["paths"]["/echo"]["get"]["description"] = json!(format!("Shows {key}"));
    let api = Api::serve(&described, |_, uri, headers, _| {
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let body = json!({"you": shown, "inner": json!({"again": shown}).to_string()}).to_string();
        if uri.path() == "/picture" {
            return (200, "image/png", format!("\u{1}{shown}").into_bytes());
        }
        (if uri.path() == "/error" { 400 } else { 200 }, "application/json", body.into_bytes())
    })
    .await?;
    let (server, alice) = bed("openapi_redacted", &api, &key).await?;
    for tool in ["acme__echo", "acme__error"] {
        let answer = alice.call(tool, json!({})).await?.to_string();
        ensure!(answer.contains("[redacted]") && !answer.contains(&key), "{answer}");
    }
    let picture = alice.call("acme__picture", json!({})).await?;
    assert_eq!(text(&picture), "The answer holds a secret, and is not shown.", "{picture}");
    let list = alice.legacy("tools/list", &json!({})).await?.text;
    ensure!(list.contains("[redacted]") && !list.contains(&key), "{list}");
    ensure!(!server.logged()?.contains(&key), "the log holds the key");
    Ok(())
}

#[tokio::test]
async fn credentials_in_queries_and_headers_are_out_of_reach() -> Result<()> {
    let key = canary("key");
    let parameter = |name: &str, place: &str| json!({"name": name, "in": place, "schema": {}});
    let paths = json!({"/a": {"get": {"operationId": "a", "parameters": [
        parameter("api_key", "query"), parameter("X-Own-Key", "header"), parameter("q", "query"),
        {"name": "more", "in": "query", "schema": {"type": "object"}},
    ]}}});
    let api = Api::serve(&document(&paths), |_, _, _, _| (200, "text/plain", b"fine".to_vec())).await?;
    let headers = UpstreamAuth::Headers { headers: [("x-own-key".parse()?, "key".parse()?)].into() };
    let query = UpstreamAuth::Query { parameter: "api_key".parse()?, secret: "key".parse()? };
    for (name, auth, argument, shown) in [
        ("query", query, "api_key", format!("/a?q=1&api_key={key}")),
        ("header", headers, "X-Own-Key", format!("x-own-key: {key}")),
    ] {
        let server = TestServer::start(&format!("openapi_{name}"), &[]).await?;
        server.add_api(&setup(&api.url), &api.document(), auth, &[("key", &key)]).await?;
        let alice = server.client("alice", &["acme"])?;
        let refused = alice.call("acme__a", json!({argument: "mine"})).await?;
        ensure!(text(&refused).contains("there is no argument"), "{refused}");
        assert_eq!(text(&alice.call("acme__a", json!({"q": 1})).await?), "fine");
        api.seen.until(&shown).await;
        if name == "query" {
            let sneaky = alice.call("acme__a", json!({"more": {"api_key": "mine"}})).await?;
            assert_eq!(sneaky["result"]["isError"], true, "{sneaky}");
        }
    }
    ensure!(!api.seen.text().contains("mine"), "{}", api.seen.text());
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_refused_is_said_in_words() -> Result<()> {
    let api = Api::serve(&document(&json!({"/a": {"get": {"operationId": "a"}}})), |_, _, _, _| {
        (401, "text/plain", b"who are you".to_vec())
    })
    .await?;
    let (_server, alice) = bed("openapi_refused", &api, &canary("key")).await?;
    let refused = alice.call("acme__a", json!({})).await?.to_string();
    ensure!(refused.contains("refused its stored credential"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn more_calls_than_places_wait_for_each_other() -> Result<()> {
    let calls = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&calls);
    let api = Api::serve(&document(&json!({"/a": {"get": {"operationId": "a"}}})), move |_, _, _, _| {
        count.fetch_add(1, Ordering::Relaxed);
        (200, "text/plain", b"fine".to_vec())
    })
    .await?;
    let (_server, alice) = bed("openapi_places", &api, &canary("key")).await?;
    // Twenty at once through eight places.
    let answers = futures::future::join_all((0..20).map(|_| alice.call("acme__a", json!({})))).await;
    for answer in answers {
        let answer = answer?;
        if text(&answer) != "fine" {
            bail!("{answer}");
        }
    }
    assert_eq!(calls.load(Ordering::Relaxed), 20);
    Ok(())
}
