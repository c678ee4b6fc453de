//! What the rows say about room: who waits, who has or will have a machine, who starts.
//!
//! Each session that is driven here is counted once, and counted anew whenever its row changes,
//! so that nobody has to walk through all of them to let one in.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use callbox_core::{MachineState, Session, SessionId, State, Time, machine_name};
use callbox_machines::{Claims, MachineSpec, Made, Provider};

use crate::plane::Plane;

/// All providers' sessions.
#[derive(Default)]
pub(super) struct Lines {
    lines: HashMap<&'static str, Line>,
    counted: HashMap<SessionId, (&'static str, Counted)>,
    /// Let in, but their rows do not say so yet.
    granted: HashSet<SessionId>,
    /// Of those that start: their machines come from a reserve.
    prepared: HashSet<SessionId>,
}

/// One provider's sessions.
#[derive(Default)]
pub(super) struct Line {
    /// In the order in which they may start.
    waiting: BTreeSet<(Time, SessionId)>,
    pub claims: Claims,
    /// Those that start and did not come from a reserve.
    starting: usize,
}

/// What a session was counted as, to take it back by.
enum Counted {
    Waits(Time),
    Claims {
        /// None for a bot that is no longer configured: its session is about to end.
        spec: Option<MachineSpec>,
        starts: bool,
        /// From nothing that was prepared.
        anew: bool,
    },
}

impl Lines {
    /// The session is as this row says.
    pub fn set(&mut self, plane: &Plane, session: &Session) {
        if session.state != State::Queued {
            self.granted.remove(&session.id);
        }
        if !matches!(session.state, State::Queued | State::Starting) {
            self.prepared.remove(&session.id);
        }
        self.uncount(session.id);
        let Some((provider, _)) = plane.providers.get_key_value(session.provider.as_str()) else {
            return;
        };
        if let Some(counted) = self.count(plane, session) {
            self.lines.entry(provider).or_default().add(session.id, &counted);
            self.counted.insert(session.id, (provider, counted));
        }
    }

    /// The session is not driven here (any more).
    pub fn remove(&mut self, id: SessionId) {
        self.granted.remove(&id);
        self.prepared.remove(&id);
        self.uncount(id);
    }

    /// The session is let in; its machine comes from a reserve, or not.
    pub fn grant(&mut self, plane: &Plane, session: &Session, prepared: bool) {
        self.granted.insert(session.id);
        if prepared {
            self.prepared.insert(session.id);
        }
        // One that is only about to be inserted is counted when it is there.
        if self.counted.contains_key(&session.id) {
            self.set(plane, session);
        }
    }

    /// Whether it was let in, and its row does not say so yet.
    pub fn is_granted(&self, id: SessionId) -> bool {
        self.granted.contains(&id)
    }

    fn uncount(&mut self, id: SessionId) {
        if let Some((provider, counted)) = self.counted.remove(&id)
            && let Some(line) = self.lines.get_mut(provider)
        {
            line.remove(id, &counted);
        }
    }

    /// This provider's sessions.
    pub fn of(&mut self, provider: &'static str) -> &Line {
        self.lines.entry(provider).or_default()
    }

    /// The place of a session, from 1; none if it does not wait.
    pub fn position(&self, id: SessionId) -> Option<usize> {
        let Some((provider, Counted::Waits(since))) = self.counted.get(&id) else { return None };
        let before = self.lines.get(provider)?.waiting.range(..(*since, id));
        Some(before.count() + 1)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lines.values().map(|line| line.waiting.len()).sum()
    }

    /// What a session counts as; none if as nothing.
    fn count(&self, plane: &Plane, session: &Session) -> Option<Counted> {
        let queued = session.state == State::Queued;
        if queued && !self.granted.contains(&session.id) {
            return Some(Counted::Waits(session.moments.accepted));
        }
        if !queued && matches!(session.machine, MachineState::None | MachineState::Gone) {
            return None;
        }
        let starts = queued || session.state == State::Starting;
        let anew = starts && !self.prepared.contains(&session.id);
        Some(Counted::Claims { spec: spec(plane, session), starts, anew })
    }
}

impl Line {
    fn add(&mut self, id: SessionId, counted: &Counted) {
        match counted {
            Counted::Waits(since) => drop(self.waiting.insert((*since, id))),
            Counted::Claims { spec, starts, anew } => {
                self.starting += usize::from(*anew);
                if let Some(spec) = spec {
                    self.claims.add(spec, *starts);
                }
            }
        }
    }

    fn remove(&mut self, id: SessionId, counted: &Counted) {
        match counted {
            Counted::Waits(since) => drop(self.waiting.remove(&(*since, id))),
            Counted::Claims { spec, anew, .. } => {
                self.starting -= usize::from(*anew);
                if let Some(spec) = spec {
                    self.claims.remove(spec);
                }
            }
        }
    }

    /// Whether nobody waits before this one, which may not be among them yet.
    pub fn is_first(&self, id: SessionId) -> bool {
        self.waiting.first().is_none_or(|(_, first)| *first == id)
    }

    pub fn may_start(&self, provider: &dyn Provider) -> bool {
        provider.max_starting().is_none_or(|most| self.starting < most.max(1))
    }
}

/// The session's machine: the one it has, or else its first.
pub(super) fn spec(plane: &Plane, session: &Session) -> Option<MachineSpec> {
    let bot = plane.bot(&session.bot)?;
    let incarnation = session.incarnation.max(1);
    let name = machine_name(session.id, incarnation);
    let version = session.version.clone();
    let (bot, made) = (Arc::clone(&bot.machine), Made::default());
    Some(MachineSpec { name, incarnation, bot, version, made })
}
