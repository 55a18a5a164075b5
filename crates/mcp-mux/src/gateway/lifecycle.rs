//! The protocol machinery that rmcp serves: `initialize`, `server/discover`, `ping`. It says the same to every caller and knows
//! no tenant, and no request reaches it with a credential.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use rmcp::ServerHandler;
use rmcp::model::{Implementation, JsonObject, ProtocolVersion, ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use super::era::Era;
use crate::mux::Endpoint;
use crate::protocol::{SKILLS, TASKS};

/// rmcp's services, one for each [`Face`].
#[derive(Clone)]
pub(super) struct Lifecycle {
    legacy: Service,
    aggregate: Service,
    tenant: Service,
}

type Service = StreamableHttpService<Face, NeverSessionManager>;

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifecycle").finish_non_exhaustive()
    }
}

/// Who we say we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    /// To clients of the legacy era, which has no words for extensions.
    Legacy,
    /// To those of the modern era, where all tenants' things are listed together.
    Aggregate,
    /// To those of the modern era, at a tenant's own endpoint.
    Tenant,
}

impl Face {
    /// The one that `endpoint` has for clients of `era`.
    pub(super) fn of(era: Era, endpoint: &Endpoint) -> Self {
        match (era, endpoint) {
            (Era::Legacy, _) => Self::Legacy,
            (Era::Modern, Endpoint::Aggregate) => Self::Aggregate,
            (Era::Modern, Endpoint::Tenant(_)) => Self::Tenant,
        }
    }

    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Legacy => &[],
            Self::Aggregate => &[TASKS],
            Self::Tenant => &[TASKS, SKILLS],
        }
    }
}

impl ServerHandler for Face {
    #[expect(deprecated, reason = "clients of the legacy era ask for log messages")]
    fn get_info(&self) -> ServerConfig {
        let mut capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_resources_list_changed()
            .enable_completions()
            .enable_logging()
            .build();
        let extensions = self.extensions().iter().map(|name| ((*name).to_owned(), JsonObject::new()));
        capabilities.extensions = (*self != Self::Legacy).then(|| extensions.collect());
        ServerConfig::new(capabilities).with_server_info(Implementation::new("mcp-mux", env!("CARGO_PKG_VERSION")))
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(&[
            ProtocolVersion::V_2025_03_26,
            ProtocolVersion::V_2025_06_18,
            ProtocolVersion::V_2025_11_25,
            ProtocolVersion::V_2026_07_28,
        ])
    }
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        let [legacy, aggregate, tenant] = [Face::Legacy, Face::Aggregate, Face::Tenant].map(service);
        Self { legacy, aggregate, tenant }
    }

    /// Passes a request on. What the client accepts was judged already, more leniently than rmcp would.
    pub(super) async fn handle(&self, face: Face, request: Request<Bytes>) -> Response<Body> {
        let mut request = request.map(Full::new);
        if request.method() == http::Method::POST {
            let both = HeaderValue::from_static("application/json, text/event-stream");
            request.headers_mut().insert(ACCEPT, both);
        }
        let service = match face {
            Face::Legacy => &self.legacy,
            Face::Aggregate => &self.aggregate,
            Face::Tenant => &self.tenant,
        };
        service.handle(request).await.map(Body::new)
    }
}

fn service(face: Face) -> Service {
    // Host and Origin were judged by the layer in front, by the configured names.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .disable_allowed_hosts()
        .disable_allowed_origins();
    StreamableHttpService::new(move || Ok(face), Arc::new(NeverSessionManager::default()), config)
}
