//! mcp-mux: one MCP server in front of the MCP servers of many tenants.
//!
//! A request passes the modules in this order: `http` → `auth` → `gateway` → `policy` → `catalog` → `mux` → `upstream`. Nothing
//! skips a line and nothing calls upwards; see `docs/architecture.md`.

pub mod allowance;
pub mod app;
pub mod audit;
pub mod bridge;
pub mod cli;
pub mod config;
#[cfg(feature = "dev")]
pub mod dev;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
pub mod lifecycle;
pub mod limits;
pub mod manifest;
pub mod telemetry;
pub mod usage;

mod api_key;
pub mod caller;
mod civil;
pub mod egress;
pub mod error;
pub mod flow;
mod hex;
mod json;
mod protocol;

pub mod auth;
pub mod catalog;
pub mod gateway;
pub mod http;
pub mod keys;
pub mod mux;
pub mod policy;
pub mod replicas;
mod review;
mod upstream;

pub use app::{App, StartError, open_store};
pub use egress::{Egress, EgressError};
pub use replicas::wait_for_replicas;
pub use upstream::{AccountError, AccountPlace, Accounts, Callback, Consent, Flow, HeldAccount};
