//! Words of MCP that both hops use: versions, headers, keys, extensions.

use http::header::HeaderName;

/// The newest version, and the first of the modern era.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";
/// The newest version of the legacy era.
pub(crate) const LEGACY_VERSION: &str = "2025-11-25";

/// The version that a message follows (MCP 2025-06-18 `basic/transports`).
pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The session of a message (MCP 2025-03-26 `basic/transports`).
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// Where a stream is taken up (WHATWG HTML §9.2).
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The method of a message, once more (SEP-2243).
pub(crate) const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The name, URI or task of a message, once more (SEP-2243, SEP-2663).
pub(crate) const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// How the headers begin that repeat arguments (SEP-2243).
pub(crate) const PARAM_PREFIX: &str = "mcp-param-";

/// Keys of `_meta` (MCP 2026-07-28 `basic`).
pub(crate) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub(crate) const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// The extension by which a server answers a call with a task (SEP-2663).
pub(crate) const TASKS: &str = "io.modelcontextprotocol/tasks";
/// The extension by which a server lists skills (SEP-2640).
pub(crate) const SKILLS: &str = "io.modelcontextprotocol/skills";
