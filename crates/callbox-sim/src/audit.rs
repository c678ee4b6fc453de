//! What must hold, looked at all the time and at the end.

use std::{sync::Mutex, time::Duration};

use callbox_core::{Session, SessionId, State};
use callbox_server::{replica, sweep};
use tokio::time::{Instant, sleep};

use crate::{
    clients::{Answers, Marker},
    dispatcher::LONGEST,
    world::{
        World,
        machines::{self, DEAD_MAN},
    },
};

/// In a healthy world, a machine or a room that nobody owns is gone after so long. The sweep may
/// have come just before, or pause so long because its provider was away until now: a whole
/// interval. What it cannot list, take or end then, it looks at again after 2, 4, 8 and 16 s, or
/// after another interval where it paused so long before: 60 s at most, and the calls that it makes
/// are slow. Last, a provider may say that a machine is gone and end it half a minute later.
const UNOWNED: Duration =
    Duration::from_secs(2 * sweep::EVERY.as_secs() + machines::DONE_LATER.1 / 1000);
/// In a healthy world, a deadline is acted on within so long: a dispatcher that died is noticed in
/// ten seconds, clocks are some seconds wrong, and the store may have to be asked more than once.
pub const OVERDUE: Duration = Duration::from_secs(25);
/// A host of which the store hears nothing is given up after so long, and not before
/// (`callbox_server::replica::lost_after`): its machines ended themselves before that.
pub const LOST: Duration = Duration::from_secs(DEAD_MAN.as_secs() + replica::SETTLED.as_secs());
/// A machine that no dispatcher speaks to is gone after so long: it looks every few seconds.
const ALONE: Duration = Duration::from_secs(DEAD_MAN.as_secs() + 10);
/// After the storm, all must be over within so long.
pub const SETTLED: Duration = Duration::from_secs(LONGEST.as_secs() + UNOWNED.as_secs());

/// Whether the world wants this machine of the session.
fn owns(row: &Session, incarnation: u32) -> bool {
    !matches!(row.state, State::Ended { .. }) && row.incarnation == incarnation
}

impl World {
    /// Looks every second, until it is dropped.
    pub async fn watch_over(&self) {
        loop {
            sleep(Duration::from_secs(1)).await;
            self.look_at_dispatchers();
            self.look_at_machines();
            self.look_at_rooms();
            self.look_at_deadlines();
        }
    }

    /// While nobody is there who could do it, nothing can be expected to be done.
    fn look_at_dispatchers(&self) {
        let (away, all) = {
            let doors = &self.inner().doors;
            (doors.iter().filter(|door| door.is_none()).count(), doors.len())
        };
        if away == all || away > 0 && self.weather.hosted {
            self.upset();
        }
    }

