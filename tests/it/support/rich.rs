//! A real MCP server with all that MCP has besides tools, and with tools that link to it or ask for input.

use std::borrow::Cow;
use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult, CompletionInfo,
    ContentBlock, GetPromptRequestParams, GetPromptResponse, GetPromptResult, InputRequiredResult, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams, Prompt, PromptArgument,
    PromptMessage, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Reference,
    Resource, ResourceContents, ResourceTemplate, Role, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

/// What it says is the same whoever it is, but for its name.
#[derive(Debug, Clone)]
pub(crate) struct Rich {
    /// What it calls itself.
    pub name: String,
    /// What it speaks.
    pub versions: Vec<ProtocolVersion>,
}

fn as_type<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

impl ServerHandler for Rich {
    fn get_info(&self) -> ServerConfig {
        let capabilities =
            ServerCapabilities::builder().enable_tools().enable_prompts().enable_resources().enable_completions();
        ServerConfig::new(capabilities.build())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.versions.clone().into()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = Arc::new(json!({"type": "object"}).as_object().cloned().unwrap_or_default());
        let tool = |name: &'static str| Tool::new(name, name, Arc::clone(&schema));
        Ok(ListToolsResult::with_all_items(vec![tool("link"), tool("confirm")]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name == "link" {
            let linked = ContentBlock::resource_link(Resource::new("note://unlisted", "unlisted"));
            let embedded = ContentBlock::embedded_text("note://one", "one");
            return Ok(CallToolResponse::Complete(CallToolResult::success(vec![linked, embedded])));
        }
        let can_ask = context.client_capabilities().is_some_and(|can| can.elicitation.is_some());
        if !can_ask {
            return Ok(CallToolResponse::Complete(CallToolResult::error(vec![ContentBlock::text("cannot ask")])));
        }
        let given = json!(request.input_responses)["sure"].clone();
        match request.request_state.as_deref() {
            None => {
                let question = json!({"method": "elicitation/create", "params": {
                    "mode": "form", "message": format!("{}: are you sure?", self.name),
                    "requestedSchema": {"type": "object", "properties": {"yes": {"type": "boolean"}}},
                }});
                let requests = as_type(json!({"sure": question}))?;
                let state = format!("state of {}", json!(request.arguments));
                Ok(CallToolResponse::InputRequired(InputRequiredResult::new(Some(requests), Some(state))))
            }
            Some(state) => {
                let text = format!("{} heard {given} with {state}", self.name);
                Ok(CallToolResponse::Complete(CallToolResult::success(vec![ContentBlock::text(text)])))
            }
        }
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let topic = PromptArgument::new("topic").with_required(true);
        let brief = Prompt::new("brief", Some(format!("a brief of {}", self.name)), Some(vec![topic]));
        Ok(ListPromptsResult::with_all_items(vec![brief]))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let text = format!("{} of {} with {}", request.name, self.name, json!(request.arguments));
        let link = PromptMessage::new_resource_link(Role::User, Resource::new("note://one", "one"));
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text), link]).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let notes = ["one", "two", "three"].map(|note| Resource::new(format!("note://{note}"), note));
        Ok(ListResourcesResult::with_all_items(notes.to_vec()))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(vec![ResourceTemplate::new("note://{name}", "note")]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let text = format!("{} of {}", request.uri, self.name);
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let of = match &request.r#ref {
            Reference::Prompt(prompt) => prompt.name.clone(),
            Reference::Resource(resource) => resource.uri.clone(),
            _ => String::new(),
        };
        let value = format!("{}:{of}:{}:{}", self.name, request.argument.name, request.argument.value);
        let info = CompletionInfo::new(vec![value]).map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(info))
    }
}
