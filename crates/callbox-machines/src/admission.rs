//! Whether there is room for another machine, in words that fit every provider.
//!
//! Nothing is booked and nothing is given back: the caller says which machines its sessions have
//! or are about to have, the provider adds what it runs beside them (reserves, templates) and
//! answers. So there is no count that could be wrong after a crash.

use crate::MachineSpec;

/// A machine that a session was admitted for, until it is gone.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What it is or will be.
    pub spec: MachineSpec,
    /// It was asked for, and does not run yet.
    pub starting: bool,
}

/// Whether there is room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is.
    Granted,
    /// A machine of its bot is in reserve, beyond those that the claims before it will take:
    /// it needs no room of its own, and is no start that others must wait for.
    Prepared,
    /// Not now; when a machine ends, there may be.
    Full {
        /// What there is, what is taken, what it needs.
        detail: String,
    },
    /// Not even if nothing else ran.
    Never {
        /// What there is, what it needs.
        detail: String,
    },
}

/// The reserve of one version of a bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// The bot's name.
    pub bot: String,
    /// Its version.
    pub version: Option<String>,
    /// How far it is filled.
    pub level: ReserveLevel,
}

/// How far a reserve is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReserveLevel {
    /// Machines that can be taken at once.
    pub ready: usize,
    /// Machines that shall be there.
    pub target: usize,
}
