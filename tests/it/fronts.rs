//! Open WebUI as a trusted front, in each of its three ways, with the headers that it was seen to send, and with what somebody
//! else could send.

use anyhow::Result;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcp_mux::config::FrontConfig;
use serde_json::{Value, json};
use tenant_store::{Clock as _, GrantSpec, Level, SystemClock};
use tokio::net::TcpListener;

use crate::support::canary;
use crate::support::client::Http;
use crate::support::server::{Setup, TestServer, serve};
use crate::support::upstreams::RealUpstream;

const ALICE: &str = "a10b2d8e-ac6c-4866-aaf6-0a861af5e25f";
const BOB: &str = "2bbe989b-c22a-4e00-9712-926e1c48278e";
const TEAM_A: &str = "88a2fb19-5cfd-4c77-9b5c-86355abcab0d";

fn front(settings: Value) -> Result<FrontConfig> {
    Ok(serde_json::from_value(settings)?)
}

fn secret(name: &str) -> String {
    format!("{}-0123456789abcdef0123456789abcdef", canary(name))
}

/// A server with one front called `webui`, in which acme is for alice by her id and for team A by its id.
async fn with_front(name: &str, settings: Value) -> Result<TestServer> {
    let key = canary("upstream");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let front = front(settings)?;
    let server = TestServer::start_with(name, &[setup], |config| {
        config.fronts.push(front);
        Ok(())
    })
    .await?;
    let grant = GrantSpec {
        issuer: "webui".parse()?,
        groups: vec![TEAM_A.parse()?],
        subjects: vec![ALICE.parse()?],
        level: Level::Write,
        allow: vec!["*".parse()?],
        deny: Vec::new(),
    };
    server.rows("acme").await?.put_grant(&"front".parse()?, &grant).await?;
    server.app.refresher().refresh_all().await;
    Ok(server)
}

fn user_jwt(secret: &str, changes: &Value) -> Result<String> {
    let now = SystemClock.now().as_millis() / 1000;
    let mut claims = json!({
        "sub": ALICE, "email": "alice@example.test", "name": "Alice Ashe", "role": "user", "iss": "open-webui",
        "iat": now, "exp": now + 300,
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()))?)
}

/// The status of a list, and how many tools it has.
async fn sees(client: Http) -> Result<(u16, usize)> {
    let answer = client.modern("tools/list", json!({})).await?;
    let tools = answer.json().ok().and_then(|list| list["result"]["tools"].as_array().map(Vec::len));
    Ok((answer.status, tools.unwrap_or_default()))
}

const ALL: (u16, usize) = (200, 3);
const NOTHING: (u16, usize) = (200, 0);

