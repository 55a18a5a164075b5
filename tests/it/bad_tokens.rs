//! Tokens that must not be accepted, whatever is right about them: each is a good token of the real provider but for one thing.

use anyhow::{Context as _, Result};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mcp_mux::config::IssuerConfig;
use serde_json::{Value, json};
use tenant_store::{Clock as _, SystemClock};

use crate::support::client::{Answer, Http};
use crate::support::provider::Provider;
use crate::support::server::TestServer;

/// What the answers to bad tokens say, all of them.
const BODY: &str = "this token is not good here: sign in again";

async fn server(name: &str, issuer: IssuerConfig) -> Result<TestServer> {
    TestServer::start_with(name, &[], |config| {
        config.issuers = vec![issuer];
        Ok(())
    })
    .await
}

async fn ping(server: &TestServer, token: &str) -> Result<Answer> {
    Http::new(&server.url("/mcp"), Some(token))?.legacy("ping", &json!({})).await
}

fn assert_refused(what: &str, token: &str, answer: &Answer) -> Result<()> {
    assert_eq!(answer.status, 401, "{what}: {}", answer.text);
    let challenge = answer.headers["www-authenticate"].to_str()?;
    assert!(challenge.contains("error=\"invalid_token\""), "{what}: {challenge}");
    assert!(challenge.contains("resource_metadata=\"http://"), "{what}: {challenge}");
    assert_eq!(answer.text, BODY, "{what}: the same words for all, and none of a library's");
    let shown = format!("{:?}{}", answer.headers, answer.text);
    assert!(token.is_empty() || !shown.contains(token), "{what}");
    Ok(())
}

/// What is wrong, and the order for it: see `tests/idp/keys.mjs`.
fn orders(endpoint: &str, issuer: &str) -> Result<Vec<(&'static str, Value)>> {
    let now = SystemClock.now().as_millis() / 1000;
    let fraction: f64 = format!("{}.5", now + 300).parse()?;
    let claims = [
        ("another audience", json!({"aud": "https://other.example.com/mcp"})),
        ("no audience", json!({"aud": null})),
        ("an empty list of audiences", json!({"aud": []})),
        ("an audience that only begins so", json!({"aud": format!("{endpoint}/")})),
        ("an audience in another case", json!({"aud": endpoint.replace("mcp", "MCP")})),
        ("an audience of another shape", json!({"aud": {"0": endpoint}})),
        ("another tenant's endpoint", json!({"aud": endpoint.replace("/mcp", "/t/globex/mcp")})),
        ("no issuer", json!({"iss": null})),
        ("another issuer", json!({"iss": "https://other.example.com"})),
        ("an issuer with a slash more", json!({"iss": format!("{issuer}/")})),
        ("a list of issuers", json!({"iss": ["https://evil.example.com", issuer]})),
        ("a list of one issuer", json!({"iss": [issuer]})),
        ("no subject", json!({"sub": null})),
        ("an empty subject", json!({"sub": ""})),
        ("a number for a subject", json!({"sub": 7})),
        ("a subject with a line break", json!({"sub": "alice\nadmin"})),
        ("no end", json!({"exp": null})),
        ("expired", json!({"exp": now - 31, "iat": now - 331})),
        ("a text for an end", json!({"exp": (now + 300).to_string()})),
        ("a fraction for an end", json!({"exp": fraction})),
        ("an end beyond all time", json!({"exp": 1e300})),
        ("an end before time began", json!({"exp": -1})),
        ("not valid yet", json!({"nbf": now + 600})),
        ("from the future", json!({"iat": now + 600, "exp": now + 900})),
        ("a life too long", json!({"exp": now + 40 * 24 * 3600})),
        ("a life too long that does not say when it began", json!({"iat": null, "exp": now + 40 * 24 * 3600})),
        ("an ID token's nonce", json!({"nonce": "n"})),
        ("an ID token's hash", json!({"at_hash": "h"})),
        ("an ID token as Keycloak marks it", json!({"typ": "ID"})),
        ("a refresh token as Keycloak marks it", json!({"typ": "Refresh"})),
        ("an offline token as Keycloak marks it", json!({"typ": "Offline"})),
        ("a logout token as Keycloak marks it", json!({"typ": "Logout"})),
        ("bound to a key (DPoP)", json!({"cnf": {"jkt": "x"}})),
        ("bound to a certificate", json!({"cnf": {"x5t#S256": "x"}})),
        ("a program without a user", json!({"sub": "public-mcp"})),
        ("groups that are no list", json!({"groups": {"acme": true}})),
        ("groups that are no texts", json!({"groups": ["acme", 7]})),
        ("a group that looks like a role", json!({"groups": ["role:admin"]})),
        ("more groups than anybody has", json!({"groups": vec!["g"; 2_001]})),
        ("a client of another shape", json!({"client_id": ["public-mcp"]})),
    ];
    let headers = [
        ("a critical extension", json!({"crit": ["exp"], "exp": 1})),
        ("an unencoded payload", json!({"b64": true, "crit": ["b64"]})),
        ("an unknown key", json!({"kid": "invented"})),
        ("the type of a logout token", json!({"typ": "logout+jwt"})),
        ("the type of a security event", json!({"typ": "secevent+jwt"})),
        ("the type of a proof", json!({"typ": "dpop+jwt"})),
    ];
    let claims = claims.into_iter().map(|(what, claims)| (what, json!({"claims": claims})));
    let headers = headers.into_iter().map(|(what, header)| (what, json!({"header": header})));
    let others = [
        ("a key that nobody knows", json!({"foreign": true})),
        ("a key that it brings along", json!({"foreign": true, "embed": true})),
        ("a key from where it says", json!({"foreign": true, "header": {"jku": "https://evil.example.com/jwks"}})),
        ("a certificate from where it says", json!({"foreign": true, "header": {"x5u": "https://evil.example.com/x"}})),
        ("a certificate that it brings along", json!({"foreign": true, "header": {"x5c": ["MIIB"]}})),
    ];
    let all = claims.chain(headers).chain(others);
    let all = all.map(|(what, mut order)| {
        if order["claims"].get("aud").is_none() {
            order["claims"]["aud"] = json!(endpoint);
        }
        (what, order)
    });
    Ok(all.collect())
}

