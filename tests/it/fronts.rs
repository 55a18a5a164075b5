//! Open WebUI as a trusted front that proves itself by a signature or a key, with the headers that it was seen to send, and with
//! what somebody else could send. Its sessions are in `front_session`.

use anyhow::Result;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcp_mux::config::FrontConfig;
use secrecy::SecretString;
use serde_json::{Value, json};
use tenant_store::{ApiKeyDigest, Clock as _, GrantSpec, Level, NewApiKey, SystemClock};

use crate::support::client::Http;
use crate::support::server::{Setup, TestServer};
use crate::support::upstreams::RealUpstream;
use crate::support::{api_key, canary};

pub(crate) const ALICE: &str = "a10b2d8e-ac6c-4866-aaf6-0a861af5e25f";
pub(crate) const BOB: &str = "2bbe989b-c22a-4e00-9712-926e1c48278e";
pub(crate) const TEAM_A: &str = "88a2fb19-5cfd-4c77-9b5c-86355abcab0d";

pub(crate) fn front(settings: Value) -> Result<FrontConfig> {
    Ok(serde_json::from_value(settings)?)
}

pub(crate) fn secret(name: &str) -> String {
    format!("{}-0123456789abcdef0123456789abcdef", canary(name))
}

/// A server with one front called `webui`, in which acme is for alice by her id and for team A by its id.
pub(crate) async fn with_front(name: &str, settings: Value) -> Result<TestServer> {
    with_fronts(name, vec![front(settings)?]).await
}