#[tokio::test]
async fn a_signed_jwt_names_the_user_and_a_forged_one_names_nobody() -> Result<()> {
    let secret = secret("jwt-secret");
    let server = with_front("front_jwt", json!({"name": "webui", "mode": "jwt", "jwt_secret": secret})).await?;
    let with = |jwt: &str| Http::new(&server.url("/mcp"), None)?.with("x-openwebui-user-jwt", jwt);
    let now = SystemClock.now().as_millis() / 1000;

    assert_eq!(sees(with(&user_jwt(&secret, &json!({}))?)?).await?, ALL);
    assert_eq!(sees(with(&user_jwt(&secret, &json!({"sub": BOB}))?)?).await?, NOTHING);
    assert_eq!(sees(with(&user_jwt(&secret, &json!({"exp": now - 10}))?)?).await?, ALL, "within the leeway");
    for (what, jwt) in [
        ("another secret", user_jwt("another-secret-0123456789abcdef-0123456789", &json!({}))?),
        ("expired", user_jwt(&secret, &json!({"exp": now - 31, "iat": now - 331}))?),
        ("from the future", user_jwt(&secret, &json!({"iat": now + 600, "exp": now + 900}))?),
        ("a life too long", user_jwt(&secret, &json!({"exp": now + 90_000}))?),
        ("another sender", user_jwt(&secret, &json!({"iss": "other"}))?),
        ("a user who was not let in", user_jwt(&secret, &json!({"role": "pending"}))?),
        ("an empty user", user_jwt(&secret, &json!({"sub": ""}))?),
        ("the front itself", user_jwt(&secret, &json!({"sub": "(nobody)"}))?),
        ("unsigned", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJvcGVuLXdlYnVpIn0.".to_owned()),
    ] {
        assert_eq!(sees(with(&jwt)?).await?.0, 401, "{what}");
    }
    let groups = with(&user_jwt(&secret, &json!({"sub": BOB}))?)?.with("x-user-group-ids", TEAM_A)?;
    assert_eq!(sees(groups).await?, NOTHING, "the JWT does not vouch for other headers");
    Ok(())
}

#[tokio::test]
async fn a_front_with_a_key_too_needs_both_and_may_name_groups() -> Result<()> {
    let (secret, key) = (secret("jwt-secret"), secret("front-key"));
    let settings = json!({
        "name": "webui", "mode": "jwt", "jwt_secret": secret, "key": key, "groups_header": "X-User-Group-Ids",
    });
    let server = with_front("front_jwt_key", settings).await?;
    let bob = user_jwt(&secret, &json!({"sub": BOB}))?;
    let named = |key: Option<&str>| Http::new(&server.url("/mcp"), key)?.with("x-openwebui-user-jwt", &bob);

    assert_eq!(sees(named(Some(&key))?).await?, NOTHING);
    assert_eq!(sees(named(Some(&key))?.with("x-user-group-ids", TEAM_A)?).await?, ALL);
    assert_eq!(sees(named(None)?).await?.0, 401, "the JWT alone is not enough");
    assert_eq!(sees(named(Some("wrong"))?).await?.0, 401);
    assert_eq!(sees(Http::new(&server.url("/mcp"), Some(&key))?).await?, NOTHING, "*Verify* connects and sees nothing");
    Ok(())
}

/// What Open WebUI was seen to send with a shared key and templated headers.
fn recorded(client: Http, user: &str, group: &str) -> Result<Http> {
    client
        .with("x-user-groups", "team-a")?
        .with("x-user-group-ids", group)?
        .with("x-user-email", "alice@example.test")?
        .with("x-openwebui-user-name", "Alice%20Ashe")?
        .with("x-openwebui-user-id", user)?
        .with("x-openwebui-user-email", "alice%40example.test")?
        .with("x-openwebui-user-role", "user")?
        .with("x-openwebui-chat-id", "d668ff2c-53e7-4fa8-a528-cce9629cbe36")
}

#[tokio::test]
async fn plain_headers_count_only_beside_the_fronts_key() -> Result<()> {
    let key = secret("front-key");
    let settings = json!({"name": "webui", "mode": "headers", "key": key, "groups_header": "X-User-Group-Ids"});
    let server = with_front("front_headers", settings).await?;
    let client = |key: Option<&str>| Http::new(&server.url("/mcp"), key);

    assert_eq!(sees(recorded(client(Some(&key))?, ALICE, "")?).await?, ALL, "by her id");
    assert_eq!(sees(recorded(client(Some(&key))?, BOB, TEAM_A)?).await?, ALL, "by his group");
    assert_eq!(sees(recorded(client(Some(&key))?, BOB, "another")?).await?, NOTHING);
    assert_eq!(sees(client(Some(&key))?).await?, NOTHING, "*Verify* connects and sees nothing");
    let pending = recorded(client(Some(&key))?, ALICE, "")?.with("x-openwebui-user-role", "pending")?;
    assert_eq!(sees(pending).await?.0, 401);

    assert_eq!(sees(recorded(client(None)?, ALICE, TEAM_A)?).await?.0, 401, "from outside");
    assert_eq!(sees(recorded(client(Some("wrong"))?, ALICE, TEAM_A)?).await?.0, 401);
    let token = server.token("mallory", &[])?;
    assert_eq!(sees(recorded(client(Some(&token))?, ALICE, TEAM_A)?).await?, NOTHING, "a user cannot name another");
    Ok(())
}

#[tokio::test]
async fn a_fronts_users_are_not_the_issuers() -> Result<()> {
    let key = secret("front-key");
    let settings = json!({"name": "webui", "mode": "headers", "key": key, "groups_header": "X-User-Group-Ids"});
    let server = with_front("front_namespace", settings).await?;
    // `acme` is the issuer's group that has the grant.
    let named = recorded(Http::new(&server.url("/mcp"), Some(&key))?, BOB, "acme")?;
    assert_eq!(sees(named).await?, NOTHING);
    let token = server.token(ALICE, &[TEAM_A])?;
    assert_eq!(sees(Http::new(&server.url("/mcp"), Some(&token))?).await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn a_token_and_a_front_that_name_different_users_are_refused() -> Result<()> {
    let secret = secret("jwt-secret");
    let server = with_front("front_disagrees", json!({"name": "webui", "mode": "jwt", "jwt_secret": secret})).await?;
    let mut claims = server.idp.claims("alice", &["acme"], &server.app.endpoint());
    claims["email"] = json!("Alice@example.test");
    let token = server.idp.sign(&claims)?;
    let beside = |jwt: &str| Http::new(&server.url("/mcp"), Some(&token))?.with("x-openwebui-user-jwt", jwt);

    assert_eq!(sees(beside(&user_jwt(&secret, &json!({}))?)?).await?, ALL, "the same user");
    let other = user_jwt(&secret, &json!({"email": "bob@example.test"}))?;
    assert_eq!(sees(beside(&other)?).await?.0, 401);
    assert_eq!(sees(beside("not.a.jwt")?).await?, ALL, "what proves nothing is not read");
    let unsaid = user_jwt(&secret, &json!({"email": null, "sub": BOB}))?;
    assert_eq!(sees(beside(&unsaid)?).await?, ALL, "the token says who it is, and nothing says otherwise");
    Ok(())
}

/// Open WebUI's two answers about a session, as it gave them.
async fn webui(role: &'static str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let routes =
        Router::new().route("/api/v1/auths/", get(whoami)).route("/api/v1/groups/", get(groups)).with_state(role);
    serve(listener, routes);
    Ok(url)
}

fn session_user(headers: &HeaderMap) -> Option<String> {
    let token = headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")?;
    let payload = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims["id"].as_str().filter(|id| *id == ALICE).map(ToOwned::to_owned)
}

async fn whoami(State(role): State<&'static str>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    let id = session_user(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(json!({"id": id, "email": "alice@example.test", "name": "Alice Ashe", "role": role, "permissions": {}})))
}

async fn groups(headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    session_user(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(json!([{"id": TEAM_A, "name": "team-a", "description": "", "member_count": 1}])))
}

/// A session as Open WebUI signs it. The signature is Open WebUI's business.
fn session(id: &str) -> Result<String> {
    let now = SystemClock.now().as_millis() / 1000;
    let claims = json!({"id": id, "typ": "session", "auth_method": "password", "exp": now + 2_419_200, "iat": now});
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(b"webui"))?)
}

#[tokio::test]
async fn a_session_is_whose_the_front_says() -> Result<()> {
    let url = webui("user").await?;
    let server = with_front("front_session", json!({"name": "webui", "mode": "session", "url": url})).await?;
    let with = |token: &str| Http::new(&server.url("/mcp"), Some(token));
    assert_eq!(sees(with(&session(ALICE)?)?).await?, ALL);
    assert_eq!(sees(with(&session(BOB)?)?).await?.0, 401, "the front does not know it");
    assert_eq!(sees(with("sk-0123456789abcdef")?).await?.0, 401, "an API key of Open WebUI is not asked about");
    Ok(())
}

#[tokio::test]
async fn an_administrator_of_the_front_is_not_in_all_of_its_groups() -> Result<()> {
    let url = webui("admin").await?;
    let server = with_front("front_session_admin", json!({"name": "webui", "mode": "session", "url": url})).await?;
    let only_team = GrantSpec {
        issuer: "webui".parse()?,
        groups: vec![TEAM_A.parse()?],
        subjects: Vec::new(),
        level: Level::Write,
        allow: vec!["*".parse()?],
        deny: Vec::new(),
    };
    server.rows("acme").await?.put_grant(&"front".parse()?, &only_team).await?;
    server.app.refresher().refresh_all().await;
    assert_eq!(sees(Http::new(&server.url("/mcp"), Some(&session(ALICE)?))?).await?, NOTHING);
    Ok(())
}

#[tokio::test]
async fn a_front_that_cannot_be_asked_lets_nobody_in() -> Result<()> {
    let settings = json!({"name": "webui", "mode": "session", "url": "http://127.0.0.1:9"});
    let server = with_front("front_session_down", settings).await?;
    let answer = Http::new(&server.url("/mcp"), Some(&session(ALICE)?))?.modern("tools/list", json!({})).await?;
    assert_eq!(answer.status, 503);
    Ok(())
}
