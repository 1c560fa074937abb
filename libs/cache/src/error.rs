//! What can go wrong with short-lived state. A rate limit never fails.
use weft_core::Reason;

/// Why the cache could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The Redis URL cannot be read. Its text may hold a password and is not repeated.
    #[error("the redis url cannot be read, write redis://host:port or rediss://user:password@host:port/database")]
    InvalidUrl,
    /// Redis is there and refuses the credentials.
    #[error("redis refuses the credentials, check user and password of its url")]
    CredentialsRefused(#[source] Source),
    /// Redis is away, too slow, or cannot do this now. Whether a write took effect is not known.
    #[error("the cache cannot be reached, try again")]
    Unavailable(#[source] Source),
    /// The value is over [`crate::MAX_VALUE_BYTES`].
    #[error("the value has {bytes} bytes, keep it within {limit}", limit = crate::MAX_VALUE_BYTES)]
    ValueTooLarge {
        /// Size of the value.
        bytes: usize,
    },
    /// The key is over [`crate::MAX_KEY_BYTES`].
    #[error("the key has {bytes} bytes, keep it within {limit}", limit = crate::MAX_KEY_BYTES)]
    KeyTooLong {
        /// Size of the key.
        bytes: usize,
    },
    /// The time to live is shorter than 1 ms or longer than [`crate::MAX_TTL`].
    #[error("the time to live must be between 1 ms and 31 days")]
    InvalidTtl,
}

/// What lies beneath an error, without naming the client's types.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

impl CacheError {
    /// The reason that leaves the mesh.
    pub fn reason(&self) -> Reason {
        match self {
            CacheError::Unavailable(_) => Reason::Unavailable,
            CacheError::ValueTooLarge { .. } => Reason::PayloadTooLarge,
            CacheError::KeyTooLong { .. } => Reason::InvalidArgument,
            CacheError::InvalidUrl | CacheError::CredentialsRefused(_) | CacheError::InvalidTtl => Reason::Internal,
        }
    }
}
