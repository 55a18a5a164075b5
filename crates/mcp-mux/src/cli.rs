//! The command line. People read stderr, programs read stdout; nothing prompts, and every error says what, where and how to
//! mend it.

mod account;
mod apply;
mod audit;
mod bridge;
mod delete;
mod describe;
#[cfg(feature = "dev")]
mod dev;
mod directory;
mod doctor;
mod explain;
mod export;
mod get;
mod healthcheck;
mod import;
mod key;
mod keys;
mod migrate;
mod recorded;
mod replicas;
mod revoke;
mod schema;
mod secret;
mod serve;
mod tools;
mod upstream;
mod usage;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::config::Config;
use crate::policy::Administration;
use crate::telemetry;

/// The exit status that says that something would change. 1 says that something went wrong.
const STATUS_DIFFERENT: u8 = 2;

/// One MCP server in front of the MCP servers of many tenants.
#[derive(Debug, Parser)]
#[command(name = "mcp-mux", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs everything on this machine, to see it work: tenants, people, upstreams, a sign-in
    #[cfg(feature = "dev")]
    Dev(dev::Dev),
    /// Serves MCP to clients, as the configuration says
    ///
    /// Brings the database up to date, proves that the keys fit it, and listens until it is told to stop with Ctrl-C or
    /// SIGTERM. Then it serves for a few seconds more, as something that is not ready (`http.drain_delay_seconds`), and finishes
    /// running calls; a second signal ends at once.
    Serve(Settings),
    /// Makes the database hold what manifests say, in one transaction
    ///
    /// What they do not name stays as it is: leaving a document out takes nothing away, `mcp-mux delete` and `--prune` do. When anything is
    /// wrong, the error names file, line and field, and nothing is applied.
    ///
    /// Says who gains or loses what by it. An access test that would fail stops it.
    Apply(apply::Apply),
    /// Says what applying manifests would change, down to who gains or loses which tool
    ///
    /// The same work as `apply` does, undone at the end. Nothing is applied.
    Diff(apply::Diff),
    /// Finds what is wrong with manifests by themselves; needs neither a database nor a configuration
    Validate(apply::Validate),
    /// Writes what the database holds as manifests, to stdout
    ///
    /// Tenants, upstreams, grants and access tests, and never a secret. Applied again they change nothing: `mcp-mux export | mcp-mux apply -f -`.
    /// Applied to an empty database they make all but the secrets, the accounts of callers and the API keys.
    Export(export::Export),
    /// Lists tenants, upstreams, grants or access tests, as lines or as documents
    Get(get::Get),
    /// Says all that is known about a tenant, an upstream, a grant or an access test
    ///
    /// Its document, and what that does not say: whether the upstream answers, what it lists, which secrets are missing, what is revoked,
    /// whether the test holds.
    Describe(describe::Describe),
    /// Prints the JSON Schema of manifests, for editors
    ///
    ///   mcp-mux schema > mcp-mux.schema.json
    ///
    /// and as the first line of a manifest: `# yaml-language-server: $schema=mcp-mux.schema.json`. What it lets pass may still
    /// break a rule: `mcp-mux validate` knows them all.
    #[command(verbatim_doc_comment)]
    Schema,
    /// Writes the configuration of mcpo, MetaMCP, MCPHub or a client as manifests, to stdout
    ///
    /// What could not be carried over, and why, is said on stderr, with commands that set the secrets.
    /// No secret is repeated. It reads one file and touches no database.
    ///
    ///   mcp-mux import mcpo config.json --tenant acme --issuer corp --group acme-staff --output acme
    ///   less acme/report.txt
    ///   mcp-mux apply -f acme/manifest.yaml
    ///   sh acme/secrets.sh
    #[command(verbatim_doc_comment)]
    Import(import::Import),
    /// Takes an upstream, a grant or an access test away
    ///
    /// Says who loses or gains what by it. An access test that would fail stops it.
    Delete(delete::Delete),
    /// Brings the database up to date
    Migrate(migrate::Migrate),
    /// Stores and removes the secrets that upstreams are called with
    ///
    /// A secret goes in and never comes out: it is sealed for one tenant, one upstream and the address which that has now. When
    /// the address changes, the secret is dropped and must be set again.
    Secret(secret::Secret),
    /// Revokes a user, a group, a tenant, an upstream, a tool, an API key or a secret, and waits until every replica has it
    ///
    /// What is revoked stays so until `mcp-mux reinstate`, whatever grants and manifests say. Running calls and open streams that depend on
    /// it end. Exit status 1 if a replica did not say in time that it knows.
    Revoke(revoke::Revoke),
    /// Takes a revocation back
    Reinstate(revoke::Reinstate),
    /// Lists what is revoked
    Revocations(revoke::Revocations),
    /// Reviews, approves and rejects tools that wait: changed ones, and new ones where those are quarantined or look like others
    Tools(tools::Tools),
    /// Has every replica begin anew with an upstream that was left alone because it failed
    Upstream(upstream::UpstreamCommand),
    /// Makes and takes back the API keys of scripts and services
    Key(key::Key),
    /// Searches, exports and checks the audit record: who called what, who was refused, what operators did
    Audit(audit::AuditCommand),
    /// Says how often tools were called in a month, how many of the calls failed, and how long they took together
    ///
    /// Of each tool of a tenant, or of all tenants. What was refused does not count, and days are those of UTC.
    /// Servers write it every ten seconds.
    ///
    ///   mcp-mux usage --month 2026-11
    ///   mcp-mux usage --month 2026-11 --tenant acme --daily -o csv > acme.csv
    #[command(verbatim_doc_comment)]
    Usage(usage::UsageCommand),
    /// Lists and takes back the accounts that callers connected at upstreams
    Account(account::AccountCommand),
    /// Shows, turns over and destroys the keys that seal secrets
    Keys(keys::Keys),
    /// Makes an MCP server that is a program reachable as an upstream, from a process of its own
    ///
    /// `mcp-mux serve` starts no programs. A bridge runs one, with as few rights as you give it, and speaks Streamable HTTP.
    Bridge(bridge::BridgeCommand),
    /// Examines whether signing in works: providers, keys, clocks, fronts, the metadata that clients read
    ///
    /// Each finding that is not well says how to mend it. Exit status 1 if there is any.
    Doctor(doctor::Doctor),
    /// Says why somebody may use a tool or may not, and what would have to change for the opposite
    ///
    /// Reads the database, not a server: what the tools were when they were listed last, and what grants say now. The decision is made
    /// by the code that servers enforce.
    Explain(explain::Explain),
    /// Lists the users and groups that identity providers have pushed or were asked for, asks for them, and forgets them
    ///
    /// Providers push them over SCIM, where `[[directories]]` says so, or Microsoft Graph is asked, where `[issuers.graph]` does. Who is not active there, or was removed, is revoked.
    Directory(directory::DirectoryCommand),
    /// Lists the processes that serve from the database, and whether each has come to its present state
    Replicas(replicas::Replicas),
    /// Asks the server on this machine whether it is ready: exit status 1 if it is not
    ///
    /// At `admin.listen`, which must be set. For container health checks, where there is no other program.
    Healthcheck(Settings),
    /// Says what a token, read from stdin, would be taken for, and why it would be refused
    ///
    /// The same verification that requests go through. The token is not repeated. Exit status 1 if it would be refused.
    ExplainToken(doctor::ExplainToken),
}

