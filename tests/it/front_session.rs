//! Open WebUI's own sessions: whose they are is what Open WebUI says, and asking it costs it little, whoever makes us ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use futures::future::try_join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tenant_store::{Clock as _, GrantSpec, Level, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::fronts::{ALICE, ALL, BOB, NOTHING, TEAM_A, sees, with_front};
use crate::support::client::Http;
use crate::support::server::{TestServer, serve};

/// Most sessions that may be asked about at a time.
const QUESTIONS_MAX: usize = 32;

/// An Open WebUI that knows one session, alice's, and answers as it was seen to.
struct WebUi {
    role: &'static str,
    /// Whose it says the session is.
    id: &'static str,
    /// What it says about groups, if it can.
    groups: Result<Value, StatusCode>,
    asked: AtomicUsize,
    /// Whether it answers about unknown sessions; until then they wait.
    answers: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl WebUi {
    fn new() -> Self {
        Self {
            role: "user",
            id: ALICE,
            groups: Ok(json!([{"id": TEAM_A, "name": "team-a", "description": "", "member_count": 1}])),
            asked: AtomicUsize::new(0),
            answers: watch::Sender::new(true),
            waiting: watch::Sender::new(0),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A server that asks it.
    async fn behind(self, name: &str) -> Result<(TestServer, Arc<Self>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let webui = Arc::new(self);
        let routes = Router::new().route("/api/v1/auths/", get(whoami)).route("/api/v1/groups/", get(groups));
        serve(listener, routes.with_state(Arc::clone(&webui)));
        Ok((with_front(name, json!({"name": "webui", "mode": "session", "url": url})).await?, webui))
    }
}

fn is_alices(headers: &HeaderMap) -> bool {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let payload = token.and_then(|token| BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok());
    payload.is_some_and(|payload| String::from_utf8_lossy(&payload).contains(ALICE))
}

async fn whoami(State(webui): State<Arc<WebUi>>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    webui.asked.fetch_add(1, Ordering::SeqCst);
    if !is_alices(&headers) {
        webui.waiting.send_modify(|waiting| *waiting += 1);
        drop(webui.answers.subscribe().wait_for(|answers| *answers).await);
        return Err(StatusCode::UNAUTHORIZED);
    }
    let (id, role) = (webui.id, webui.role);
    Ok(Json(json!({"id": id, "email": "alice@example.test", "name": "Alice Ashe", "role": role, "permissions": {}})))
}

async fn groups(State(webui): State<Arc<WebUi>>) -> Result<Json<Value>, StatusCode> {
    webui.asked.fetch_add(1, Ordering::SeqCst);
    webui.groups.clone().map(Json)
}

/// A token as Open WebUI signs it. The signature is Open WebUI's business.
fn signed(changes: &Value) -> Result<String> {
    let now = SystemClock.now().as_millis() / 1000;
    let mut claims = json!({
        "id": ALICE, "typ": "session", "auth_method": "password", "auth_time": now, "mfa_verified": false,
        "exp": now + 2_419_200, "iat": now,
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(b"webui"))?)
}

fn session(id: &str) -> Result<String> {
    signed(&json!({ "id": id }))
}

fn with(server: &TestServer, token: &str) -> Result<Http> {
    Http::new(&server.url("/mcp"), Some(token))
}

#[tokio::test]
async fn a_session_is_whose_the_front_says() -> Result<()> {
    let (server, _) = WebUi::new().behind("front_session").await?;
    assert_eq!(sees(with(&server, &session(ALICE)?)?).await?, ALL);
    assert_eq!(sees(with(&server, &session(BOB)?)?).await?.0, 401, "the front does not know it");
    let mut forged = with(&server, &session(BOB)?)?;
    for (name, value) in
        [("x-openwebui-user-id", ALICE), ("x-user-group-ids", TEAM_A), ("x-openwebui-user-role", "admin")]
    {
        forged = forged.with(name, value)?;
    }
    assert_eq!(sees(forged).await?.0, 401, "headers beside a session say nothing");
    let own =
        with(&server, &session(ALICE)?)?.with("x-openwebui-user-id", BOB)?.with("x-openwebui-user-role", "pending")?;
    assert_eq!(sees(own).await?, ALL, "headers beside a session say nothing");
    Ok(())
}

#[tokio::test]
async fn a_session_that_the_front_gives_to_somebody_else_is_refused() -> Result<()> {
    let (server, webui) = WebUi { id: BOB, ..WebUi::new() }.behind("front_session_other").await?;
    assert_eq!(sees(with(&server, &session(ALICE)?)?).await?.0, 401);
    assert_eq!(webui.asked(), 1, "groups are not asked for");
    Ok(())
}

#[tokio::test]
async fn what_is_no_session_is_not_shown_to_the_front() -> Result<()> {
    let (server, webui) = WebUi::new().behind("front_session_shape").await?;
    for token in [
        "sk-0123456789abcdef".to_owned(),
        signed(&json!({"typ": null}))?,
        signed(&json!({"typ": "password_reset"}))?,
        signed(&json!({"id": null}))?,
        signed(&json!({"exp": null}))?,
        signed(&json!({"exp": 1}))?,
    ] {
        assert_eq!(sees(with(&server, &token)?).await?.0, 401);
    }
    assert_eq!(webui.asked(), 0);
    Ok(())
}

#[tokio::test]
async fn an_invented_session_costs_the_front_one_question() -> Result<()> {
    let (server, webui) = WebUi::new().behind("front_session_invented").await?;
    let invented = session("nobody")?;
    for _ in 0..2 {
        let many = (0..20).map(|_| async { sees(with(&server, &invented)?).await });
        assert!(try_join_all(many).await?.iter().all(|seen| seen.0 == 401));
    }
    assert_eq!(webui.asked(), 1);
    Ok(())
}

#[tokio::test]
async fn invented_sessions_wait_for_their_turn() -> Result<()> {
    let webui = WebUi { answers: watch::Sender::new(false), ..WebUi::new() };
    let (server, webui) = webui.behind("front_session_turns").await?;
    let many = (0..3 * QUESTIONS_MAX).map(|number| {
        let server = &server;
        async move { sees(with(server, &session(&format!("nobody-{number}"))?)?).await }
    });
    let meanwhile = async {
        webui.waiting.subscribe().wait_for(|waiting| *waiting >= QUESTIONS_MAX).await?;
        // Others are served, and the rest has time to come too early.
        let alice = server.client("alice", &["acme"])?;
        for _ in 0..50 {
            assert_eq!(alice.legacy("ping", &json!({})).await?.status, 200);
        }
        let waiting = *webui.waiting.borrow();
        webui.answers.send_replace(true);
        Ok::<_, anyhow::Error>(waiting)
    };
    let (seen, waiting) = tokio::try_join!(try_join_all(many), meanwhile)?;
    assert_eq!(waiting, QUESTIONS_MAX);
    assert!(seen.iter().all(|seen| seen.0 == 401));
    assert_eq!(webui.asked(), 3 * QUESTIONS_MAX);
    Ok(())
}

#[tokio::test]
async fn groups_that_cannot_be_had_let_nobody_in() -> Result<()> {
    for (name, groups, status) in [
        ("front_session_groups_500", Err(StatusCode::INTERNAL_SERVER_ERROR), 503),
        ("front_session_groups_401", Err(StatusCode::UNAUTHORIZED), 401),
        ("front_session_groups_odd", Ok(json!({"detail": "Not Found"})), 503),
    ] {
        let (server, _) = WebUi { groups, ..WebUi::new() }.behind(name).await?;
        assert_eq!(sees(with(&server, &session(ALICE)?)?).await?.0, status, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn an_administrator_of_the_front_is_in_those_groups_that_list_its_members() -> Result<()> {
    let group = |members: Value| Ok(json!([{"id": TEAM_A, "name": "team-a", "user_ids": members}]));
    let unsaid = WebUi::new().groups;
    for (name, groups, seen) in [
        ("front_session_admin", unsaid, NOTHING),
        ("front_session_admin_out", group(json!([BOB])), NOTHING),
        ("front_session_admin_in", group(json!([BOB, ALICE])), ALL),
    ] {
        let (server, _) = WebUi { role: "admin", groups, ..WebUi::new() }.behind(name).await?;
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
        assert_eq!(sees(with(&server, &session(ALICE)?)?).await?, seen, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_user_who_was_not_let_in_by_the_front_is_not_let_in() -> Result<()> {
    let (server, _) = WebUi { role: "pending", ..WebUi::new() }.behind("front_session_pending").await?;
    assert_eq!(sees(with(&server, &session(ALICE)?)?).await?.0, 401);
    Ok(())
}

#[tokio::test]
async fn a_front_that_cannot_be_asked_lets_nobody_in_and_the_model_learns_why() -> Result<()> {
    let settings = json!({"name": "webui", "mode": "session", "url": "http://127.0.0.1:9"});
    let server = with_front("front_session_down", settings).await?;
    let answer = with(&server, &session(ALICE)?)?.modern("tools/list", json!({})).await?;
    assert_eq!(answer.status, 503);
    let error = &answer.json()?["error"];
    assert_eq!(error["code"], -32000);
    assert!(error["message"].as_str().is_some_and(|message| message.contains("try again")), "{error}");
    Ok(())
}
