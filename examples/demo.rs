//! Two tenants behind one endpoint, seen by four people, with real servers and a real client in both eras of the protocol.
//!
//! `cargo run --example demo` starts everything on free ports, lists and calls as each person, shows that nobody gets further than
//! their grants, and succeeds only if all of that held.

use anyhow::{Context as _, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use mcp_mux::config::TelemetryConfig;
use mcp_mux::dev::{Dev, DevSettings, PEOPLE, Person};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

type Client = RunningService<RoleClient, ()>;

const ACME: &[&str] =
    &["acme__search_tickets", "acme__get_ticket", "acme__create_ticket", "acme__search_pages", "acme__get_page"];
const GLOBEX: &[&str] = &["globex__list_orders", "globex__get_order", "globex__cancel_order"];
/// Everybody in the group `shared` reads the rates; only its editors write them.
const RATES: &[&str] = &["shared__exchange_rate", "shared__convert"];
const RATES_EDITOR: &[&str] = &["shared__set_rate"];

/// One person, exactly what they should see, and a tool with an id that should work for those who see anything.
type Expected = (&'static str, &'static [&'static [&'static str]], Option<(&'static str, &'static str)>);

const EXPECTED: [Expected; 4] = [
    ("alice", &[ACME, RATES], Some(("acme__get_ticket", "ACME-1"))),
    ("bob", &[GLOBEX, RATES], Some(("globex__get_order", "GLX-100"))),
    ("carol", &[ACME, GLOBEX, RATES, RATES_EDITOR], Some(("globex__get_order", "GLX-101"))),
    ("dave", &[], None),
];

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let telemetry = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
    let settings = DevSettings { port: 0, folder: folder.path().to_owned(), telemetry };
    let dev = Dev::start(&settings).await?;
    say(&format!("mcp-mux serves {} in front of four upstreams of three tenants\n", dev.endpoint()));

    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["who", "era", "sees", "calls", "and reads"]);
    for (era, lifecycle) in [("modern", modern()), ("legacy", ClientLifecycleMode::Initialize)] {
        for (person, expected) in PEOPLE.iter().zip(EXPECTED) {
            let client = connect(&dev, person, lifecycle.clone()).await?;
            table.add_row(visit(&client, person, era, expected).await?);
            client.cancel().await?;
        }
    }
    say(&table.to_string());

    let alice = connect(&dev, PEOPLE.first().context("alice is there")?, modern()).await?;
    let forbidden = alice.call_tool(call("globex__get_order", "GLX-100")).await;
    let unknown = alice.call_tool(call("nobody__get_order", "GLX-100")).await;
    let (forbidden, unknown) = (forbidden.err().context("alice reached globex")?, unknown.err().context("it exists")?);
    ensure!(forbidden.to_string() == unknown.to_string(), "forbidden and unknown look different to alice");
    say(&format!("alice calls globex__get_order: {forbidden}, as for a tool that does not exist"));
    alice.cancel().await?;
    ensure!(dev.stop().await, "something did not stop");
    say("all of it held");
    Ok(())
}

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

async fn connect(dev: &Dev, person: &Person, lifecycle: ClientLifecycleMode) -> Result<Client> {
    let token = dev.token_for(person)?;
    let config = StreamableHttpClientTransportConfig::with_uri(dev.endpoint()).auth_header(token.expose_secret());
    let transport = StreamableHttpClientTransport::from_config(config);
    ().serve_with_lifecycle(transport, lifecycle).await.with_context(|| format!("connecting as {}", person.name))
}

/// Lists and calls as one person, and compares with what is expected.
async fn visit(client: &Client, person: &Person, era: &str, (name, sees, works): Expected) -> Result<[String; 5]> {
    ensure!(person.name == name, "the people and what is expected of them are out of step");
    let tools = client.list_all_tools().await?;
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    ensure!(names == sees.concat(), "{} sees {names:?} and should see {:?}", person.name, sees.concat());
    let (called, read) = match works {
        None => ("nothing".to_owned(), String::new()),
        Some((tool, id)) => {
            let result = client.call_tool(call(tool, id)).await?;
            let value = result.structured_content.context("the upstream answers with structured content")?;
            ensure!(value.get("id").and_then(Value::as_str) == Some(id), "{tool} answered {value}");
            (tool.to_owned(), summary(&value))
        }
    };
    let seen = if names.is_empty() { "nothing".to_owned() } else { names.join("\n") };
    Ok([person.full_name.to_owned(), era.to_owned(), seen, called, read])
}

fn call(tool: &str, id: &str) -> CallToolRequestParams {
    let arguments: Map<String, Value> = json!({ "id": id }).as_object().cloned().unwrap_or_default();
    CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments)
}

fn summary(value: &Value) -> String {
    let texts = value.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str());
    texts.collect::<Vec<_>>().join(", ")
}

#[expect(clippy::print_stdout, reason = "an example speaks to whoever runs it")]
fn say(text: &str) {
    println!("{text}");
}
