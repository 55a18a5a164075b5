//! `mcp-mux doctor` and `mcp-mux explain-token`: does signing in work, and if not, why.

use std::io::{IsTerminal as _, Read as _};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret as _, SecretString};
use tenant_store::{Clock, SystemClock};

use super::{Settings, print_json, say};
use crate::app::open_store;
use crate::auth::doctor::{self, Finding};
use crate::auth::explain::{Explanation, Fact};
use crate::auth::{ApiKeys, Authenticator, TOKEN_BYTES_MAX};
use crate::config::Config;
use crate::egress::Egress;
use crate::http::ProtectedResources;
use crate::lifecycle::Tasks;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// Also read a token from stdin, and say what it would be taken for
    #[arg(long)]
    token: bool,
    /// How to print the findings
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct ExplainToken {
    #[command(flatten)]
    settings: Settings,
    /// The endpoint for which the token is judged: `/mcp` or `/t/TENANT/mcp`
    #[arg(long, value_name = "PATH", default_value = "/mcp")]
    endpoint: String,
    /// How to print the explanation
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Doctor {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        let token = if self.token { Some(read_token()?) } else { None };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metadata = ProtectedResources::new(&config, &config.public_url).aggregate_document();
        let findings = doctor::examine(&config, &metadata, &Egress::new(&config.egress)?, &clock).await;
        let explanation = match &token {
            Some(token) => Some(explain(&config, token, "/mcp").await?),
            None => None,
        };
        match self.output {
            Output::Json => {
                print_json(&serde_json::json!({ "findings": findings, "token": explanation }))?;
            }
            Output::Text => {
                findings.iter().for_each(tell);
                explanation.iter().for_each(tell_explanation);
            }
        }
        let ill = findings.iter().filter(|finding| finding.mend.is_some()).count();
        if ill > 0 {
            bail!("{ill} of {} findings need mending", findings.len());
        }
        refused(explanation.as_ref())
    }
}

impl ExplainToken {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        let explanation = explain(&config, &read_token()?, &self.endpoint).await?;
        match self.output {
            Output::Json => print_json(&explanation)?,
            Output::Text => tell_explanation(&explanation),
        }
        refused(Some(&explanation))
    }
}

async fn explain(config: &Config, token: &SecretString, endpoint: &str) -> Result<Explanation> {
    let tasks = Tasks::default();
    let _stop = tasks.stop_on_drop();
    let keys = Arc::new(ApiKeys::open(open_store(config).await?).await?);
    let authenticator =
        Authenticator::new(config, &Egress::new(&config.egress)?, Arc::new(SystemClock), &tasks)?.with_api_keys(keys);
    let audiences = [config.public_url.join(endpoint), config.public_url.join("/mcp")];
    Ok(authenticator.explain(token, &audiences).await)
}

fn refused(explanation: Option<&Explanation>) -> Result<()> {
    match explanation.and_then(|explanation| explanation.refused.as_ref()) {
        Some(_) => bail!("the token is refused"),
        None => Ok(()),
    }
}

fn tell(Finding { subject, what, found, mend }: &Finding) {
    let mark = if mend.is_some() { "NOT WELL" } else { "well" };
    say(&format!("{mark:<9} {subject}: {what}: {found}"));
    if let Some(mend) = mend {
        say(&format!("          to mend it: {mend}"));
    }
}

fn tell_explanation(Explanation { says, taken_for, refused }: &Explanation) {
    let list = |facts: &[Fact]| facts.iter().for_each(|Fact { name, value }| say(&format!("  {name:<10} {value}")));
    say("The token says:");
    list(says);
    match refused {
        None => {
            say("It is good, and taken for:");
            list(taken_for);
        }
        Some(why) => {
            say(&format!("It is refused with status {}: {}", why.status, why.reason));
            say(&format!("  to mend it: {}", why.mend));
        }
    }
}

/// From stdin only: arguments are seen by everybody who lists processes.
fn read_token() -> Result<SecretString> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        bail!("the token is read from stdin: `mcp-mux explain-token < token.txt`");
    }
    let mut text = String::new();
    let limit = TOKEN_BYTES_MAX as u64 + 64;
    stdin.by_ref().take(limit).read_to_string(&mut text).context("reading the token from stdin")?;
    let text = SecretString::from(text);
    let token = text.expose_secret().trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        bail!("a token has from 1 to {TOKEN_BYTES_MAX} bytes");
    }
    Ok(SecretString::from(token))
}
