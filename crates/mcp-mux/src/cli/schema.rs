//! `mcp-mux schema`: what manifests may say, for editors.

use anyhow::Result;

use super::print;
use crate::manifest;

/// Prints it as it is: a file in JSON, with lines as people read them.
pub(super) fn run() -> Result<()> {
    print(manifest::SCHEMA.trim_end())
}
