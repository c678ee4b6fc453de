//! What a transport's vendor tells us by itself.

use callbox_core::SessionId;

/// Something that a vendor saw in a session's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose room it was.
    pub session: SessionId,
    /// What it was.
    pub sight: Sight,
}

/// What was seen. Webhooks come late, twice and in any order, so only what stays true is taken at
/// its word; the rest is a reason to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The bot came in.
    BotJoined,
    /// A client came in.
    ClientJoined,
    /// Something else changed: it is asked who is there.
    Changed,
}

/// Why a webhook was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookRefusal {
    /// This transport takes none, or was not given the secret that they are signed with.
    #[error("this transport takes no webhooks")]
    NoWebhooks,
    /// It is not signed by the vendor, or too old.
    #[error("{0}")]
    Unsigned(&'static str),
    /// It is signed, and cannot be read.
    #[error("{0}")]
    Unreadable(String),
}
