//! `mcp-mux directory`: what identity providers have pushed or were asked for, and forgetting it.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tenant_store::{Clock, DirectoryUser, Group, IssuerName, Leavers, Pulled, Store, Subject, SystemClock};

use super::recorded::{Done, record, record_pushed};
use super::replicas::date;
use super::revoke::Of;
use super::{Output, Settings, administration, print, print_json, say, spelt_out};
use crate::app;
use crate::auth::{GraphDirectory, NamedGroups};
use crate::catalog::Snapshot;
use crate::config::{self, Config};
use crate::egress::Egress;

#[derive(Debug, Args)]
pub(super) struct DirectoryCommand {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lists the users of a directory, whether each may be let in, and since when
    ///
    ///   mcp-mux directory people corp
    ///   mcp-mux directory people corp --group acme-analysts
    #[command(verbatim_doc_comment)]
    People {
        /// The issuer whose directory it is
        issuer: IssuerName,
        /// Only those in this group, as grants name it
        #[arg(long, value_name = "NAME")]
        group: Option<Group>,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Lists the groups of a user, as grants name them
    ///
    /// They are what `mcp-mux explain --as` goes by. In which groups a caller is, its token says all the same.
    ///
    ///   mcp-mux directory groups corp/alice
    #[command(verbatim_doc_comment)]
    Groups {
        /// ISSUER/SUBJECT
        who: Of<Subject>,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Asks Microsoft Graph for the directory now, as servers do every `graph.directory_every_seconds`
    ///
    ///   mcp-mux directory pull corp
    #[command(verbatim_doc_comment)]
    Pull {
        /// The issuer whose directory it is
        issuer: IssuerName,
        /// Take it over also where many would be let in no more: look first who they are
        #[arg(long)]
        accept: bool,
    },
    /// Deletes all that is known of a directory, once it is in the settings no more
    ///
    /// Whom the directory had taken away is let in again, also those who left. Until this is done such a user stays revoked, also without the
    /// settings.
    Forget {
        /// The issuer whose directory it was
        issuer: IssuerName,
    },
}

impl DirectoryCommand {
    pub(super) async fn run(&self) -> Result<()> {
        let config = self.settings.load()?;
        let store = app::look_into(&config).await?;
        match &self.what {
            What::People { issuer, group, output } => people(&store, issuer, group.as_ref(), *output).await,
            What::Groups { who, output } => groups(&store, who, *output).await,
            What::Pull { issuer, accept } => pull(&config, &store, issuer, *accept).await,
            What::Forget { issuer } => {
                if config.has_directory(issuer) {
                    bail!("the settings have a directory of {issuer}, which would go on: take it out of them first");
                }
                let count = store.directory(issuer).forget().await?;
                ensure!(count > 0, "the directory of {issuer} is empty");
                let recorded = record(&store, Done::to("directory forget", "directory", issuer)).await;
                say(&format!("forgotten: {count} users, and all groups"));
                recorded
            }
        }
    }
}

async fn pull(config: &Config, store: &Store, issuer: &IssuerName, accept: bool) -> Result<()> {
    let snapshot = Snapshot::load(store, administration()).await?;
    let named: NamedGroups = Arc::new(move |issuer| snapshot.grants().groups_of(issuer));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let all = GraphDirectory::all(config, &Egress::new(&config.egress)?, (&clock, store), &named)?;
    let Some(directory) = all.iter().find(|directory| directory.issuer() == issuer) else {
        bail!("Microsoft Graph is not asked for {issuer}: set `directory_every_seconds` in its `[issuers.graph]`");
    };
    let told = |what: &str, Pulled { added, changed, removed }| {
        say(&format!("{what}: {added} added, {changed} changed, {removed} removed"));
    };
    let users = directory.pull_users(if accept { Leavers::Any } else { Leavers::Few }).await;
    let recorded = record_pushed(store, directory.pushed_by(config::operator())).await;
    told("users", users?);
    recorded?;
    let groups = directory.pull_groups().await;
    let recorded = record_pushed(store, directory.pushed_by(config::operator())).await;
    told("groups", groups?);
    recorded
}

async fn people(store: &Store, issuer: &IssuerName, group: Option<&Group>, output: Output) -> Result<()> {
    let people = store.directory(issuer).people(group).await?;
    if output == Output::Json {
        return print_json(&people.iter().map(described).collect::<Vec<_>>());
    }
    for user in &people {
        print(&spelt_out(&line(user)))?;
    }
    if people.is_empty() {
        say(&match group {
            Some(group) => format!("the directory of {issuer} has nobody in `{group}`"),
            None => format!("the directory of {issuer} is empty"),
        });
    }
    Ok(())
}

async fn groups(store: &Store, Of { issuer, name }: &Of<Subject>, output: Output) -> Result<()> {
    let directory = store.directory(issuer);
    let Some(user) = directory.of_subject(name).await? else {
        bail!("the directory of {issuer} knows no user {name}: see `mcp-mux directory people {issuer}`");
    };
    let groups = directory.groups_of(name).await?;
    if output == Output::Json {
        let groups = groups.iter().map(|group| json!({ "name": group.name, "displayName": group.display_name }));
        return print_json(&json!({ "user": described(&user), "groups": groups.collect::<Vec<_>>() }));
    }
    if user.is_away() {
        say(&user.state.reason(issuer));
    }
    for group in &groups {
        print(&spelt_out(&format!("{}  {}", group.name, group.display_name)))?;
    }
    if groups.is_empty() {
        say("in no group");
    }
    Ok(())
}

fn line(user: &DirectoryUser) -> String {
    let name = user.display_name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
    format!("{:<8}  {}  {}{name}  since {}", user.state.as_str(), user.subject, user.user_name, date(user.since))
}

fn described(user: &DirectoryUser) -> Value {
    json!({
        "subject": user.subject, "userName": user.user_name, "displayName": user.display_name, "state": user.state,
        "sinceMs": user.since.as_millis(),
    })
}
