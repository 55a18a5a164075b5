//! What passes between each version of a client and each kind of upstream. The table that comes out stands in `docs/protocol.md`, and
//! a table there that says something else fails the test; `UPDATE_DOCS=1` writes it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tenant_store::Level;

use crate::support::client::Http;
use crate::support::conformance::ConformanceServer;
use crate::support::server::{Setup, TestServer};
use crate::support::watched::{Watched, structured};

const VERSIONS: [&str; 4] = ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];
const MODERN: &str = "2026-07-28";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The upstreams: what they are called in the table, whether they speak the modern era, whether they keep sessions.
const UPSTREAMS: [(&str, bool, bool); 3] =
    [("earlier, stateless", false, false), ("earlier, with sessions", false, true), (MODERN, true, false)];

/// A feature, and how it is found out whether it passes.
const FEATURES: [(&str, Probe); 25] = [
    ("tools", Probe::Says("test_simple_text", "This is a simple text response for testing.")),
    ("images and other content", Probe::Says("test_multiple_content_types", "image/png")),
    ("errors of tools", Probe::Says("test_error_handling", "\"isError\":true")),
    ("structured output", Probe::Structured),
    ("icons, annotations, schemas and `_meta` of definitions", Probe::Defines),
    ("pages, from upstreams and to clients", Probe::Pages),
    ("trace context", Probe::Traces),
    ("cancelling by hanging up", Probe::Cancels),
    ("prompts", Probe::Asks("prompts/get", "test_simple_prompt")),
    ("resources", Probe::Asks("resources/read", "test://static-text")),
    ("templates of resources", Probe::Asks("resources/read", "test://template/123/data")),
    ("completion", Probe::Completes),
    ("progress", Probe::Hears("test_tool_with_progress", "notifications/progress")),
    ("log messages", Probe::Hears("test_tool_with_logging", "notifications/message")),
    ("changed lists, at once", Probe::Tells(Change::List)),
    ("subscriptions to resources", Probe::Tells(Change::Resource)),
    ("elicitation, form", Probe::Answers("test_elicitation")),
    ("elicitation, URL", Probe::Answers("opens_page")),
    ("sampling", Probe::Answers("test_sampling")),
    ("roots", Probe::Answers("test_input_required_result_list_roots")),
    ("several rounds of questions", Probe::Answers("test_input_required_result_multi_round")),
    ("tasks", Probe::Tasks),
    ("apps: the pages of tools", Probe::Apps),
    ("skills", Probe::Skills),
    ("what is not there, told in the words of the client's version", Probe::Misses),
];

enum Probe {
    /// The tool's answer has this text in it.
    Says(&'static str, &'static str),
    /// A request for something of that name or URI has a result.
    Asks(&'static str, &'static str),
    Completes,
    /// While the tool runs, notifications of this method come.
    Hears(&'static str, &'static str),
    /// The tool asks, is answered, and says something then.
    Answers(&'static str),
    /// A result with data.
    Structured,
    /// A definition comes as it is, but for its name.
    Defines,
    /// A list of several pages is whole.
    Pages,
    /// The upstream sees whose trace it is a part of.
    Traces,
    /// The upstream hears that nobody waits any more.
    Cancels,
    /// A listener hears of a change that the upstream tells of.
    Tells(Change),
    /// A call is answered with a task, which says something in the end.
    Tasks,
    /// A tool's definition names a page, which can be read.
    Apps,
    /// Skills are listed and described, and their files read.
    Skills,
    /// A resource that nobody has.
    Misses,
}

/// What changes.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    List,
    Resource,
}

/// What is asked: a server, at two upstreams of the same kind, of which one changes.
struct Bed {
    server: TestServer,
    watched: Watched,
}

/// How long a change that nobody tells of is waited for.
const UNTOLD: Duration = Duration::from_secs(4);

/// A client of one version.
struct Client {
    http: Http,
    is_modern: bool,
}

fn can() -> Value {
    let extensions = json!({"io.modelcontextprotocol/tasks": {}});
    json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}, "extensions": extensions})
}

