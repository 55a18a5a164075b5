//! Tools that take their time: for clients that know tasks (SEP-2663), they become tasks.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, InputRequest};
use rmcp::task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions};
use serde_json::{Value, json};

/// Names, and what each is for. The first one never becomes a task.
pub(super) const TOOLS: [(&str, &str); 7] = [
    ("greet", "Greets"),
    ("slow_compute", "Thinks for as many seconds as it is told"),
    ("failing_job", "Fails, and only as a task"),
    ("protocol_error_job", "Breaks"),
    ("confirm_delete", "Asks before it deletes"),
    ("multi_input", "Asks two things at once"),
    ("test_tool_with_task", "Asks for a name, then takes its time"),
];

/// One such tool, as it was called.
#[derive(Debug, Clone)]
pub(super) struct Job {
    name: String,
    arguments: Value,
    /// What the client answered before.
    given: Value,
}

/// A question for a form with a few members.
fn ask(message: &str) -> Result<InputRequest, ErrorData> {
    let properties = json!({"name": {"type": "string"}, "confirm": {"type": "boolean"}});
    let schema = json!({"type": "object", "properties": properties});
    let params = json!({"mode": "form", "message": message, "requestedSchema": schema});
    super::as_type(json!({"method": "elicitation/create", "params": params}))
}

fn says(text: &str) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

impl Job {
    /// The tool of this name, if it is one.
    pub(super) fn of(name: &str, arguments: Value, given: Value) -> Option<Self> {
        TOOLS.iter().any(|(known, _)| *known == name).then(|| Self { name: name.to_owned(), arguments, given })
    }

    /// Whether it becomes a task for those who know them.
    pub(super) fn takes_time(&self) -> bool {
        self.name != "greet"
    }

    /// Whether it cannot be anything but a task.
    pub(super) fn needs_task(&self) -> bool {
        self.name == "failing_job"
    }

    /// Does it as a task.
    pub(super) fn begin(self, manager: &TaskManager) -> rmcp::model::Task {
        let options = TaskOptions::new().with_poll_interval_ms(100);
        manager.spawn(options, |context| Box::pin(async move { self.run(&context).await }))
    }

    /// Does it at once.
    pub(super) async fn run_now(&self) -> Result<CallToolResult, ErrorData> {
        match self.name.as_str() {
            "slow_compute" => self.compute().await,
            "protocol_error_job" => return Err(ErrorData::internal_error("it broke", None)),
            _ => {}
        }
        Ok(self.closing())
    }

    async fn run(&self, context: &TaskContext) -> Result<CallToolResult, TaskExit> {
        match self.name.as_str() {
            "slow_compute" => tokio::select! {
                () = context.cancelled() => return Err(TaskExit::Cancelled),
                () = self.compute() => {}
            },
            "failing_job" => return Ok(CallToolResult::error(vec![ContentBlock::text("it failed")])),
            "protocol_error_job" => return Err(ErrorData::internal_error("it broke", None).into()),
            "confirm_delete" => {
                let sure = context.request_input("sure", ask("Are you sure?")?).await?;
                return Ok(says(&format!("sure: {sure}")));
            }
            "multi_input" => {
                let (first, second) = tokio::join!(
                    context.request_input("first", ask("Who?")?),
                    context.request_input("second", ask("And who else?")?),
                );
                return Ok(says(&format!("{} and {}", first?, second?)));
            }
            _ => {}
        }
        Ok(self.closing())
    }

    /// Takes the time that it was told to take.
    async fn compute(&self) {
        let time = Duration::from_secs(self.arguments["seconds"].as_u64().unwrap_or_default());
        tokio::time::timeout(time, std::future::pending::<()>()).await.ok();
    }

    fn closing(&self) -> CallToolResult {
        match self.name.as_str() {
            "greet" => says(&format!("Hello, {}!", self.arguments["name"].as_str().unwrap_or_default())),
            _ => says(&format!("{} done: {}", self.name, self.given)),
        }
    }
}