    fn look_at_machines(&self) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut wrong = Vec::new();
        for machine in inner.machines.values_mut().filter(|machine| machine.agent.is_some()) {
            let row = inner.rows.get(&machine.session);
            let owned = row.is_some_and(|row| owns(row, machine.incarnation));
            let since = (!owned).then(|| machine.unowned_since.unwrap_or_else(Instant::now));
            machine.unowned_since = since;
            let since = since.map(|since| since.max(inner.healthy_since));
            if since.is_some_and(|since| since.elapsed() > UNOWNED) {
                wrong.push(("a machine that nobody owns", machine.name()));
            }
            let alone = machine.lines.alone_since().filter(|_| !machine.lines.silent());
            if alone.is_some_and(|since| since.elapsed() > ALONE) {
                wrong.push(("a machine that lives on alone", machine.name()));
            }
        }
        self.report(inner, wrong);
    }

    fn look_at_rooms(&self) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut wrong = Vec::new();
        for (id, room) in &mut inner.rooms {
            let owned =
                inner.rows.get(id).is_some_and(|row| !matches!(row.state, State::Ended { .. }));
            let since = (!owned).then(|| room.unowned_since.unwrap_or_else(Instant::now));
            room.unowned_since = since;
            let since = since.map(|since| since.max(inner.healthy_since));
            if since.is_some_and(|since| since.elapsed() > UNOWNED) {
                wrong.push(("a room that nobody owns", id.to_string()));
            }
        }
        self.report(inner, wrong);
    }

    fn look_at_deadlines(&self) {
        let now = self.now();
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut wrong = Vec::new();
        let doors = inner.doors.iter().flatten();
        let here: Vec<String> = doors.map(|door| format!("{:016x}", door.host)).collect();
        for (id, row) in &inner.rows {
            if row.state.why().is_some() {
                continue;
            }
            let overdue = now.since(row.deadline_at).min(inner.healthy_since.elapsed());
            let orphaned = !row.place.is_empty() && !here.contains(&row.place);
            let most = if orphaned { OVERDUE + LOST } else { OVERDUE };
            if overdue > most {
                let state = row.state.kind().as_str();
                wrong.push(("a deadline that passed", format!("{id} is still {state}")));
            }
        }
        self.report(inner, wrong);
    }

    fn report(&self, inner: &mut crate::world::Inner, wrong: Vec<(&'static str, String)>) {
        let age = self.age();
        for (what, detail) in wrong {
            inner.violation(age, what, detail);
        }
    }

    /// Whether nothing is left that would still change.
    pub fn is_settled(&self) -> bool {
        let inner = self.inner();
        let over = |row: &Session| matches!(row.state, State::Ended { .. });
        inner.machines.is_empty() && inner.rooms.is_empty() && inner.rows.values().all(over)
    }

    /// What must hold when all is over.
    pub fn look_back(&self, answers: &Mutex<Answers>) {
        self.nothing_leaks();
        self.nothing_is_lost(&answers.lock().expect("no panic while held"));
        self.data_is_given_once();
    }

    fn nothing_leaks(&self) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut wrong = Vec::new();
        wrong.extend(inner.machines.keys().map(|name| ("leaked machine", name.clone())));
        wrong.extend(inner.rooms.keys().map(|id| ("leaked room", id.to_string())));
        for (id, row) in &inner.rows {
            if !matches!(row.state, State::Ended { .. }) {
                let state = row.state.kind().as_str();
                wrong.push(("a session that never ended", format!("{id} is {state}")));
            }
        }
        self.report(inner, wrong);
    }

    /// Every acknowledged start is a session, a key bought one, and who was told that nothing
    /// happened was told the truth.
    fn nothing_is_lost(&self, answers: &Answers) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let made = |marker: &Marker| -> Vec<SessionId> {
            let of = |row: &&Session| Marker::of(row) == *marker;
            inner.rows.values().filter(of).map(|row| row.id).collect()
        };
        let mut wrong = Vec::new();
        let mut markers: Vec<Marker> = inner.rows.values().map(Marker::of).collect();
        markers.sort();
        for pair in markers.windows(2).filter(|pair| pair[0] == pair[1]) {
            wrong.push((
                "one start that bought twice",
                format!("{} {:?}", pair[0].0, made(&pair[0])),
            ));
        }
        for (marker, got) in &answers.got {
            let made = made(marker);
            if got.iter().any(|id| !made.contains(id)) {
                wrong.push((
                    "an acknowledged session that is lost",
                    format!("{} {got:?}", marker.0),
                ));
            }
            if got.len() > 1 {
                wrong.push(("one start with two answers", format!("{} {got:?}", marker.0)));
            }
        }
        for marker in &answers.nothing {
            if !made(marker).is_empty() {
                let detail = format!("{} {:?}", marker.0, made(marker));
                wrong.push(("nothing happened, it was said, and it did", detail));
            }
        }
        self.report(inner, wrong);
    }

    /// A session's data goes to one machine of each incarnation.
    fn data_is_given_once(&self) {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut wrong = Vec::new();
        for (id, facts) in &inner.facts {
            let mut told = facts.told.clone();
            told.sort_unstable();
            for pair in told.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                wrong.push(("data that went to two machines", format!("{id} #{}", pair[0].0)));
            }
        }
        self.report(inner, wrong);
    }
}