/// Tokens that no provider would sign.
fn forged(good: &str, keys: &Value, pem: &str) -> Result<Vec<(&'static str, String)>> {
    let mut parts = good.split('.');
    let (header, payload, signature) =
        (parts.next().context("a header")?, parts.next().context("a payload")?, parts.next().context("a signature")?);
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload)?)?;
    let unsigned = |alg: &str| BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": alg, "typ": "at+jwt"}).to_string());
    let public = keys["keys"][0].to_string();
    let modulus = keys["keys"][0]["n"].as_str().context("an RSA key")?.to_owned();
    let kid = keys["keys"][0]["kid"].as_str().map(ToOwned::to_owned);
    let symmetric = |algorithm: Algorithm, secret: &str| {
        let header = Header { kid: kid.clone(), typ: Some("at+jwt".to_owned()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes()))
    };
    let other = BASE64_URL_SAFE_NO_PAD.encode(claims.to_string().replace("alice", "carol"));
    let text = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let es256 = text(&json!({"alg": "ES256", "typ": "at+jwt", "kid": kid}).to_string());
    let number = text(&json!({"alg": "RS256", "typ": "at+jwt", "kid": 7}).to_string());
    Ok(vec![
        ("no signature at all", format!("{}.{payload}.", unsigned("none"))),
        ("no signature, in capitals", format!("{}.{payload}.", unsigned("NONE"))),
        ("no algorithm, and the old signature", format!("{}.{payload}.{signature}", unsigned("none"))),
        ("HS256 with the public key as JSON", symmetric(Algorithm::HS256, &public)?),
        ("HS256 with the public key as PEM", symmetric(Algorithm::HS256, pem)?),
        ("HS512 with the modulus", symmetric(Algorithm::HS512, &modulus)?),
        ("another algorithm than its key's", format!("{es256}.{payload}.{signature}")),
        ("a number for a key id", format!("{number}.{payload}.{signature}")),
        ("another payload", format!("{header}.{other}.{signature}")),
        ("a signature that is cut", format!("{header}.{payload}.{}", signature.get(..100).context("longer")?)),
        ("no signature behind the dot", format!("{header}.{payload}.")),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as if encrypted", format!("{good}.{signature}.{signature}")),
        ("an empty part", format!("{header}..{signature}")),
        ("one word", "xyz".to_owned()),
        ("dots", "..".to_owned()),
        ("a payload that is no JSON", format!("{header}.{}.{signature}", text("claims"))),
        ("a payload that is a list", format!("{header}.{}.{signature}", text("[]"))),
        ("a header that is a list", format!("{}.{payload}.{signature}", text("[]"))),
        ("padding", format!("{header}=.{payload}.{signature}")),
        ("standard base64", format!("{header}.{payload}+/.{signature}")),
        ("longer than any token", format!("{good}{}", "A".repeat(16 * 1024))),
        ("another product's API key", "sk-0123456789abcdef0123456789abcdef".to_owned()),
    ])
}

