//! Whether there is room for one more machine on this host.

use std::sync::Arc;

use callbox_microvm::{Accelerator, OWN_MEMORY_MIB};

use super::Local;
use crate::{Admission, BotMachine, Claims, Cost, MachineSpec, reserve::Key};

impl Local {
    /// What these machines take, and all templates: those are in memory whether or not a machine
    /// of theirs is.
    fn held<'a>(
        &self,
        machines: impl IntoIterator<Item = (&'a Arc<BotMachine>, usize)>,
    ) -> Vec<Cost> {
        let templates = self.host.templates_hold_bytes().div_ceil(1 << 20);
        let templates = Cost { memory_mib: templates, cpus: 0 };
        let machines = machines.into_iter().map(|(bot, count)| self.cost(bot).times(count));
        machines.chain([templates]).collect()
    }

    /// What a machine of this bot takes, at its worst.
    pub(super) fn cost(&self, bot: &BotMachine) -> Cost {
        // Under software emulation a machine has one processor, and a cache of translated code.
        let (cpus, cache) = match self.host.accelerator() {
            Accelerator::Kvm => (u64::from(bot.vcpus), 0),
            Accelerator::Tcg => (1, u64::from(self.host.translation_cache_mib())),
        };
        Cost { memory_mib: u64::from(bot.memory_mib) + cache + u64::from(OWN_MEMORY_MIB), cpus }
    }

    /// How many machines were admitted and may yet be taken from this reserve: those that have a
    /// machine already have taken theirs.
    pub(super) fn spoken_for(&self, claimed: &Claims, reserve: &Key) -> usize {
        let may_take = claimed.starting().filter(|spec| Key::of(spec) == *reserve);
        // Between a request and its answer, for each: a look, and no record is read.
        may_take.filter(|spec| !self.host.has(&spec.name)).count()
    }

    /// For a session, beside those that are `claimed`. What waits in reserve counts; it is given
    /// up when a session needs its room.
    pub(super) fn room_for(&self, next: &MachineSpec, claimed: &Claims) -> Admission {
        let reserve = Key::of(next);
        if self.reserves.ready(&reserve) > self.spoken_for(claimed, &reserve) {
            return Admission::Prepared;
        }
        let next = &next.bot;
        let reserved = self.reserves.machines();
        let reserved = reserved.iter().map(|bot| (bot, 1));
        match self.budget.admit(self.held(claimed.machines().chain(reserved)), self.cost(next)) {
            Admission::Full { detail } => {
                match self.budget.admit(self.held([]), self.cost(next)) {
                    // Even alone with its template.
                    Admission::Full { detail } => Admission::Never { detail },
                    _ => Admission::Full { detail },
                }
            }
            other => other,
        }
    }

    /// For the reserve: every machine of this host counts, and so does every one that waits.
    pub(super) fn room_in_reserve(&self, bot: &Arc<BotMachine>) -> bool {
        let Ok(machines) = self.host.names() else { return false };
        let costs = self.costs();
        // One from before a restart, of which nothing is known: as much as any.
        let largest = *self.largest.lock().expect("no panic while held");
        let live = machines.iter().map(|name| costs.get(name).copied().unwrap_or(largest));
        let reserved = self.reserves.machines();
        let waiting = self.held(reserved.iter().map(|bot| (bot, 1)));
        let held: Vec<Cost> = live.chain(waiting).collect();
        self.budget.admit(held, self.cost(bot)) == Admission::Granted
    }
}
