//! What can fail. The messages say nothing about keys or contents: whoever can read an error learns no more than that.

/// A sealed value did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not a sealed value, or of a format that this version does not know.
    #[error("the value is not in a sealed format that this version reads")]
    Malformed,
    /// It was sealed under a key that is not in the ring.
    #[error("the value was sealed under a key that is not in the key ring")]
    UnknownKey,
    /// It was changed, or sealed for another place.
    #[error("the value was changed or belongs to another place")]
    Refused,
}

/// A value could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// The value is longer than AES-GCM takes (2^36 - 32 bytes).
    #[error("the value is too long to be sealed")]
    TooLong,
}

/// A key could not be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers")]
    Random,
    /// The text is not base64 of 32 bytes.
    #[error("a key is base64 of exactly 32 bytes")]
    Malformed,
}
