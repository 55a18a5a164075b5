//! The catalog: all entries of all tenants, as last listed by their upstreams, and what a caller sees of it.
//!
//! Requests read one immutable [`Snapshot`]; they never wait for an upstream, a database or each other. Upstreams are listed
//! in the background, and what they said is stored, so that a restart knows every tool without asking anybody.

mod arguments;
mod definition;
mod explain;
mod hearing;
mod item;
mod lookalike;
mod name;
mod named;
mod refresh;
mod schedule;
mod shown;
mod snapshot;
mod sought;
#[cfg(test)]
mod tests;
mod unseen;
mod uri;
mod view;

pub(crate) use arguments::{Unchecked, unchecked};
pub use definition::{Definition, DefinitionError};
pub use explain::Explained;
pub use item::{Item, files as skill_files, is_page};
pub(crate) use lookalike::skeleton;
pub use name::{Origin, expose};
pub use refresh::Refresher;
pub use snapshot::{Catalog, Entry, Ground, Shelf, Snapshot};
pub(crate) use unseen::{first_unseen, is_unseen};
pub use uri::{Carried, Unlisted, carry, is_ours};
pub use view::{Face, ListDigest, Page, Part, Place, View};