/// The same with several fronts.
async fn with_fronts(name: &str, fronts: Vec<FrontConfig>) -> Result<TestServer> {
    let key = canary("upstream");
    let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
    let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
    let server = TestServer::start_with(name, &[setup], |config| {
        config.fronts = fronts;
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

/// The same claims under a header that says more.
fn user_jwt_under(secret: &str, header: &Value) -> Result<String> {
    let plain = user_jwt(secret, &json!({}))?;
    let claims = plain.split('.').nth(1).unwrap_or_default();
    let message = format!("{}.{claims}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()));
    let signature = sign(message.as_bytes(), &EncodingKey::from_secret(secret.as_bytes()), Algorithm::HS256)?;
    Ok(format!("{message}.{signature}"))
}

/// The status of a list, and how many tools it has.
pub(crate) async fn sees(client: Http) -> Result<(u16, usize)> {
    let answer = client.modern("tools/list", json!({})).await?;
    let tools = answer.json().ok().and_then(|list| list["result"]["tools"].as_array().map(Vec::len));
    Ok((answer.status, tools.unwrap_or_default()))
}

pub(crate) const ALL: (u16, usize) = (200, 3);
pub(crate) const NOTHING: (u16, usize) = (200, 0);

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
        ("for somebody else", user_jwt(&secret, &json!({"aud": "another-tool-server"}))?),
        ("not yet", user_jwt(&secret, &json!({"nbf": now + 60}))?),
        ("an extension", user_jwt_under(&secret, &json!({"alg": "HS256", "crit": ["exp"]}))?),
        ("an unencoded payload", user_jwt_under(&secret, &json!({"alg": "HS256", "b64": false}))?),
        ("an empty user", user_jwt(&secret, &json!({"sub": ""}))?),
        ("the front itself", user_jwt(&secret, &json!({"sub": "(nobody)"}))?),
        ("unsigned", "eyJhbGciOiJub25lIn0.eyJpc3MiOiJvcGVuLXdlYnVpIn0.".to_owned()),
    ] {
        assert_eq!(sees(with(&jwt)?).await?.0, 401, "{what}");
    }
    assert_eq!(sees(with(&user_jwt_under(&secret, &json!({"alg": "HS256", "typ": "JWT"}))?)?).await?, ALL);
    let groups = with(&user_jwt(&secret, &json!({"sub": BOB}))?)?.with("x-user-group-ids", TEAM_A)?;
    assert_eq!(sees(groups).await?, NOTHING, "the JWT does not vouch for other headers");
    Ok(())
}

#[tokio::test]
async fn a_front_with_an_audience_takes_only_what_names_it() -> Result<()> {
    let secret = secret("jwt-secret");
    let settings = json!({"name": "webui", "mode": "jwt", "jwt_secret": secret, "audience": "mcp-mux"});
    let server = with_front("front_jwt_audience", settings).await?;
    let for_audience = |audience: Value| {
        Http::new(&server.url("/mcp"), None)?
            .with("x-openwebui-user-jwt", &user_jwt(&secret, &json!({ "aud": audience }))?)
    };
    assert_eq!(sees(for_audience(json!("mcp-mux"))?).await?, ALL);
    assert_eq!(sees(for_audience(json!(["other", "mcp-mux"]))?).await?, ALL);
    for audience in [Value::Null, json!("other"), json!([]), json!({"mcp-mux": 1})] {
        assert_eq!(sees(for_audience(audience)?).await?.0, 401);
    }
    Ok(())
}

#[tokio::test]
async fn a_jwt_beside_another_kind_of_proof_lets_nobody_in() -> Result<()> {
    let secret = secret("jwt-secret");
    let server = with_front("front_jwt_scheme", json!({"name": "webui", "mode": "jwt", "jwt_secret": secret})).await?;
    let beside = |authorization: &str| {
        let named =
            Http::new(&server.url("/mcp"), None)?.with("x-openwebui-user-jwt", &user_jwt(&secret, &json!({}))?)?;
        named.with("authorization", authorization)
    };
    assert_eq!(sees(beside("Bearer ")?).await?, ALL, "a client whose field for the key is empty");
    for authorization in ["Basic bWU6c2VjcmV0", "DPoP token", "Basic", "Negotiate"] {
        assert_eq!(sees(beside(authorization)?).await?.0, 400, "{authorization}");
    }
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
        .with("x-openwebui-user-name", "Alice Ashe")?
        .with("x-openwebui-user-id", user)?
        .with("x-openwebui-user-email", "alice@example.test")?
        .with("x-openwebui-user-role", "user")?
        .with("x-openwebui-chat-id", "d668ff2c-53e7-4fa8-a528-cce9629cbe36")?
        .with("x-openwebui-message-id", "2b914c88-f000-4414-8b34-07605c0c10cf")
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
async fn what_a_front_sends_is_an_id_or_nothing() -> Result<()> {
    let key = secret("front-key");
    let settings = json!({
        "name": "webui", "mode": "headers", "key": key, "user_header": "X-Staff", "groups_header": "X-User-Group-Ids",
    });
    let server = with_front("front_headers_literal", settings).await?;
    let named = |id: &str, groups: &str| {
        Http::new(&server.url("/mcp"), Some(&key))?.with("x-staff", id)?.with("x-user-group-ids", groups)
    };
    assert_eq!(sees(named(ALICE, "")?).await?, ALL);
    let encoded = ALICE.replace('-', "%2D");
    assert_eq!(sees(named(&encoded, "")?).await?, NOTHING, "an id is taken as it is");
    for (id, groups) in [("{{USER_ID}}", TEAM_A), (ALICE, "{{USER_GROUP_IDS}}"), (ALICE, "role:admin"), (ALICE, "%zz")]
    {
        let answer = named(id, groups)?.modern("tools/list", json!({})).await?;
        assert_eq!(answer.status, 400, "{id} {groups}");
        assert!(answer.text.contains("look at the templates"), "{}", answer.text);
    }
    assert_eq!(sees(named(ALICE, "")?.and("x-staff", BOB)?).await?.0, 400, "two users");
    let log = server.logged()?;
    assert!(log.contains("template that it did not fill in") && log.contains("x-staff"), "an operator can find it");
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
    let own = user_jwt(&secret, &json!({}))?;

    assert_eq!(sees(beside(&own)?).await?, ALL, "the same user");
    let other = user_jwt(&secret, &json!({"email": "bob@example.test"}))?;
    assert_eq!(sees(beside(&other)?).await?.0, 401);
    assert_eq!(sees(beside("not.a.jwt")?).await?, ALL, "what proves nothing is not read");
    let unsaid = user_jwt(&secret, &json!({"email": null, "sub": BOB}))?;
    assert_eq!(sees(beside(&unsaid)?).await?, ALL, "the token says who it is, and nothing says otherwise");
    assert_eq!(sees(beside(&own)?.and("x-openwebui-user-jwt", &other)?).await?.0, 400, "two users");
    Ok(())
}

#[tokio::test]
async fn a_key_of_a_fronts_user_is_not_good_beside_another_user_of_that_front() -> Result<()> {
    let secret = secret("jwt-secret");
    let server =
        with_front("front_disagrees_key", json!({"name": "webui", "mode": "jwt", "jwt_secret": secret})).await?;
    let key = api_key("front");
    let new = NewApiKey {
        name: "alice".parse()?,
        issuer: "webui".parse()?,
        subject: ALICE.parse()?,
        digest: ApiKeyDigest::of(&SecretString::from(key.as_str())),
        tenants: None,
        expires_at: None,
    };
    server.app.store().add_api_key(&new).await?;
    server.app.follow().await?;
    let beside = |jwt: &str| Http::new(&server.url("/mcp"), Some(&key))?.with("x-openwebui-user-jwt", jwt);
    assert_eq!(sees(beside(&user_jwt(&secret, &json!({}))?)?).await?, ALL);
    assert_eq!(sees(beside(&user_jwt(&secret, &json!({"sub": BOB}))?)?).await?.0, 401);
    Ok(())
}

#[tokio::test]
async fn two_fronts_that_name_different_users_in_one_request_are_refused() -> Result<()> {
    let (secret, key) = (secret("jwt-secret"), secret("front-key"));
    let keyed = json!({"name": "webui", "mode": "headers", "key": key, "groups_header": "X-User-Group-Ids"});
    let signed = json!({"name": "signed", "mode": "jwt", "jwt_secret": secret});
    let server = with_fronts("front_disagrees_front", vec![front(keyed)?, front(signed)?]).await?;
    let beside = |jwt: &str| {
        recorded(Http::new(&server.url("/mcp"), Some(&key))?, ALICE, TEAM_A)?.with("x-openwebui-user-jwt", jwt)
    };
    assert_eq!(sees(beside(&user_jwt(&secret, &json!({}))?)?).await?, ALL, "the same user");
    assert_eq!(sees(beside(&user_jwt(&secret, &json!({"sub": BOB}))?)?).await?.0, 401);
    Ok(())
}

#[tokio::test]
async fn where_nobody_can_sign_in_nobody_is_told_to() -> Result<()> {
    let settings = json!({"name": "webui", "mode": "headers", "key": secret("front-key")});
    let front = front(settings)?;
    let server = TestServer::start_with("front_alone", &[], |config| {
        config.issuers.clear();
        config.fronts.push(front);
        Ok(())
    })
    .await?;
    let answer = Http::new(&server.url("/mcp"), None)?.legacy("ping", &json!({})).await?;
    assert_eq!(answer.status, 401);
    assert!(answer.headers.contains_key("www-authenticate"));
    assert!(!answer.text.contains("sign in") && answer.text.contains("configured front"), "{}", answer.text);
    Ok(())
}
