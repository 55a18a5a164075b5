//! Who may do what: the one decision, and the only maker of an [`Access`].
//!
//! Pure and synchronous: it reads a caller and the grants of a snapshot, and knows neither HTTP nor MCP nor the database.

mod access;
mod decide;
mod explain;
mod revoked;
mod scope;

pub use access::{Access, GrantIndex, Reach, ReachKey};
pub use decide::{Action, Decision, EntryFacts, Reason, Verdict, decide};
pub use explain::{Change, Explanation, explain};
pub use revoked::RevokedCallers;
pub use scope::{Administration, own_account};