#[tokio::test]
async fn every_bad_token_is_refused_in_the_same_words() -> Result<()> {
    let provider = Provider::start().await?;
    let server = server("bad_token_matrix", provider.issuer()?).await?;
    let endpoint = server.app.endpoint();
    let good = provider.token(&endpoint).await?;
    assert_eq!(ping(&server, &good).await?.status, 200, "the good one is good");

    let mut bad = forged(&good, &provider.keys().await?, &provider.pem().await?)?;
    let real = provider.sign_in("openid offline_access mcp:use", Some(&endpoint)).await?;
    let token = |name: &str| real[name].as_str().map(ToOwned::to_owned).with_context(|| format!("no {name}: {real}"));
    assert_eq!(ping(&server, &token("access_token")?).await?.status, 200, "so is the one that came with the others");
    bad.push(("a real ID token", token("id_token")?));
    bad.push(("a real refresh token", token("refresh_token")?));
    for (what, order) in orders(&endpoint, &provider.url)? {
        bad.push((what, provider.mint(&order).await.with_context(|| format!("minting {what}"))?));
    }
    assert!(bad.len() >= 70, "{}", bad.len());
    for (what, token) in &bad {
        assert_refused(what, token, &ping(&server, token).await?)?;
    }
    assert_eq!(ping(&server, &good).await?.status, 200, "still");
    let log = server.logged()?;
    assert!(bad.iter().all(|(_, token)| token.len() < 20 || !log.contains(token)), "no token is logged");
    Ok(())
}

#[tokio::test]
async fn groups_that_were_left_out_are_not_no_groups() -> Result<()> {
    let provider = Provider::start().await?;
    let server = server("overage", provider.issuer()?).await?;
    let endpoint = server.app.endpoint();
    for claims in [json!({"_claim_names": {"groups": "src1"}}), json!({"hasgroups": true})] {
        let mut order = json!({"claims": claims});
        order["claims"]["aud"] = json!(endpoint);
        order["claims"]["groups"] = Value::Null;
        let answer = ping(&server, &provider.mint(&order).await?).await?;
        assert_eq!(answer.status, 403, "to sign in again would not help");
        let challenge = answer.headers["www-authenticate"].to_str()?;
        assert!(!challenge.contains("error="), "{challenge}");
        assert!(answer.text.contains("application roles"), "it names the mend: {}", answer.text);
    }
    Ok(())
}

