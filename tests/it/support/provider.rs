//! The real authorization server of the tests, as a process of its own: see `tests/idp`.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use mcp_mux::config::IssuerConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use url::Url;

use super::client::Http;

/// A provider that runs. It ends with the test: its stdin does.
pub(crate) struct Provider {
    /// Its issuer identifier.
    pub url: String,
    _process: Child,
}

impl Provider {
    /// Starts one on a free port.
    pub(crate) async fn start() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/idp/idp.mjs");
        let mut process = Command::new("node")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("running node: `tests/run.sh --install` installs what the tests need")?;
        let mut lines = BufReader::new(process.stdout.take().context("stdout is piped")?).lines();
        let ready = lines.next_line().await?.context("the provider ended: see tests/idp/README.md")?;
        let url = ready.strip_prefix("READY ").with_context(|| format!("it said {ready}"))?.to_owned();
        Ok(Self { url, _process: process })
    }

    /// The issuer as a server is told of it.
    pub(crate) fn issuer(&self) -> Result<IssuerConfig> {
        Ok(IssuerConfig { scopes: vec!["mcp:use".to_owned()], ..IssuerConfig::new("corp".parse()?, &self.url) })
    }

    /// A token made to order: see `tests/idp/keys.mjs`.
    pub(crate) async fn mint(&self, order: &Value) -> Result<String> {
        let answer = self.at("/__test/mint")?.post(order.to_string()).await?;
        ensure!(answer.status == 200, "{}", answer.text);
        Ok(answer.json()?["token"].as_str().context("a token")?.to_owned())
    }

    /// A good token of alice's for `audience`.
    pub(crate) async fn token(&self, audience: &str) -> Result<String> {
        self.mint(&json!({"claims": {"aud": audience}})).await
    }

    /// The tokens that the provider gives alice when she signs in and `scope` is asked for, for `resource` if any.
    pub(crate) async fn sign_in(&self, scope: &str, resource: Option<&str>) -> Result<Value> {
        let order = json!({"person": "alice", "scope": scope, "resource": resource});
        self.at("/__test/signIn")?.post(order.to_string()).await?.json()
    }

    /// Where the browser of `person` ends up, who is sent to `url` and allows everything.
    pub(crate) async fn consent(&self, url: &Url, person: &str) -> Result<Url> {
        let order = json!({"url": url, "person": person});
        let answer = self.at("/__test/consent")?.post(order.to_string()).await?;
        ensure!(answer.status == 200, "{}", answer.text);
        Ok(answer.json()?["url"].as_str().context("an address")?.parse()?)
    }

    /// The first public key as PEM (RFC 7468 §13).
    pub(crate) async fn pem(&self) -> Result<String> {
        Ok(self.test("pem").await?["pem"].as_str().context("a PEM document")?.to_owned())
    }

    /// The public keys.
    pub(crate) async fn keys(&self) -> Result<Value> {
        self.test("keys").await
    }

    /// Signs with new keys from now on, and publishes the old ones too if `keep`.
    pub(crate) async fn rotate(&self, keep: bool) -> Result<()> {
        self.test(if keep { "rotate?keep=1" } else { "rotate?keep=0" }).await.map(drop)
    }

    /// Turns a knob.
    pub(crate) async fn set(&self, knob: &str) -> Result<()> {
        self.test(&format!("set?{knob}")).await.map(drop)
    }

    /// How often a document was asked for.
    pub(crate) async fn asked(&self, document: &str) -> Result<u64> {
        self.test("stats").await?[document].as_u64().context("a number")
    }

    async fn test(&self, what: &str) -> Result<Value> {
        self.at(&format!("/__test/{what}"))?.request(reqwest::Method::GET).await?.json()
    }

    fn at(&self, path: &str) -> Result<Http> {
        Http::new(&format!("{}{path}", self.url), None)
    }
}