impl Client {
    async fn start(server: &TestServer, (tenant, version): (&str, &str)) -> Result<Self> {
        let http = server.client_at(&format!("/t/{tenant}/mcp"), "alice", &[tenant])?;
        if version == MODERN {
            return Ok(Self { http, is_modern: true });
        }
        let hello =
            json!({"protocolVersion": version, "capabilities": can(), "clientInfo": {"name": "t", "version": "1"}});
        let answer = http.legacy("initialize", &hello).await?;
        ensure!(answer.json()?["result"]["protocolVersion"] == version, "{}", answer.text);
        let session = answer.headers.get("mcp-session-id").context("a session")?.to_str()?.to_owned();
        let version = VERSIONS.into_iter().find(|known| *known == version).context("a version")?;
        Ok(Self {
            http: http.with("mcp-session-id", &session)?.with("mcp-protocol-version", version)?,
            is_modern: false,
        })
    }

    /// Everything that comes to a request, as text, and its answer.
    async fn ask(&self, method: &str, mut params: Value) -> Result<(String, Value)> {
        if self.is_modern {
            return self.ask_modern(method, params).await;
        }
        params["_meta"] = json!({"progressToken": "p", "traceparent": TRACE});
        let mut events = match self.http.legacy_answer(9, method, &params).await? {
            Ok(events) => events,
            Err(answer) => return Ok((answer.to_string(), answer)),
        };
        let mut all = String::new();
        loop {
            let message = events.next().await?;
            all += &message.to_string();
            if message.get("method").is_none() {
                return Ok((all, message));
            }
            if message.get("id").is_some() {
                let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": reply(&message)?});
                let taken = self.http.post(answer.to_string()).await?;
                ensure!(taken.status == 202, "{}", taken.text);
            }
        }
    }

    /// The same in requests that follow one another.
    async fn ask_modern(&self, method: &str, mut params: Value) -> Result<(String, Value)> {
        let mut all = String::new();
        for _ in 0..8 {
            params["_meta"] = json!({
                "progressToken": "p", "traceparent": TRACE, "io.modelcontextprotocol/logLevel": "info",
            });
            let answer = self.http.modern_that_can(&can(), method, params.clone()).await?;
            all += &answer.text;
            let message = answer.json()?;
            if message["result"]["resultType"] != "input_required" {
                return Ok((all, message));
            }
            let questions = message["result"]["inputRequests"].as_object().context("questions")?;
            let answers = questions.iter().map(|(key, question)| Ok((key.clone(), reply(question)?)));
            params["inputResponses"] = Value::Object(answers.collect::<Result<_>>()?);
            params["requestState"] = message["result"]["requestState"].clone();
        }
        bail!("it asks for ever: {all}")
    }
}

/// What is asked for in one list after the other.
impl Client {
    /// Whether a tool's answer comes as a task.
    async fn awaits_task(&self) -> Result<bool> {
        let begun = self.ask("tools/call", json!({"name": "slow_compute", "arguments": {"seconds": 0}})).await?.1;
        if begun["result"]["resultType"] != "task" {
            return Ok(false);
        }
        let ends = async {
            loop {
                let state =
                    self.ask("tasks/get", json!({"taskId": begun["result"]["taskId"]})).await?.1["result"].clone();
                if state["status"] != "working" {
                    return Ok(state["result"]["content"][0]["text"].is_string());
                }
            }
        };
        tokio::time::timeout(UNTOLD, ends).await?
    }

    /// Whether a tool's page is named and can be read.
    async fn reads_page(&self) -> Result<bool> {
        let tools = self.all("tools/list", "tools").await?;
        let Some(page) = tools.iter().find_map(|tool| tool["_meta"]["ui"]["resourceUri"].as_str()) else {
            return Ok(false);
        };
        Ok(self.ask("resources/read", json!({"uri": page})).await?.0.contains("<html>"))
    }

    /// Whether skills are listed and described, and their files read.
    async fn reads_skill(&self) -> Result<bool> {
        let listed = self.ask("skills/list", json!({})).await?.1["result"]["skills"][0].clone();
        let described = self.ask("skills/get", json!({"uri": listed["uri"]})).await?.1["result"]["skill"].clone();
        if listed.is_null() || listed != described {
            return Ok(false);
        }
        for file in described["resources"].as_array().context("files")? {
            let read = self.ask("resources/read", json!({"uri": file["uri"]})).await?.1;
            let text = read["result"]["contents"][0]["text"].as_str().unwrap_or_default();
            ensure!(json!(text.len()) == file["size"], "{read}");
        }
        Ok(true)
    }

