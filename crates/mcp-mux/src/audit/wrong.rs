//! What can be wrong with a chain.

/// How many findings are kept of one chain. Whatever else there is, they are enough to know where to look.
pub(super) const WRONG_MAX: usize = 20;

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The line is none of ours.
    #[error("this is no line of the audit record")]
    NotALine,
    /// It says that it belongs elsewhere.
    #[error("this line says of itself that it lies elsewhere: it was changed or moved")]
    Elsewhere,
    /// It is not the next one.
    #[error(
        "event {found} of {writer} stands where {wanted} should be: what lies between is missing, or is there twice"
    )]
    Gap {
        /// Whose.
        writer: String,
        /// Which should come.
        wanted: u64,
        /// Which came.
        found: u64,
    },
    /// It does not fit the one before.
    #[error("event {seq} of {writer} does not fit the one before it: one of the two was changed")]
    Unlinked {
        /// Whose.
        writer: String,
        /// Which.
        seq: u64,
    },
    /// It is not what was signed.
    #[error("event {seq} of {writer} is not the one that was signed")]
    NotSigned {
        /// Whose.
        writer: String,
        /// Which.
        seq: u64,
    },
    /// Something was signed that is not there.
    #[error("the events of {writer} up to {seq} were signed, and are not all there: they were cut off")]
    CutOff {
        /// Whose.
        writer: String,
        /// How far it should go.
        seq: u64,
    },
    /// The signature is not one.
    #[error("the signature of {writer} at {seq} is not good")]
    Signature {
        /// Whose.
        writer: String,
        /// Where.
        seq: u64,
    },
    /// Nobody signed it, and the time for that is over.
    #[error(
        "the events of {writer} from {seq} on were never signed: somebody put them there, or took the signatures away, or its process \
         was killed"
    )]
    Unsigned {
        /// Whose.
        writer: String,
        /// From which on.
        seq: u64,
    },
    /// Its writer was over before.
    #[error("the events of {writer} from {seq} on come behind its end: somebody put them there")]
    Added {
        /// Whose.
        writer: String,
        /// From which on.
        seq: u64,
    },
    /// A key that nobody vouches for.
    #[error("it is signed with the key {id}, which is none of those that count")]
    Key {
        /// Which.
        id: String,
    },
    /// A writer's lines do not lie together.
    #[error("the events of {writer} do not lie together")]
    Scattered {
        /// Whose.
        writer: String,
    },
    /// A file without its beginning.
    #[error("the file does not begin as an export does")]
    Header,
    /// A file without its end.
    #[error("the file has no good end: something was cut off, or changed")]
    End,
    /// Something behind the end.
    #[error("there is something behind the end")]
    BehindTheEnd,
}
