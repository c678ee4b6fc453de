//! How long each state of a session may last, what counts as ready, and what a bot's death means.

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
    /// How long a bot stays alone in its room after everybody left; zero for as long as the call
    /// may last.
    pub alone: Duration,
    /// How long before the end of `live` the bot is warned; zero for never.
    pub warn: Duration,
    /// For the tear-down, before it counts as overdue and is reported (it goes on all the same).
    pub ending: Duration,
}

/// What happens when a bot that was ready dies: its session gets a fresh machine, so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// At most so many fresh machines ...
    pub most: u32,
    /// ... within this time; one more failure ends the session.
    pub within: Duration,
}

impl Restarts {
    /// A bot's death ends its session.
    pub const NONE: Restarts = Restarts { most: 0, within: Duration::ZERO };
}

/// What counts as ready. Each of the three is written down when it is seen, whichever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadyWhen {
    /// The bot says so.
    Bot,
    /// The transport sees the bot in the room.
    Room,
    /// The machine runs.
    Machine,
}
