//! Whose fault a failure is. Status, JSON-RPC code, log level and retry follow from it, in the two `problem.rs`.

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client asked for something that cannot be had; asking again the same way will fail again.
    Downstream,
    /// A tenant's MCP server failed us; other upstreams are not concerned.
    Upstream,
    /// mcp-mux itself failed.
    Ours,
}

impl Fault {
    /// The word in the log field `fault`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Ours => "ours",
        }
    }
}
