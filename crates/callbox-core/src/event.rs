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
    /// The provider has begun to make machine `incarnation`, or took it out of a reserve, and calls
    /// it so. Where it comes again, the last one counts.
    MachineMade {
        /// Which machine of the session.
        incarnation: u32,
        /// The provider's own name for it.
        id: String,
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
    /// The host that the machine is on is gone for good, and the machine with it.
    PlaceLost {
        /// How that is known.
        detail: String,
    },
    /// The bot says that it can take the call.
    BotReady {
        /// Which machine of the session it is in.
        incarnation: u32,
    },
    /// The transport sees the bot in the room.
    BotPresent,
    /// The bot says that it cannot, or could not be started.
    BotNotReady {
        /// Which machine of the session it is in.
        incarnation: u32,
        /// What was tried and what came of it.
        detail: String,
    },
    /// The bot's program ended.
    BotExited {
        /// Which machine of the session it was in.
        incarnation: u32,
        /// How.
        exit: BotExit,
    },
    /// The bot's end of the media broke, and nothing was heard of its program.
    BotBroke {
        /// Which machine of the session it is in.
        incarnation: u32,
        /// How it was seen.
        detail: String,
    },
    /// A client is in.
    ClientJoined,
    /// The transport sees nobody but the bot in the room, which stays open.
    RoomEmpty,
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
    /// The provider says that machine `incarnation` is gone.
    MachineDestroyed {
        /// Which machine of the session.
        incarnation: u32,
    },
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
    /// What it costs; none where nobody asks for money, or the price is not known.
    pub price: Option<Price>,
}

/// What something costs for as long as it is there, by a list of prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Billionths of a US dollar for a second: 750 for the smallest machines at clouds.
    pub nano_usd_per_s: u64,
    /// The day that the list is of (`2026-06-07`): prices change.
    pub as_of: String,
}

impl Price {
    /// US dollars for so long.
    pub fn usd(&self, span: Duration) -> f64 {
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let nanos = self.nano_usd_per_s as f64;
        nanos * 1e-9 * span.as_secs_f64()
    }
}

/// One part of a machine's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartStage {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}
