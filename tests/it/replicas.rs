//! Many replicas behave as one: real processes behind a load balancer without affinity, of which one is killed and one is stopped while
//! clients of both eras call. Says nothing on SQLite, where one process serves.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use mcp_mux::config::Config;
use mcp_mux::{open_store, wait_for_replicas};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tempfile::TempDir;
use tenant_store::testing::{TestDatabase, is_on_postgres};
use tenant_store::{Level, Store, TenantStore, UpstreamSpec};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::balancer::{Balancer, Place};
use crate::support::canary;
use crate::support::client::Http;
use crate::support::identity::Idp;
use crate::support::process::Process;
use crate::support::server::{Setup, install, output_files, rows};
use crate::support::upstreams::RealUpstream;

const REPLICAS: usize = 3;
const CALLS: usize = 5_000;
/// Each has one call at a time. Half of them are of the modern era, and the others have a session each.
const CLIENTS: usize = 16;
/// After so many calls a client takes a new connection, which leads to another replica.
const CALLS_PER_CONNECTION: usize = 8;
/// Longer than the pause between two words of a replica.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(15);

/// Three replicas of one database, and what is around them.
struct Cluster {
    balancer: Balancer,
    replicas: Vec<Process>,
    idp: Idp,
    store: Store,
    settings: PathBuf,
    log: PathBuf,
    _folder: TempDir,
    _database: TestDatabase,
}

/// Somebody who calls.
struct Client<'c> {
    cluster: &'c Cluster,
    /// By way of the load balancer.
    http: Http,
    has_session: bool,
}

/// What is known of the calls while they are made.
#[derive(Default)]
struct Tally {
    made: watch::Sender<usize>,
    /// How many got no answer, because their connection broke.
    broken: AtomicUsize,
    streams: AtomicUsize,
    /// What was to happen meanwhile has happened.
    over: CancellationToken,
}

impl Cluster {
    async fn start(name: &str) -> Result<Self> {
        let (folder, balancer, idp) = (tempfile::tempdir()?, Balancer::start().await?, Idp::start().await?);
        let (database, log) = output_files(name)?;
        let database = TestDatabase::to_be_looked_at(&database).await;
        let (settings, key) = (folder.path().join("mcp-mux.toml"), folder.path().join("key"));
        fs::write(&key, crypto::Key::generate()?.encode().expose_secret())?;
        let text = format!(
            "public_url = \"http://{address}\"\n[http]\nlisten = \"127.0.0.1:0\"\ndrain_delay_seconds = 2\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[database]\nurl = \"{database}\"\n[keys]\nprimary_file = \"{key}\"\n\
             [egress]\nprivate_networks = [\"127.0.0.0/8\"]\nports = \"any\"\n[telemetry]\nlog_format = \"json\"\n\
             [[issuers]]\nname = \"corp\"\nurl = \"{issuer}\"\n",
            address = balancer.address,
            database = database.url.expose_secret(),
            key = key.display(),
            issuer = idp.url,
        );
        fs::write(&settings, text)?;
        let store = open_store(&Config::load(&settings)?).await?;
        let mut cluster =
            Self { balancer, replicas: Vec::new(), idp, store, settings, log, _folder: folder, _database: database };
        for number in 0..REPLICAS {
            let replica = cluster.serve(number).await?;
            cluster.replicas.push(replica);
        }
        Ok(cluster)
    }

    /// Starts a replica in the place with that number.
    async fn serve(&self, number: usize) -> Result<Process> {
        let replica = Process::start(&self.settings, &self.log).await?;
        self.balancer.put(number, replica.place);
        Ok(replica)
    }