#[tokio::test]
async fn an_id_token_is_refused_even_where_its_client_is_an_audience() -> Result<()> {
    let provider = Provider::start().await?;
    let issuer: IssuerConfig = serde_json::from_value(json!({
        "name": "corp", "url": provider.url, "audiences": ["public-mcp"], "access_claims": ["scope"],
    }))?;
    let server = server("id_token", issuer).await?;
    let real = provider.sign_in("openid", None).await?;
    assert_refused("a real one", "", &ping(&server, real["id_token"].as_str().context("an ID token")?).await?)?;
    // As providers issue it that say no more than they must.
    let claims = json!({"aud": "public-mcp", "scope": null, "client_id": null});
    let bare = provider.mint(&json!({"header": {"typ": "JWT"}, "claims": claims})).await?;
    assert_refused("a bare one", "", &ping(&server, &bare).await?)?;
    let access = provider.mint(&json!({"header": {"typ": "JWT"}, "claims": {"aud": "public-mcp"}})).await?;
    assert_eq!(ping(&server, &access).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_token_in_the_address_is_refused_even_beside_a_good_one() -> Result<()> {
    let provider = Provider::start().await?;
    let server = server("token_in_query", provider.issuer()?).await?;
    let good = provider.token(&server.app.endpoint()).await?;
    for token in [None, Some(good.as_str())] {
        let client = Http::new(&server.url(&format!("/mcp?access_token={good}")), token)?;
        let answer = client.legacy("ping", &json!({})).await?;
        assert_eq!((answer.status, answer.text.contains(&good)), (400, false));
        assert_eq!((&answer.json()?["id"], answer.code()?), (&Value::Null, Some(-32600)), "an MCP client can read it");
        let plain = client.request(reqwest::Method::GET).await?;
        assert_eq!(plain.headers["content-type"], "text/plain; charset=utf-8");
    }
    Ok(())
}

#[tokio::test]
async fn a_profile_narrows_what_an_issuer_may_say() -> Result<()> {
    let provider = Provider::start().await?;
    let strict: IssuerConfig = serde_json::from_value(json!({
        "name": "corp", "url": provider.url, "token_types": ["at+jwt"], "algorithms": ["ES256"],
        "allowed_clients": ["public-mcp"], "required_scopes": ["mcp:use", "mcp:admin"], "max_lifetime_seconds": 600,
    }))?;
    let server = server("profile", strict).await?;
    let endpoint = server.app.endpoint();
    let mint = async |changes: Value| {
        let mut order = json!({"alg": "ES256", "claims": {"aud": endpoint, "scope": "mcp:admin mcp:use"}});
        for (member, value) in changes.as_object().into_iter().flatten() {
            match value.as_object().filter(|_| member == "claims") {
                Some(claims) => claims.iter().for_each(|(name, claim)| order["claims"][name] = claim.clone()),
                None => order[member] = value.clone(),
            }
        }
        ping(&server, &provider.mint(&order).await?).await
    };
    let now = SystemClock.now().as_millis() / 1000;
    assert_eq!(mint(json!({})).await?.status, 200);
    for (what, changes) in [
        ("another algorithm", json!({"alg": "RS256"})),
        ("another type", json!({"header": {"typ": "JWT"}})),
        ("no type", json!({"header": {"typ": null}})),
        ("another client", json!({"claims": {"client_id": "other"}})),
        ("no client", json!({"claims": {"client_id": null}})),
        ("a longer life", json!({"claims": {"exp": now + 700}})),
    ] {
        assert_refused(what, "", &mint(changes).await?)?;
    }
    for scope in [json!("mcp:use"), json!("mcp:admin2 mcp:use"), json!(""), Value::Null, json!(["mcp:use"])] {
        let answer = mint(json!({"claims": {"scope": scope}})).await?;
        assert_eq!(answer.status, 403, "{scope}");
        let challenge = answer.headers["www-authenticate"].to_str()?;
        assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
        assert!(challenge.contains("scope=\"mcp:admin mcp:use\""), "all that is needed at once: {challenge}");
    }
    assert_eq!(mint(json!({"claims": {"scope": ["mcp:use", "mcp:admin"]}})).await?.status, 200, "a list will do");
    Ok(())
}
