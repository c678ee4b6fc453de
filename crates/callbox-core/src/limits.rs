//! How long each state of a session may last.

use std::time::Duration;

/// The spans from which a session's deadlines are made. Copied into the row when the session is
/// accepted, so that a changed configuration never moves the deadline of a call that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accepted to admitted: how long it may wait for room.
    pub queued: Duration,
    /// From admitted to started.
    pub start: Duration,
    /// From started to ready.
    pub ready: Duration,
    /// From ready to joined: how long a bot waits for its client.
    pub join: Duration,
    /// From joined to the end: the longest call.
    pub live: Duration,
    /// How long before the end of `live` the bot is warned; zero for never.
    pub warn: Duration,
    /// For the tear-down, before it counts as overdue and is reported (it goes on all the same).
    pub ending: Duration,
}