    /// Adds the tenant and its upstream, and waits until each replica has them and its tools.
    async fn install(&self) -> Result<TenantStore> {
        let key = canary("key");
        let (url, _) = RealUpstream::named("acme").serve(&key, false).await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: Some(&key), level: Level::Write };
        install(&self.store, &setup).await?;
        let rows = rows(&self.store, "acme").await?;
        let upstream = rows.find_upstream(&"desk".parse()?).await?.context("it was installed")?;
        let spec = UpstreamSpec { concurrency: 64, call_timeout: Duration::from_secs(20), ..upstream.spec };
        rows.put_upstream(&upstream.slug, &spec).await?;
        let anybody = self.client("anybody")?;
        for place in self.balancer.places() {
            let http = anybody.at(place)?;
            timeout(FOLLOWED_WITHIN, async {
                while http.tools().await?.is_empty() {}
                anyhow::Ok(())
            })
            .await??;
        }
        Ok(rows)
    }

    fn address(&self) -> String {
        format!("http://{}/mcp", self.balancer.address)
    }

    /// Somebody of the modern era.
    fn client(&self, subject: &str) -> Result<Client<'_>> {
        let token = self.idp.sign(&self.idp.claims(subject, &["acme"], &self.address()))?;
        Ok(Client { cluster: self, http: Http::new(&self.address(), Some(&token))?, has_session: false })
    }
}

impl Client<'_> {
    /// The same with a session.
    async fn begin_session(self) -> Result<Self> {
        let session = self.http.begin_session().await?;
        Ok(Self { http: self.http.with("mcp-session-id", &session)?, has_session: true, ..self })
    }

    /// The same at one replica, past the load balancer.
    fn at(&self, place: Place) -> Result<Http> {
        let http = self.http.at(&format!("http://{}/mcp", place.clients));
        http.with("host", &self.cluster.balancer.address.to_string())
    }

    /// Calls, and looks whether the answer is the one to this call.
    async fn call(&self, http: &Http, number: usize) -> Result<()> {
        let params = json!({"name": "acme__whoami", "arguments": {"number": number}});
        let answer = if self.has_session {
            http.legacy("tools/call", &params).await?
        } else {
            http.modern("tools/call", params).await?
        };
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text);
        let expected = format!("whoami at acme with {{\"number\":{number}}}");
        let answer = answer.json()?;
        ensure!(answer["result"]["content"][0]["text"] == expected, "{answer}");
        Ok(())
    }

    /// Calls until there were enough calls and everything has happened. Says how many connections broke under a call.
    async fn work(&self, first: usize, tally: &Tally) -> Result<usize> {
        let parting = self.http.at(&self.cluster.address()).with("connection", "close")?;
        let (mut number, mut broken) = (first, 0);
        while *tally.made.borrow() < CALLS || !tally.over.is_cancelled() {
            for turn in 1..=CALLS_PER_CONNECTION {
                number += CLIENTS;
                let http = if turn < CALLS_PER_CONNECTION { &self.http } else { &parting };
                if let Err(error) = self.call(http, number).await {
                    is_broken(error).with_context(|| format!("call {number}"))?;
                    broken += 1;
                    tally.broken.fetch_add(1, Ordering::SeqCst);
                }
                tally.made.send_modify(|made| *made += 1);
            }
        }
        Ok(broken)
    }

    /// Holds the session's stream open, and comes back whenever it ends.
    async fn hear(&self, tally: &Tally) -> Result<()> {
        let listening = async {
            loop {
                match self.http.listen().await {
                    Ok(mut events) => {
                        tally.streams.fetch_add(1, Ordering::SeqCst);
                        while events.next().await.is_ok() {}
                    }
                    Err(error) => is_broken(error).context("the session's stream")?,
                }
            }
        };
        tokio::select! {
            failed = listening => failed,
            () = tally.over.cancelled() => Ok(()),
        }
    }
}

/// Whether it was the connection that failed, and not what was answered over it.
fn is_broken(error: anyhow::Error) -> Result<()> {
    if error.downcast_ref::<reqwest::Error>().is_some_and(|error| error.status().is_none()) {
        Ok(())
    } else {
        Err(error)
    }
}

