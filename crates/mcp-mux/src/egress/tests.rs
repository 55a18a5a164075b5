//! The guard against real sockets on this machine, with names that lead where a test wants them.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::DropGuard;

use super::*;
use crate::config::{Network, Ports};
use crate::lifecycle::Tasks;

/// A name server whose answers follow one another; the last one stays.
struct Names {
    answers: Mutex<VecDeque<Vec<SocketAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn leading_to(answers: &[&[&str]]) -> Arc<Self> {
        let address = |text: &&str| SocketAddr::new(text.parse().unwrap(), 0);
        let answers = answers.iter().map(|answer| answer.iter().map(address).collect()).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Names {
    fn resolve(&self, _: String) -> resolver::Found {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        let answer = answer.unwrap_or_default();
        Box::pin(async move { Ok(answer) })
    }
}

/// What listens on one address and counts who comes.
struct Place {
    port: u16,
    visits: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Place {
    async fn at(address: &str, port: u16) -> Self {
        let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let visits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&visits);
        // A connection that stays open would hide a second look-up.
        let answer = move || async move {
            counted.fetch_add(1, Ordering::SeqCst);
            ([("connection", "close")], "hello")
        };
        let tasks = Tasks::default();
        tasks.spawn(async move { drop(axum::serve(listener, Router::new().route("/", get(answer))).await) });
        Self { port, visits, _stop: tasks.stop_on_drop() }
    }

    fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

fn rules(networks: &[&str], ports: Ports) -> EgressConfig {
    let private_networks = networks.iter().map(|text| text.parse::<Network>().unwrap()).collect();
    EgressConfig { private_networks, ports, ..EgressConfig::default() }
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

async fn visit(client: &Client, url: &Url) -> Result<String, SendError> {
    let mut response = client.request(Method::GET, url)?.send().await?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await {
        text.extend_from_slice(&chunk?);
    }
    Ok(String::from_utf8(text).unwrap())
}

fn refused(result: &Result<String, SendError>) -> Option<Refused> {
    match result {
        Err(SendError::Refused(refused)) => Some(*refused),
        _ => None,
    }
}

#[tokio::test]
async fn what_was_vetted_is_what_is_connected_to() {
    let allowed = Place::at("127.0.0.2", 0).await;
    let inside = Place::at("127.0.0.1", allowed.port).await;
    let names = Names::leading_to(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let rules = rules(&["127.0.0.2/32"], Ports::Any);
    let egress = Egress::with_resolver(&rules, Arc::clone(&names) as Arc<dyn Resolve>).unwrap();
    let rebinding = url(&format!("http://rebind.test:{}/", allowed.port));
    for client in [egress.client([]), egress.upstream(&rebinding, None, None).unwrap()] {
        *names.answers.lock().unwrap() =
            Names::leading_to(&[&["127.0.0.2"], &["127.0.0.1"]]).answers.lock().unwrap().clone();
        let (before, visits) = (names.asked.load(Ordering::SeqCst), allowed.visits());
        assert_eq!(visit(&client, &rebinding).await.unwrap(), "hello");
        assert_eq!(names.asked.load(Ordering::SeqCst), before + 1, "the name is looked up once for a connection");
        assert_eq!(allowed.visits(), visits + 1, "and that answer is where it goes");
        assert_eq!(refused(&visit(&client, &rebinding).await), Some(Refused::Address));
        assert_eq!(names.asked.load(Ordering::SeqCst), before + 2);
    }
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn one_address_inside_spoils_the_whole_answer() {
    let inside = Place::at("127.0.0.1", 0).await;
    for answer in [&["127.0.0.2", "127.0.0.1"][..], &["127.0.0.1", "127.0.0.2"], &["127.0.0.2", "::ffff:127.0.0.1"]] {
        let names = Names::leading_to(&[answer]);
        let egress = Egress::with_resolver(&rules(&["127.0.0.2/32"], Ports::Any), names).unwrap();
        let both = url(&format!("http://both.test:{}/", inside.port));
        assert_eq!(refused(&visit(&egress.client([]), &both).await), Some(Refused::Address), "{answer:?}");
    }
    assert_eq!(inside.visits(), 0);
}

#[tokio::test]
async fn plain_http_goes_to_listed_networks_only_by_name_and_by_address() {
    let names = Names::leading_to(&[&["93.184.215.14"]]);
    let egress = Egress::with_resolver(&rules(&["127.0.0.0/8"], Ports::Any), names).unwrap();
    let client = egress.client([]);
    for plain in ["http://public.test/", "http://93.184.215.14/"] {
        assert_eq!(refused(&visit(&client, &url(plain)).await), Some(Refused::PlainHttp), "{plain}");
    }
    assert_eq!(vet(&egress.rules, &url("https://93.184.215.14/")), Ok(()));
    let here = Place::at("127.0.0.1", 0).await;
    assert_eq!(visit(&client, &url(&format!("http://127.0.0.1:{}/", here.port))).await.unwrap(), "hello");
}

#[tokio::test]
async fn what_the_configuration_names_is_allowed_to_its_own_client_and_no_other_origin_is() {
    let (named, other) = (Place::at("127.0.0.1", 0).await, Place::at("127.0.0.1", 0).await);
    let names = Names::leading_to(&[&["127.0.0.1"]]);
    let egress = Egress::with_resolver(&EgressConfig::default(), names).unwrap();
    for host in ["127.0.0.1", "issuer.test"] {
        let (ours, theirs) =
            (url(&format!("http://{host}:{}/", named.port)), url(&format!("http://{host}:{}/", other.port)));
        let client = egress.client([&ours]);
        assert_eq!(visit(&client, &ours).await.unwrap(), "hello");
        assert_eq!(refused(&visit(&client, &theirs).await), Some(Refused::Port));
        assert_eq!(refused(&visit(&egress.client([]), &ours).await), Some(Refused::Port));
    }
    let any_port = Egress::with_resolver(&rules(&[], Ports::Any), Names::leading_to(&[&["127.0.0.1"]])).unwrap();
    let ours = url(&format!("http://issuer.test:{}/", named.port));
    let client = any_port.client([&ours]);
    assert_eq!(visit(&client, &ours).await.unwrap(), "hello");
    let https = url(&format!("https://issuer.test:{}/", named.port));
    assert_eq!(refused(&visit(&client, &https).await), Some(Refused::Address), "the same name by another scheme");
    assert_eq!(other.visits(), 0);
}

#[tokio::test]
async fn an_upstreams_client_reaches_its_own_origin_at_its_tenants_hosts_only() {
    let here = Place::at("127.0.0.1", 0).await;
    let egress = Egress::new(&EgressConfig::this_machine()).unwrap();
    let own = url(&format!("http://127.0.0.1:{}/", here.port));
    let hosts = |host: &str| Some(EgressHosts::try_from(vec![host.parse().unwrap()]).unwrap());
    for (allowed, expected) in
        [(None, None), (hosts("127.0.0.1"), None), (hosts("*.acme.example"), Some(Refused::Host))]
    {
        let client = egress.upstream(&own, allowed, None).unwrap();
        assert_eq!(refused(&visit(&client, &own).await), expected);
        for other in ["http://127.0.0.1:9/", "https://127.0.0.1/", "http://localhost/"] {
            assert_eq!(refused(&visit(&client, &url(other)).await), Some(Refused::Origin), "{other}");
        }
    }
    assert_eq!(here.visits(), 2);
}

#[test]
fn an_address_is_vetted_by_its_parts() {
    let rules = rules(&["10.20.0.0/16"], Ports::Only(vec![443, 8080]));
    for (address, expected) in [
        ("https://mcp.acme.example/mcp?key=1", Ok(())),
        ("https://mcp.acme.example:8080/", Ok(())),
        ("https://10.20.0.1/", Ok(())),
        ("http://10.20.0.1:8080/", Ok(())),
        ("https://[::ffff:10.20.0.1]/", Ok(())),
        ("https://[2606:4700::1]/", Ok(())),
        ("https://mcp.acme.example:8443/", Err(Refused::Port)),
        ("http://mcp.acme.example/", Err(Refused::Port)),
        ("https://10.21.0.1/", Err(Refused::Address)),
        ("http://10.21.0.1:8080/", Err(Refused::Address)),
        ("https://anna@mcp.acme.example/", Err(Refused::UserInfo)),
        ("https://:CANARY-pw@mcp.acme.example/", Err(Refused::UserInfo)),
        ("ftp://mcp.acme.example/", Err(Refused::Scheme)),
        ("file:///etc/passwd", Err(Refused::Scheme)),
        ("data:text/plain,x", Err(Refused::Scheme)),
        ("unix:/run/mcp.sock", Err(Refused::Scheme)),
    ] {
        assert_eq!(vet(&rules, &url(address)), expected, "{address}");
    }
}

#[tokio::test]
async fn an_error_says_nothing_of_the_address() {
    let egress = Egress::new(&EgressConfig::this_machine()).unwrap();
    for address in ["http://127.0.0.1:1/CANARY-path?key=CANARY-key", "https://10.0.0.1/CANARY-path?key=CANARY-key"] {
        let error = visit(&egress.client([]), &url(address)).await.unwrap_err();
        let chain = anyhow::Error::from(error);
        let said = format!("{chain:?} {chain:#}");
        assert!(!said.contains("CANARY") && !said.contains("10.0.0.1") && !said.contains("127.0.0.1"), "{said}");
    }
}
