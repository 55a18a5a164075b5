//! An MCP server of both eras with everything that the official conformance suite looks for. What it is asked for by name stands
//! in [`fixtures`], what asks back in [`dialogue`], what becomes a task in [`jobs`], the skills
//! in [`skills`].

mod dialogue;
mod fixtures;
mod jobs;
mod skills;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ClientCapabilities,
    CompleteRequestParams, CompleteResult, CompletionInfo, ContentBlock, CreateTaskResult, ErrorCode,
    GetPromptRequestParams, GetPromptResponse, GetPromptResult, GetSkillRequestParams, GetSkillResult, GetTaskParams,
    GetTaskResult, InputResponses, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    ListSkillsResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, SubscribeRequestParams,
    SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::task_manager::TaskManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use dialogue::{Dialogue, Turn};
use jobs::Job;

/// Changes that a listener may be late by.
const CHANGES_MAX: usize = 16;
/// What the scenario `tools-call-with-logging` has a server wait for between its messages: they take another connection than the answer,
/// which nothing makes arrive after them.
const LOG_EVERY: Duration = Duration::from_millis(50);

/// The server.
#[derive(Clone)]
pub(crate) struct ConformanceServer {
    versions: Vec<ProtocolVersion>,
    /// In every state that it gives out.
    secret: String,
    changes: broadcast::Sender<Change>,
    /// How often a list changed: its last definition says so.
    changed: Arc<AtomicUsize>,
    tasks: TaskManager,
}

/// What has changed in this server's lists.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Tools,
    Prompts,
}

fn as_type<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

impl ConformanceServer {
    /// One that speaks the versions for which `speaks` is true.
    pub(crate) fn speaking(speaks: impl Fn(&str) -> bool) -> Self {
        let mut versions = ProtocolVersion::KNOWN_VERSIONS.to_vec();
        versions.retain(|version| speaks(version.as_str()));
        let (secret, changes) = (uuid::Uuid::new_v4().to_string(), broadcast::channel(CHANGES_MAX).0);
        Self { versions, secret, changes, changed: Arc::default(), tasks: TaskManager::new() }
    }

    /// Serves it on a free port, with sessions for clients of the legacy era.
    pub(crate) async fn serve(self) -> Result<String> {
        self.serve_with(true).await
    }

    /// Serves it on a free port, with or without them.
    pub(crate) async fn serve_with(self, sessions: bool) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/mcp", listener.local_addr()?);
        let config = StreamableHttpServerConfig::default().with_legacy_session_mode(sessions);
        let service =
            StreamableHttpService::new(move || Ok(self.clone()), Arc::new(LocalSessionManager::default()), config);
        super::server::serve(listener, axum::Router::new().route_service("/mcp", service));
        Ok(url)
    }

    /// Asks what the dialogue asks, in the way of the client's era.
    async fn converse(
        &self,
        dialogue: &Dialogue,
        state: Option<&str>,
        responses: Option<&InputResponses>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Turn, ErrorData> {
        if is_modern(context) {
            return dialogue.turn(&self.secret, state, responses);
        }
        let mut answers = serde_json::Map::new();
        for (key, question) in dialogue.questions() {
            let answer = context.peer.send_request(as_type(question.clone())?).await;
            let answer = answer.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
            answers.insert(key.clone(), json!(answer));
        }
        Ok(Turn::Answered(Value::Object(answers)))
    }

    /// Does a job, as a task where the client knows what that is.
    async fn job(&self, job: Job, context: &RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let knows_tasks = context.client_capabilities().is_some_and(|can| can.supports_tasks());
        if !knows_tasks && job.needs_task() {
            let needed = ClientCapabilities::builder().enable_tasks().build();
            return Err(ErrorData::missing_required_client_capability(needed));
        }
        if knows_tasks && job.takes_time() {
            return Ok(CallToolResponse::Task(CreateTaskResult::new(job.begin(&self.tasks))));
        }
        Ok(job.run_now().await?.into())
    }

    fn change(&self, change: Change) {
        self.changed.fetch_add(1, Ordering::SeqCst);
        // Where nobody listens, there is nothing to say.
        drop(self.changes.send(change));
    }

    /// The last of these definitions says how often a list changed.
    fn counted(&self, mut definitions: Value) -> Value {
        let last = definitions.as_array_mut().and_then(|definitions| definitions.last_mut());
        if let Some(last) = last {
            last["description"] = json!(format!("After {} changes", self.changed.load(Ordering::SeqCst)));
        }
        definitions
    }

    /// What a tool does before it says something.
    async fn act(&self, name: &str, context: &RequestContext<RoleServer>) -> Result<(), ErrorData> {
        match name {
            "test_tool_with_logging" | "test_logging_tool" => {
                if is_modern(context) && context.meta.log_level().is_none() {
                    return Ok(());
                }
                let mut pace = tokio::time::interval(LOG_EVERY);
                for text in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                    pace.tick().await;
                    notify(context, "notifications/message", json!({"level": "info", "data": text})).await?;
                }
                pace.tick().await;
            }
            "test_tool_with_progress" => {
                let Some(token) = context.meta.get_progress_token() else { return Ok(()) };
                for progress in [0, 50, 100] {
                    let params = json!({"progressToken": token, "progress": progress, "total": 100});
                    notify(context, "notifications/progress", params).await?;
                }
            }
            "test_missing_capability" if !capabilities(context)["sampling"].is_object() => {
                let needed: ClientCapabilities = as_type(json!({"sampling": {}}))?;
                return Err(ErrorData::missing_required_client_capability(needed));
            }
            "test_trigger_tool_change" => self.change(Change::Tools),
            "test_trigger_prompt_change" => self.change(Change::Prompts),
            _ => {}
        }
        Ok(())
    }
}

fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

fn capabilities(context: &RequestContext<RoleServer>) -> Value {
    json!(context.client_capabilities())
}

async fn notify(context: &RequestContext<RoleServer>, method: &str, params: Value) -> Result<(), ErrorData> {
    let notification = as_type(json!({"method": method, "params": params}))?;
    let sent = context.peer.send_notification(notification).await;
    sent.map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// The messages of a prompt with these contents.
fn prompt(contents: &Value) -> Result<GetPromptResponse, ErrorData> {
    let message = |content: &Value| json!({"role": "user", "content": content});
    let messages: Vec<Value> = contents.as_array().into_iter().flatten().map(message).collect();
    Ok(GetPromptResult::new(as_type(Value::Array(messages))?).into())
}

impl ServerHandler for ConformanceServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = json!({
            "tools": {"listChanged": true}, "prompts": {"listChanged": true}, "resources": {"subscribe": true},
            "completions": {}, "logging": {}, "extensions": {"io.modelcontextprotocol/tasks": {}, "io.modelcontextprotocol/skills": {}},
        });
        let capabilities: ServerCapabilities = as_type(capabilities).unwrap_or_default();
        ServerConfig::new(capabilities)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.versions.clone().into()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(as_type(self.counted(fixtures::tools()))?))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let tools: Vec<Tool> = as_type(fixtures::tools()).ok()?;
        tools.into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let can = capabilities(&context);
        let (state, responses) = (request.request_state.as_deref(), request.input_responses.as_ref());
        let text = |text: String| vec![ContentBlock::text(text)];
        let said = match Dialogue::of(&request.name, &json!(request.arguments), &can) {
            Some(dialogue) if !dialogue.is_for(&can) => {
                CallToolResult::error(text("the client cannot answer".to_owned()))
            }
            Some(dialogue) => match self.converse(&dialogue, state, responses, &context).await? {
                Turn::Ask(required) => return Ok(required.into()),
                Turn::Answered(given) => match Job::of(&request.name, json!(request.arguments), given.clone()) {
                    Some(job) => return self.job(job, &context).await,
                    None => CallToolResult::success(text(dialogue.closing(&given))),
                },
            },
            None if let Some(job) = Job::of(&request.name, json!(request.arguments), Value::Null) => {
                return self.job(job, &context).await;
            }
            None => {
                self.act(&request.name, &context).await?;
                let unknown = || ErrorData::invalid_params(format!("unknown tool: {}", request.name), None);
                let contents = as_type(fixtures::said_by_tool(&request.name).ok_or_else(unknown)?)?;
                let fails = request.name == "test_error_handling";
                if fails { CallToolResult::error(contents) } else { CallToolResult::success(contents) }
            }
        };
        Ok(said.into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(as_type(self.counted(fixtures::prompts()))?))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let (arguments, can) = (json!(request.arguments), capabilities(&context));
        if let Some(contents) = fixtures::said_by_prompt(&request.name, &arguments) {
            return prompt(&contents);
        }
        let dialogue = Dialogue::of(&request.name, &arguments, &can).filter(|_| request.name.ends_with("_prompt"));
        let Some(dialogue) = dialogue else {
            return Err(ErrorData::invalid_params(format!("unknown prompt: {}", request.name), None));
        };
        let (state, responses) = (request.request_state.as_deref(), request.input_responses.as_ref());
        match self.converse(&dialogue, state, responses, &context).await? {
            Turn::Ask(required) => Ok(required.into()),
            Turn::Answered(given) => prompt(&json!([{"type": "text", "text": dialogue.closing(&given)}])),
        }
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(as_type(fixtures::resources())?))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(as_type(fixtures::templates())?))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let Some(contents) = fixtures::contents(&request.uri) else {
            let code = if is_modern(&context) { ErrorCode::INVALID_PARAMS } else { ErrorCode::RESOURCE_NOT_FOUND };
            return Err(ErrorData::new(code, "Resource not found", Some(json!({"uri": request.uri}))));
        };
        Ok(ReadResourceResult::new(vec![as_type(contents)?]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let mut words: Vec<String> = ["paris", "park", "party", "test"].map(ToOwned::to_owned).to_vec();
        words.retain(|word| word.starts_with(&request.argument.value));
        let info = CompletionInfo::new(words).map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(info))
    }

    async fn list_skills(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListSkillsResult, ErrorData> {
        Ok(ListSkillsResult::with_all_items(skills::listed()))
    }

    async fn get_skill(
        &self,
        request: GetSkillRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetSkillResult, ErrorData> {
        let unknown = || ErrorData::invalid_params(format!("unknown skill: {}", request.uri), None);
        skills::get(&request.uri).map(GetSkillResult::new).ok_or_else(unknown)
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        self.tasks.get_task(&request.task_id).map(GetTaskResult::new)
    }

    async fn update_task(&self, request: UpdateTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        let answers = request.input_responses.into_iter().map(|(key, answer)| (key, json!(answer)));
        self.tasks.update_task(&request.task_id, answers)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut changes = self.changes.subscribe();
        loop {
            let change = tokio::select! {
                () = context.cancelled() => return Ok(()),
                change = changes.recv() => change,
            };
            let (accepted, sink) = (context.accepted(), context.sink());
            let sent = match change {
                Ok(Change::Tools) if accepted.tools_list_changed == Some(true) => sink.notify_tool_list_changed().await,
                Ok(Change::Prompts) if accepted.prompts_list_changed == Some(true) => {
                    sink.notify_prompt_list_changed().await
                }
                _ => Ok(()),
            };
            sent.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        }
    }

    #[expect(deprecated, reason = "clients of the legacy era still set the level")]
    async fn set_level(
        &self,
        _: rmcp::model::SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }
}