/// Kills a replica and stops another one, while all others call. Answers the replica that was killed.
async fn happen(cluster: &Cluster, replicas: Vec<Process>, tally: &Tally) -> Result<(String, Vec<Process>)> {
    let mut made = tally.made.subscribe();
    let mut replicas = replicas.into_iter();
    let (Some(killed), Some(mut stopped), Some(spared)) = (replicas.next(), replicas.next(), replicas.next()) else {
        bail!("there are three replicas");
    };
    made.wait_for(|made| *made >= CALLS / 4).await?;
    let lost = killed.id.clone();
    killed.kill().await?;
    let replacement = cluster.serve(0).await?;
    let so_far = *made.borrow();
    made.wait_for(|made| *made >= so_far.max(CALLS / 2)).await?;

    let broken = tally.broken.load(Ordering::SeqCst);
    ensure!(stopped.terminate().await?.success());
    let another = cluster.serve(1).await?;
    let so_far = *made.borrow();
    made.wait_for(|made| *made >= so_far + CALLS / 8).await?;
    let costs = tally.broken.load(Ordering::SeqCst) - broken;
    ensure!(costs == 0, "a replica that is stopped costs no call: {costs} broke");
    tally.over.cancel();
    Ok((lost, vec![replacement, another, spared]))
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_come_and_go_lose_no_call_and_no_session() -> Result<()> {
    if !is_on_postgres() {
        return Ok(());
    }
    let mut cluster = Cluster::start("replicas").await?;
    let rows = cluster.install().await?;
    let replicas = std::mem::take(&mut cluster.replicas);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let client = cluster.client(&format!("alice-{number}"))?;
        clients.push(if number % 2 == 1 { client.begin_session().await? } else { client });
    }
    let with_session: Vec<_> = clients.iter().filter(|client| client.has_session).collect();
    let tally = Tally::default();
    let working = try_join_all(clients.iter().zip(0..).map(|(client, first)| client.work(first, &tally)));
    let hearing = try_join_all(with_session.iter().map(|client| client.hear(&tally)));
    let (broken, _, (lost, replicas)) = tokio::try_join!(working, hearing, happen(&cluster, replicas, &tally))?;

    // Of whatever ran at the replica that was killed, and nothing else.
    assert!(broken.iter().all(|broken| *broken <= 1), "{broken:?}");
    assert!(*tally.made.borrow() >= CALLS && tally.streams.load(Ordering::SeqCst) > CLIENTS / 2);
    every_session_is_good_everywhere(&cluster, &with_session).await?;
    a_change_is_everywhere(&cluster, &rows, &with_session, &lost).await?;
    drop(replicas);
    Ok(())
}

async fn every_session_is_good_everywhere(cluster: &Cluster, clients: &[&Client<'_>]) -> Result<()> {
    for client in clients {
        for place in cluster.balancer.places() {
            client.call(&client.at(place)?, 0).await?;
        }
    }
    Ok(())
}

/// What is changed is heard in every session, at whichever replica it listens, and all replicas that live say that they know of it.
async fn a_change_is_everywhere(
    cluster: &Cluster,
    rows: &TenantStore,
    clients: &[&Client<'_>],
    lost: &str,
) -> Result<()> {
    let places = cluster.balancer.places();
    let mut streams = Vec::new();
    for (client, place) in clients.iter().zip(places.iter().cycle()) {
        streams.push(client.at(*place)?.listen().await?);
    }
    let grant = rows.grants().await?.pop().context("a grant")?;
    assert!(rows.remove_grant(grant.id).await?);
    let revision = cluster.store.revision().await?;
    for stream in &mut streams {
        assert_eq!(stream.next().await?["method"], "notifications/tools/list_changed");
    }
    let behind = wait_for_replicas(&cluster.store, revision, Duration::from_secs(2)).await?;
    let behind: HashSet<String> = behind.into_iter().map(|replica| replica.beat.id.to_string()).collect();
    assert!(behind.iter().all(|id| id == lost), "{behind:?}, of which {lost} was killed");
    let known = cluster.store.replicas().await?.into_iter().filter(|known| known.beat.id.to_string() != lost);
    assert_eq!(known.count(), REPLICAS, "who is stopped is forgotten");
    Ok(())
}