    /// All items of a list, page by page. There must be several.
    async fn all(&self, method: &str, member: &str) -> Result<Vec<Value>> {
        let (mut all, mut params, mut pages) = (Vec::new(), json!({}), 0);
        loop {
            let answer = self.ask(method, params.clone()).await?.1;
            all.extend(answer["result"][member].as_array().with_context(|| answer.to_string())?.iter().cloned());
            pages += 1;
            match &answer["result"]["nextCursor"] {
                Value::Null => break,
                cursor => params["cursor"] = cursor.clone(),
            }
        }
        ensure!(pages > 1, "{method} has one page only");
        Ok(all)
    }
}

/// What a good client answers.
fn reply(question: &Value) -> Result<Value> {
    let word = |name: &String| (name.clone(), json!("blue"));
    Ok(match question["method"].as_str() {
        Some("elicitation/create") if question["params"]["mode"] == "url" => json!({"action": "accept"}),
        Some("elicitation/create") => {
            let properties = question["params"]["requestedSchema"]["properties"].as_object().context("a form")?;
            json!({"action": "accept", "content": properties.keys().map(word).collect::<serde_json::Map<_, _>>()})
        }
        Some("sampling/createMessage") => {
            json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "blue"}})
        }
        Some("roots/list") => json!({"roots": [{"uri": "file:///blue"}]}),
        other => bail!("a question of no known kind: {other:?}"),
    })
}

impl Probe {
    /// What is said in the table.
    async fn outcome(&self, bed: &Bed, version: &str, client: &Client) -> Result<String> {
        let call = |name: &str| json!({"name": name, "arguments": {"message": "Who?", "prompt": "Say!"}});
        let passes = match self {
            Self::Says(tool, text) => client.ask("tools/call", call(tool)).await?.0.contains(text),
            Self::Asks(method, name) => {
                let key = if *method == "resources/read" { "uri" } else { "name" };
                client.ask(method, json!({key: name})).await?.1["result"].is_object()
            }
            Self::Completes => {
                let prompt = json!({"type": "ref/prompt", "name": "test_prompt_with_arguments"});
                let params = json!({"ref": prompt, "argument": {"name": "arg1", "value": "par"}});
                client.ask("completion/complete", params).await?.0.contains("paris")
            }
            Self::Hears(tool, method) => client.ask("tools/call", call(tool)).await?.0.contains(method),
            Self::Answers(tool) => {
                let answer = client.ask("tools/call", call(tool)).await?.1;
                let said = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
                said.contains("blue") || said.contains(r#""action":"accept""#)
            }
            Self::Tells(change) => bed.tells(version, *change).await?,
            Self::Structured => {
                bed.changing(version).await?.ask("tools/call", call("structured")).await?.1["result"]["structuredContent"]
                    == json!({"answer": 42})
            }
            Self::Defines => bed.changing(version).await?.all("tools/list", "tools").await?.contains(&structured()),
            Self::Pages => {
                let (client, pages) = (bed.changing(version).await?, |uri: &str| json!(uri));
                let all = client.all("resources/list", "resources").await?;
                all.iter().map(|item| item["uri"].clone()).eq(["note://one", "note://two"].map(pages))
            }
            Self::Traces => bed.changing(version).await?.ask("tools/call", call("trace")).await?.0.contains(TRACE),
            Self::Cancels => bed.cancels(version).await?,
            Self::Tasks => client.awaits_task().await?,
            Self::Apps => bed.changing(version).await?.reads_page().await?,
            Self::Skills => client.reads_skill().await?,
            Self::Misses => {
                let code = if client.is_modern { -32602 } else { -32002 };
                client.ask("resources/read", json!({"uri": "test://nothing"})).await?.1["error"]["code"] == code
            }
        };
        Ok(if passes { "yes" } else { "no" }.to_owned())
    }
}

impl Bed {
    /// A client of the upstream that changes.
    async fn changing(&self, version: &str) -> Result<Client> {
        Client::start(&self.server, ("globex", version)).await
    }

    /// Whether an upstream hears that a client is gone.
    async fn cancels(&self, version: &str) -> Result<bool> {
        let (client, before) = (self.changing(version).await?, self.watched.cancelled());
        let calling = client.ask("tools/call", json!({"name": "wait"}));
        tokio::select! {
            answer = calling => bail!("it never answers: {:?}", answer?),
            () = self.watched.until_waiting(before + 1) => {}
        }
        let heard = tokio::time::timeout(UNTOLD, self.watched.until_cancelled(before + 1)).await;
        Ok(heard.is_ok())
    }

