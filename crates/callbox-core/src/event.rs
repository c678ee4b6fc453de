//! What can happen to a session.

use std::time::Duration;

use crate::{EndReason, Time, UsageSeen};

/// Something that happened, and when. The time is an argument: nothing in this crate asks a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it was seen.
    pub at: Time,
    /// What it was.
    pub kind: EventKind,
}

/// The closed list of things that can happen to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// There is room for it: its machine and room may be made.
    Admitted,
    /// The provider says that machine `incarnation` runs.
    MachineStarted {
        /// Which machine of the session.
        incarnation: u32,
        /// What is known about it.
        facts: MachineFacts,
    },
    /// Machine `incarnation` was not made, and a repeat will not help.
    MachineFailed {
        /// Which machine of the session.
        incarnation: u32,
        /// What to tell.
        reason: EndReason,
    },
    /// Machine `incarnation` ran and is gone or unreachable.
    MachineLost {
        /// Which machine of the session.
        incarnation: u32,
        /// What was seen.
        detail: String,
    },
    /// The room exists.
    RoomOpened,
    /// The room was not made, and a repeat will not help.
    RoomFailed {
        /// What came of it.
        detail: String,
    },
    /// The bot says that it can take the call.
    BotReady,
    /// The bot says that it cannot, or could not be started.
    BotNotReady {
        /// What was tried and what came of it.
        detail: String,
    },
    /// The bot's program ended.
    BotExited(BotExit),
    /// The client is in.
    ClientJoined,
    /// The client is gone.
    ClientLeft {
        /// How it was seen.
        detail: String,
    },
    /// More came from the client before the bot was ready than is held.
    ClientOverflow {
        /// How much.
        detail: String,
    },
    /// The first bot audio left the machine.
    Audible,
    /// The bot was told that its call will end.
    WarningDelivered,
    /// The bot could not be told, and it will not be tried again.
    WarningFailed {
        /// What was tried and what came of it.
        detail: String,
    },
    /// What the machine uses was measured; the whole of what is known so far.
    Measured(UsageSeen),
    /// Somebody who may wants it to end.
    EndRequested(EndReason),
    /// Time has passed: deadlines are looked at.
    TimePassed,
    /// The provider says that the machine is gone.
    MachineDestroyed,
    /// The transport says that the room is gone.
    RoomClosed,
}

/// How the bot's program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotExit {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal number, if a signal ended it.
    pub signal: Option<i32>,
    /// The kernel ended it for want of memory.
    pub out_of_memory: bool,
}

/// What is known of a machine that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFacts {
    /// `kvm` | `tcg` | what the provider says.
    pub accelerator: String,
    /// `clone` | `cold` | `reserve`.
    pub start: String,
    /// What the parts of the start took, in order.
    pub stages: Vec<StartStage>,
    /// What its provider does not enforce around it, in words; empty when nothing is missing.
    pub not_enforced: Vec<String>,
}

/// One part of a machine's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartStage {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}
