//! The demonstration's sign-in: the whole way that a client goes by itself.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use mcp_mux::config::TelemetryConfig;
use mcp_mux::dev::{Dev, DevSettings};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::support::client::Http;

const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";
const REDIRECT: &str = "http://127.0.0.1:4711/callback";

/// A client that has registered, and a demonstration to sign in at.
struct SignIn {
    dev: Dev,
    http: reqwest::Client,
    metadata: Value,
    client_id: String,
    _folder: tempfile::TempDir,
}

impl SignIn {
    /// From the endpoint alone: challenge, metadata, registration.
    #[expect(clippy::disallowed_methods, reason = "a test's client is not bound by our egress rules")]
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let telemetry = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
        let dev = Dev::start(&DevSettings { port: 0, folder: folder.path().to_owned(), telemetry }).await?;
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build()?;

        let refused = Http::new(&dev.endpoint(), None)?.legacy("ping", &json!({})).await?;
        let challenge = refused.headers["www-authenticate"].to_str()?.to_owned();
        let resource_metadata = challenge.split('"').nth(1).context("the challenge names a document")?;
        let resource: Value = http.get(resource_metadata).send().await?.json().await?;
        let issuer = resource["authorization_servers"][0].as_str().context("an authorization server")?;
        let metadata: Value =
            http.get(format!("{issuer}/.well-known/oauth-authorization-server")).send().await?.json().await?;
        let registration = json!({"redirect_uris": ["http://127.0.0.1/callback"], "client_name": "test"});
        let client: Value =
            http.post(text(&metadata, "registration_endpoint")).json(&registration).send().await?.json().await?;
        let client_id = text(&client, "client_id").to_owned();
        Ok(Self { dev, http, metadata, client_id, _folder: folder })
    }

    /// What the authorization endpoint answers: the status and, for a redirect, where to.
    async fn authorize(&self, changes: &[(&str, &str)]) -> Result<(u16, Option<Url>)> {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let resource = self.dev.endpoint();
        let mut query = HashMap::from([
            ("client_id", self.client_id.as_str()),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", "xyz"),
            ("scope", "openid groups"),
            ("resource", &resource),
            ("login_hint", "alice"),
        ]);
        query.extend(changes.iter().copied());
        let url = Url::parse_with_params(text(&self.metadata, "authorization_endpoint"), query)?;
        let response = self.http.get(url).send().await?;
        let location = response.headers().get("location").map(|value| value.to_str()).transpose()?;
        Ok((response.status().as_u16(), location.map(Url::parse).transpose()?))
    }

    async fn code(&self) -> Result<String> {
        let (_, location) = self.authorize(&[]).await?;
        let location = location.context("it redirects")?;
        let answer: HashMap<_, _> = location.query_pairs().into_owned().collect();
        assert_eq!((answer["state"].as_str(), answer["iss"].as_str()), ("xyz", self.dev.issuer()));
        assert!(location.as_str().starts_with(REDIRECT), "{location}");
        Ok(answer["code"].clone())
    }

    async fn token(&self, parameters: &[(&str, &str)]) -> Result<Value> {
        let form: Vec<_> = parameters.iter().copied().chain([("client_id", self.client_id.as_str())]).collect();
        Ok(self.http.post(text(&self.metadata, "token_endpoint")).form(&form).send().await?.json().await?)
    }

    async fn redeem(&self, code: &str, verifier: &str) -> Result<Value> {
        let grant_type = ("grant_type", "authorization_code");
        self.token(&[grant_type, ("code", code), ("code_verifier", verifier), ("redirect_uri", REDIRECT)]).await
    }
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_client_that_knows_only_the_endpoint_signs_in_and_lists_alices_tools() -> Result<()> {
    let sign_in = SignIn::start().await?;
    let answer = sign_in.redeem(&sign_in.code().await?, VERIFIER).await?;
    let alice = Http::new(&sign_in.dev.endpoint(), Some(text(&answer, "access_token")))?;
    let tools = alice.tools().await?;
    assert!(tools.iter().any(|tool| tool == "acme__get_ticket"), "{tools:?}");
    assert!(!tools.iter().any(|tool| tool.starts_with("globex")), "{tools:?}");
    assert!(answer["id_token"].is_string());

    let id_token = Http::new(&sign_in.dev.endpoint(), Some(text(&answer, "id_token")))?;
    assert_eq!(id_token.legacy("ping", &json!({})).await?.status, 401, "an ID token is no access token");
    Ok(())
}

#[tokio::test]
async fn a_code_is_good_once_and_only_for_its_own_client_and_verifier() -> Result<()> {
    let sign_in = SignIn::start().await?;
    let code = sign_in.code().await?;
    assert_eq!(sign_in.redeem(&code, "another verifier").await?["error"], "invalid_grant");
    assert_eq!(
        sign_in.redeem(&code, VERIFIER).await?["error"],
        "invalid_grant",
        "it was spent by the first who showed it"
    );
    let code = sign_in.code().await?;
    assert!(sign_in.redeem(&code, VERIFIER).await?["access_token"].is_string());
    assert_eq!(sign_in.redeem(&code, VERIFIER).await?["error"], "invalid_grant");
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_is_good_once() -> Result<()> {
    let sign_in = SignIn::start().await?;
    let first = sign_in.redeem(&sign_in.code().await?, VERIFIER).await?;
    let refresh = ("grant_type", "refresh_token");
    let second = sign_in.token(&[refresh, ("refresh_token", text(&first, "refresh_token"))]).await?;
    assert!(second["access_token"].is_string(), "{second}");
    let again = sign_in.token(&[refresh, ("refresh_token", text(&first, "refresh_token"))]).await?;
    assert_eq!(again["error"], "invalid_grant");
    Ok(())
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_was_not_registered() -> Result<()> {
    let sign_in = SignIn::start().await?;
    for changes in [("redirect_uri", "https://evil.example.com/"), ("client_id", "unknown")] {
        assert_eq!(sign_in.authorize(&[changes]).await?, (400, None), "{changes:?}");
    }
    for (changes, error) in [
        (("code_challenge_method", "plain"), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("resource", "https://other.example.com/mcp"), "invalid_target"),
        (("login_hint", "mallory"), "access_denied"),
    ] {
        let (_, location) = sign_in.authorize(&[changes]).await?;
        let location = location.context("it redirects")?;
        assert!(location.query_pairs().any(|pair| pair == ("error".into(), error.into())), "{location}");
    }
    Ok(())
}
