//! A bridge under test, and the servers that it runs: those that are published, and those of the tests' own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mcp_mux::bridge::{Bridge, BridgeSettings, ChildCommand};
use mcp_mux::config::{BridgeKey, ChildEnvironment};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::canary;
use super::client::Http;

/// A bridge under test, its address and its key.
pub(crate) struct Bridged {
    /// The bridge.
    pub bridge: Bridge,
    /// Its address.
    pub url: String,
    /// Its key.
    pub key: String,
}

/// A file of this repository.
pub(crate) fn file(path: &str) -> OsString {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).into_os_string()
}

/// The server of the tests' own, and the one made with Python's SDK.
pub(crate) fn python(script: &str, arguments: &[&str]) -> Vec<OsString> {
    let program = [file("target/venv/bin/python"), file(&format!("tests/bridge/{script}"))];
    program.into_iter().chain(arguments.iter().map(OsString::from)).collect()
}

/// A published server: see `tests/clients/typescript/package.json`.
pub(crate) fn node(package: &str, arguments: &[&str]) -> Vec<OsString> {
    let main = file(&format!("tests/clients/typescript/node_modules/@modelcontextprotocol/{package}/dist/index.js"));
    [OsString::from("node"), main].into_iter().chain(arguments.iter().map(OsString::from)).collect()
}

/// What a bridge to `command` with `key` is told.
pub(crate) fn settings(command: Vec<OsString>, variables: &[&str], key: &str) -> Result<BridgeSettings> {
    let named: Vec<_> = variables.iter().map(|text| text.parse().map_err(anyhow::Error::msg)).collect::<Result<_>>()?;
    let mut command = command.into_iter();
    Ok(BridgeSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        key: BridgeKey::parse("--key-file", &SecretString::from(key))?,
        child: ChildCommand {
            program: command.next().context("a program")?,
            arguments: command.collect(),
            environment: ChildEnvironment::of(&named)?,
            memory_bytes_max: None,
        },
        concurrency: 16,
        call_timeout: Duration::from_secs(30),
    })
}

impl Bridged {
    /// Starts a bridge to `command` and waits until it can be called.
    pub(crate) async fn start(command: Vec<OsString>) -> Result<Self> {
        Self::start_with(command, &[], |_| {}).await
    }

    /// The same with `--env` and other settings.
    pub(crate) async fn start_with(
        command: Vec<OsString>,
        variables: &[&str],
        change: impl FnOnce(&mut BridgeSettings),
    ) -> Result<Self> {
        let key = canary("bridge-key");
        let mut settings = settings(command, variables, &key)?;
        change(&mut settings);
        let bridge = Bridge::start(settings).await.context("`tests/run.sh --install` installs what the tests need")?;
        let url = format!("http://{}/mcp", bridge.address());
        let bridged = Self { bridge, url, key };
        // Each time this waits for a while: Python takes long to start on a busy machine.
        while bridged.client()?.legacy("initialize", &hello("2025-11-25")).await?.status == 503 {}
        Ok(bridged)
    }

    /// A client with the key.
    pub(crate) fn client(&self) -> Result<Http> {
        Http::new(&self.url, Some(&self.key))
    }

    /// Calls a tool as a legacy client.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Result<Value> {
        self.client()?.legacy("tools/call", &json!({"name": tool, "arguments": arguments})).await?.json()
    }
}

/// The parameters of `initialize`.
pub(crate) fn hello(version: &str) -> Value {
    json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}})
}

/// What a tool said.
pub(crate) fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_default()
}

/// How often the server was started that notes it in `file`.
pub(crate) fn starts(file: &Path) -> Result<usize> {
    Ok(std::fs::read_to_string(file)?.lines().count())
}

/// Where it notes that.
pub(crate) fn starts_file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("starts")
}
