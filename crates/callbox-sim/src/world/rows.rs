//! Every row that is written, held against the one before it and against the world as it is at
//! that moment.

use callbox_core::{EndCode, Session, State, StateKind};

use super::{World, facts::Cause};
use crate::clients::Marker;

/// Clocks of dispatchers may be wrong, and calls take time: how early an end by a deadline may be.
const EARLY_MS: i64 = 5_000;

impl World {
    /// `who` wrote `next` where `before` was.
    pub fn saw_row(&self, who: &str, before: Option<&Session>, next: &Session) {
        let id = next.id;
        let state = next.state.kind().as_str();
        let detail =
            || format!("{who} {id} #{} {:?} {:?}", next.incarnation, next.machine, next.room);
        if before.is_none_or(|before| before.state.kind() != next.state.kind()) {
            self.note(&format!("row.{state}"), detail);
        } else {
            self.note("row", detail);
        }
        self.inner().rows.insert(id, next.clone());
        match before {
            None => self.note("accepted", || format!("{id} for {:?}", Marker::of(next))),
            Some(before) => self.changed_well(who, before, next),
        }
        let begins_to_end = before.is_some_and(|before| before.state.why().is_none());
        if begins_to_end && self.inner().ending.contains(who) {
            self.inner().facts(id).did(Cause::ShutDown);
        }
        if let State::Ended { why } = &next.state {
            let age = self.age();
            let mut inner = self.inner();
            inner.note(age, &format!("end.{}", why.code.as_str()), || id.to_string());
            if !inner.facts(id).justify(why.code) {
                let detail = format!("{id}: {} ({})", why.code.as_str(), why.detail);
                inner.violation(age, "an end without a cause", detail);
            }
            drop(inner);
            self.nothing_is_left(next);
        }
    }

    fn changed_well(&self, who: &str, before: &Session, next: &Session) {
        let wrong = |what: &'static str| {
            let (was, is) = (before.state.kind().as_str(), next.state.kind().as_str());
            let detail = format!(
                "{}: {was} #{} to {is} #{}, by {who}",
                next.id, before.incarnation, next.incarnation
            );
            self.violation(what, detail);
        };
        let restarts = next.restarted.len() > before.restarted.len();
        let forward = match (before.state.kind(), next.state.kind()) {
            (StateKind::Ended, _) => false,
            (StateKind::Ending, next) => matches!(next, StateKind::Ending | StateKind::Ended),
            (StateKind::Joining | StateKind::Live, StateKind::Starting) => restarts,
            (was, is) => is >= was,
        };
        if !forward {
            wrong("a row that goes back");
        }
        if let (Some(was), Some(is)) = (before.state.why(), next.state.why())
            && was != is
        {
            wrong("an end whose reason changes");
        }
        let moments = |session: &Session| {
            let m = &session.moments;
            [Some(m.accepted), m.admitted, m.started, m.ready, m.joined, m.ended]
        };
        let kept =
            moments(before).iter().zip(moments(next)).all(|(was, is)| was.is_none() || *was == is);
        if !kept {
            wrong("a moment that is forgotten");
        }
        match next.incarnation.checked_sub(before.incarnation) {
            Some(0) => {}
            Some(1) => self.predecessor_is_gone(before),
            _ => wrong("an incarnation that is skipped"),
        }
        self.ended_in_time(before, next);
    }

    /// A new machine is wanted: the last one is gone, as far as anybody can know.
    fn predecessor_is_gone(&self, before: &Session) {
        let Some(name) = before.machine_name() else { return };
        let inner = self.inner();
        let left = inner.machines.values().any(|machine| {
            machine.name() == name && machine.agent.is_some() && !machine.behind_our_back
        });
        drop(inner);
        if left {
            self.violation(
                "a next machine before the last is gone",
                format!("{}: {name}", before.id),
            );
        }
    }

    /// A session that ends by a deadline has reached it.
    fn ended_in_time(&self, before: &Session, next: &Session) {
        let (State::Ending { why } | State::Ended { why }) = &next.state else { return };
        if before.state.why().is_some() {
            return;
        }
        let due = match why.code {
            EndCode::MaxDuration => before.live_until,
            EndCode::Alone => before.alone_at,
            EndCode::JoinTimeout
            | EndCode::QueueTimeout
            | EndCode::StartTimeout
            | EndCode::ReadyTimeout => Some(before.deadline_at),
            _ => return,
        };
        let now = self.now().as_micros();
        if due.is_none_or(|due| due.as_micros() > now + EARLY_MS * 1000) {
            self.violation("an end before its time", format!("{}: {}", next.id, why.code.as_str()));
        }
    }

    /// Ended means that nothing of the session is left in the world; but for what the world itself
    /// hides.
    fn nothing_is_left(&self, session: &Session) {
        let inner = self.inner();
        let machines: Vec<String> = inner
            .machines
            .values()
            .filter(|machine| machine.session == session.id)
            .filter(|machine| !machine.behind_our_back && machine.agent.is_some())
            // Nobody but its own host's dispatcher can end it.
            .filter(|machine| machine.host == 0)
            .map(super::machines::Machine::name)
            .collect();
        let room = inner.rooms.get(&session.id).is_some_and(|room| !room.behind_our_back);
        drop(inner);
        if !machines.is_empty() {
            self.violation("ended with a machine left", format!("{}: {machines:?}", session.id));
        }
        if room {
            self.violation("ended with a room left", session.id.to_string());
        }
    }
}
