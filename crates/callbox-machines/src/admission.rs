//! Whether there is room for another machine, in words that fit every provider.
//!
//! Nothing is booked and nothing is given back: the caller says which machines its sessions have
//! or are about to have, the provider adds what it runs beside them (reserves, templates) and
//! answers. So there is no count that could be wrong after a crash.

use std::{collections::BTreeMap, sync::Arc};

use crate::{BotMachine, MachineSpec};

/// The machines that sessions were admitted for, each until it is gone. Counted by bot: asking
/// about ten thousand costs what asking about ten does.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Not a map: bots are few, and whoever adds them up has them in one order.
    by_bot: Vec<(Arc<BotMachine>, usize)>,
    /// By the machines' names.
    starting: BTreeMap<String, MachineSpec>,
    count: usize,
}

impl Claims {
    /// One more; `starting` while it was asked for and does not run yet.
    pub fn add(&mut self, spec: &MachineSpec, starting: bool) {
        self.count += 1;
        match self.by_bot.iter_mut().find(|(bot, _)| Arc::ptr_eq(bot, &spec.bot)) {
            Some((_, count)) => *count += 1,
            None => self.by_bot.push((Arc::clone(&spec.bot), 1)),
        }
        if starting {
            self.starting.insert(spec.name.clone(), spec.clone());
        }
    }

    /// Takes back what was added in these words.
    pub fn remove(&mut self, spec: &MachineSpec) {
        let Some(at) = self.by_bot.iter().position(|(bot, _)| Arc::ptr_eq(bot, &spec.bot)) else {
            return;
        };
        self.count -= 1;
        self.by_bot[at].1 -= 1;
        if self.by_bot[at].1 == 0 {
            self.by_bot.remove(at);
        }
        self.starting.remove(&spec.name);
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What they are, and how many of each.
    pub fn machines(&self) -> impl Iterator<Item = (&Arc<BotMachine>, usize)> {
        self.by_bot.iter().map(|(bot, count)| (bot, *count))
    }

    /// Those that do not run yet, in the order of their names.
    pub fn starting(&self) -> impl Iterator<Item = &MachineSpec> {
        self.starting.values()
    }
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
    /// There is, but its provider must not be asked for machines that fast: in a moment. Nothing
    /// that is given up would help.
    Later {
        /// What holds it up.
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