/// Where the process configuration is.
#[derive(Debug, Clone, Args)]
struct Settings {
    /// The configuration file; `MCP_MUX__SECTION__KEY` in the environment wins over it
    #[arg(short, long, value_name = "FILE", default_value = "mcp-mux.toml", env = "MCP_MUX_CONFIG", global = true)]
    config: PathBuf,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Settings {
    fn load(&self) -> Result<Config> {
        Config::load(&self.config).with_context(|| format!("reading {}", self.config.display()))
    }
}

impl Cli {
    /// Runs the command, and says with which status the program ends.
    pub async fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Diff(diff) => {
                return Ok(if diff.run().await? { ExitCode::SUCCESS } else { ExitCode::from(STATUS_DIFFERENT) });
            }
            Command::Validate(validate) => validate.run(),
            #[cfg(feature = "dev")]
            Command::Dev(dev) => Box::pin(dev.run()).await,
            Command::Serve(settings) => serve::run(&settings).await,
            Command::Apply(apply) => apply.run().await,
            Command::Export(export) => export.run().await,
            Command::Get(get) => get.run().await,
            Command::Describe(describe) => describe.run().await,
            Command::Schema => schema::run(),
            Command::Import(import) => import.run(),
            Command::Delete(delete) => delete.run().await,
            Command::Migrate(migrate) => migrate.run().await,
            Command::Secret(secret) => secret.run().await,
            Command::Audit(audit) => audit.run().await,
            Command::Usage(usage) => usage.run().await,
            Command::Account(account) => account.run().await,
            Command::Revoke(revoke) => revoke.run().await,
            Command::Reinstate(reinstate) => reinstate.run().await,
            Command::Revocations(revocations) => revocations.run().await,
            Command::Tools(tools) => tools.run().await,
            Command::Upstream(upstream) => upstream.run().await,
            Command::Key(key) => key.run().await,
            Command::Keys(keys) => keys.run().await,
            Command::Bridge(bridge) => bridge.run().await,
            Command::Doctor(doctor) => doctor.run().await,
            Command::Explain(explain) => explain.run().await,
            Command::Directory(directory) => directory.run().await,
            Command::Replicas(replicas) => replicas.run().await,
            Command::Healthcheck(settings) => healthcheck::run(&settings).await,
            Command::ExplainToken(explain) => explain.run().await,
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints an error with its causes, for people.
#[expect(clippy::print_stderr, reason = "this is where the command line speaks to people")]
pub fn report(error: &anyhow::Error) {
    eprintln!("mcp-mux: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because {cause}");
    }
}

/// Says a line to the person at the terminal. Part of it may be from a token or a provider, so whatever a terminal would obey
/// is spelt out.
#[expect(clippy::print_stderr, reason = "this is where the command line speaks to people")]
fn say(line: &str) {
    eprintln!("{}", spelt_out(line));
}

/// Says several lines, none of which is somebody else's.
fn say_lines(text: &str) {
    text.lines().for_each(say);
}

/// A text without anything that a terminal obeys or hides: control characters, changes of direction, invisible ones.
fn spelt_out(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' | '\\' => shown.push(char),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

/// Prints JSON for the program that reads our output, or for a terminal: what that would obey is escaped as JSON does it.
fn print_json(value: &impl Serialize) -> Result<()> {
    let mut shown = String::new();
    for char in serde_json::to_string(value)?.chars() {
        if char.is_ascii_graphic() || char == ' ' {
            shown.push(char);
        } else {
            shown.extend(char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    print(&shown)
}

/// Says something to the program that reads our output. One that reads no more is an error like others: what is left to do is done first.
fn print(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("writing to stdout")
}

/// For the operator at the terminal.
#[expect(clippy::disallowed_methods, reason = "whoever can read the configuration and its keys is the operator")]
fn administration() -> Administration {
    Administration::for_the_platform()
}

fn start_log(config: &Config) -> Result<()> {
    telemetry::init(&config.telemetry).context("starting the log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        assert_eq!(spelt_out("Zoë's \"C:\\\" — 数据"), "Zoë's \"C:\\\" — 数据");
        let hostile = "a\u{1b}[2J\u{9b}31m\r\n\u{202e}\u{7f}b";
        assert_eq!(spelt_out(hostile), r"a\u{1b}[2J\u{9b}31m\r\n\u{202e}\u{7f}b");
    }
}