    /// Whether a client of that version is told of a change.
    async fn tells(&self, version: &str, change: Change) -> Result<bool> {
        let client = self.changing(version).await?;
        let (filter, subscription) = match change {
            Change::List => (json!({"toolsListChanged": true}), None),
            Change::Resource => (json!({"resourceSubscriptions": ["note://one"]}), Some(json!({"uri": "note://one"}))),
        };
        let mut heard = if client.is_modern {
            let mut heard = client.http.stream("subscriptions/listen", json!({"notifications": filter})).await?;
            if heard.next().await?["params"]["notifications"] == json!({}) {
                return Ok(false);
            }
            heard
        } else {
            if let Some(about) = &subscription
                && client.http.legacy("resources/subscribe", about).await?.code()?.is_some()
            {
                return Ok(false);
            }
            client.http.listen().await?
        };
        let method = if change == Change::List {
            self.watched.add_tool().await?;
            "notifications/tools/list_changed"
        } else {
            self.watched.until_heard(1).await;
            self.watched.touch("note://one").await?;
            "notifications/resources/updated"
        };
        let told = tokio::time::timeout(UNTOLD, heard.next()).await;
        drop(heard);
        self.watched.until_heard(0).await;
        Ok(told.is_ok_and(|told| told.is_ok_and(|told| told["method"] == method)))
    }
}

/// One cell: what all versions have in common, or which of them have it.
fn cell(outcomes: &[String]) -> String {
    let having: Vec<&str> =
        VERSIONS.into_iter().zip(outcomes).filter(|(_, said)| *said == "yes").map(|(version, _)| version).collect();
    match having.len() {
        0 => "no".to_owned(),
        all if all == VERSIONS.len() => "yes".to_owned(),
        _ => having.join(", "),
    }
}

/// A server with lists of one item on each page.
async fn start(setups: &[Setup<'_>]) -> Result<TestServer> {
    let settings = |config: &mut mcp_mux::config::Config| {
        config.catalog.page_items = 1;
        Ok(())
    };
    TestServer::start_with("matrix", setups, settings).await
}

async fn table() -> Result<String> {
    let mut columns = Vec::new();
    for (_, is_modern, sessions) in UPSTREAMS {
        let upstream = ConformanceServer::speaking(|version| (version == MODERN) == is_modern);
        let url = upstream.serve_with(sessions).await?;
        let setup = Setup { tenant: "acme", upstream: "desk", url: &url, key: None, level: Level::Admin };
        let watched = Watched::speaking(|version| (version == MODERN) == is_modern);
        let (url, seen) = watched.serve_with(sessions).await?;
        let changing = Setup { tenant: "globex", upstream: "desk", url: &url, key: None, level: Level::Admin };
        let bed = Bed { server: start(&[setup, changing]).await?, watched };
        if is_modern || sessions {
            // It is listed once more when it begins to be listened to.
            seen.times("\"tools/list\"", 2).await;
        }
        let mut outcomes = vec![Vec::new(); FEATURES.len()];
        for version in VERSIONS {
            let client = Client::start(&bed.server, ("acme", version)).await?;
            for ((name, probe), outcomes) in FEATURES.iter().zip(&mut outcomes) {
                outcomes.push(
                    probe.outcome(&bed, version, &client).await.with_context(|| format!("{name} for {version}"))?,
                );
            }
        }
        columns.push(outcomes);
    }
    let names: Vec<&str> = UPSTREAMS.iter().map(|(name, ..)| *name).collect();
    let mut table = format!("| feature | {} |\n| --- | --- | --- | --- |\n", names.join(" | "));
    for (row, (name, _)) in FEATURES.iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| cell(&column[row])).collect();
        writeln!(table, "| {name} | {} |", cells.join(" | "))?;
    }
    Ok(table)
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test is told by whoever runs it to write")]
async fn what_passes_is_what_the_documentation_says() -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let text = fs::read_to_string(&file)?;
    let (begin, end) = ("<!-- written by the tests: begin -->\n", "<!-- written by the tests: end -->");
    let (head, rest) = text.split_once(begin).context("where the table begins")?;
    let (said, tail) = rest.split_once(end).context("where the table ends")?;
    let table = table().await?;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, format!("{head}{begin}{table}{end}{tail}"))?;
    } else {
        ensure!(said == table, "docs/protocol.md is stale: run this test with UPDATE_DOCS=1. It should say\n{table}");
    }
    Ok(())
}
