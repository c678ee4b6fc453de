//! Lives of sessions as they may really be, with a little of what can never be.
//!
//! What happens next is drawn from what is owed: who owes a machine hears that it runs or that it
//! failed, who waits for a time sees it pass. One step in eight is anything at any time, about any
//! machine. Without that order nearly every life ends in its start.

use std::time::Duration;

use crate::world::{RESTARTS, at, every_event_of, facts, spec};
use callbox_core::{
    Applied, Duty, Event, EventKind, ReadyWhen, Restarts, Session, SessionSpec, Time, apply, owed,
};
use proptest::prelude::*;

/// Where a life begins that is looked at. What came before came by events.
#[derive(Clone, Copy, Debug)]
enum Beginning {
    Accepted,
    Live,
    /// Its bot was told that the call will end.
    Warned,
    /// Its first machine failed and is still there.
    Replaced,
    /// Its call goes on in its second machine.
    LiveAgain,
}

/// One thing that happens, before it is known what is owed then.
#[derive(Clone, Debug)]
enum Draw {
    /// One of what may happen, by weight, so many seconds later.
    Likely { pick: u32, gap: u64 },
    /// Anything.
    Wild { at: i64, kind: EventKind },
}

/// A life that was drawn.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    beginning: Beginning,
    ready_when: ReadyWhen,
    restarts: Restarts,
    draws: Vec<Draw>,
}

/// What happened, and what the session was before and after it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) before: Session,
    pub(crate) at: Time,
    pub(crate) kind: EventKind,
    pub(crate) after: Session,
}

pub(crate) fn lives() -> impl Strategy<Value = Life> {
    use Beginning::{Accepted, Live, LiveAgain, Replaced, Warned};
    let wild: Vec<EventKind> = (1..=4).flat_map(every_event_of).map(|(_, kind)| kind).collect();
    let draw = prop_oneof![
        7 => (any::<u32>(), 0..12u64).prop_map(|(pick, gap)| Draw::Likely { pick, gap }),
        1 => (0..2_000i64, prop::sample::select(wild))
            .prop_map(|(at, kind)| Draw::Wild { at, kind }),
    ];
    (
        prop::sample::select(vec![Accepted, Accepted, Live, Warned, Replaced, LiveAgain]),
        prop::sample::select(vec![ReadyWhen::Bot, ReadyWhen::Room, ReadyWhen::Machine]),
        prop::sample::select(vec![Restarts::NONE, RESTARTS]),
        prop::collection::vec(draw, 0..60),
    )
        .prop_map(|(beginning, ready_when, restarts, draws)| {
            // Who is never restarted cannot have been.
            let restarts = match beginning {
                Accepted | Live | Warned => restarts,
                Replaced | LiveAgain => RESTARTS,
            };
            Life { beginning, ready_when, restarts, draws }
        })
}

pub(crate) fn step(session: &Session, at: Time, kind: &EventKind) -> Session {
    match apply(session, &Event { at, kind: kind.clone() }) {
        Ok(Applied::Changed(next)) => *next,
        Ok(Applied::Unchanged) | Err(_) => session.clone(),
    }
}

impl Life {
    /// As it is when it begins to be looked at, and the time then.
    fn begun(&self) -> (Session, Time) {
        let Life { ready_when, restarts, .. } = *self;
        let mut now = at(0);
        let mut session = Session::accepted(SessionSpec { ready_when, restarts, ..spec() }, now);
        for kind in before(self.beginning) {
            now = match session.warn_at {
                Some(warn_at) if kind == EventKind::TimePassed => warn_at,
                _ => now.after(Duration::from_secs(1)),
            };
            session = step(&session, now, &kind);
        }
        (session, now)
    }

    /// All that happens in it, in order, from its beginning on.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let (mut session, mut now) = self.begun();
        let mut steps = Vec::new();
        for draw in &self.draws {
            let (at, kind) = match draw {
                Draw::Wild { at: seconds, kind } => (at(*seconds), kind.clone()),
                Draw::Likely { pick, gap } => {
                    let later = now.after(Duration::from_secs(*gap));
                    let Some((at, kind)) = pick_of(likely(&session, later), *pick) else { break };
                    now = at;
                    (at, kind)
                }
            };
            let after = step(&session, at, &kind);
            steps.push(Step { before: session, at, kind, after: after.clone() });
            session = after;
        }
        steps
    }

    /// The session at the end of it.
    pub(crate) fn last(&self) -> Session {
        self.steps().pop().map_or_else(|| self.begun().0, |step| step.after)
    }
}

/// What came before.
fn before(beginning: Beginning) -> Vec<EventKind> {
    let machine = |incarnation| {
        vec![
            EventKind::MachineStarted { incarnation, facts: facts() },
            EventKind::RoomOpened,
            EventKind::BotReady { incarnation },
            EventKind::BotPresent,
        ]
    };
    let live = || [vec![EventKind::Admitted], machine(1), vec![EventKind::ClientJoined]].concat();
    let broke = EventKind::BotBroke { incarnation: 1, detail: "a test".into() };
    let gone = EventKind::MachineDestroyed { incarnation: 1 };
    match beginning {
        Beginning::Accepted => vec![],
        Beginning::Live => live(),
        Beginning::Warned => {
            [live(), vec![EventKind::TimePassed, EventKind::WarningDelivered]].concat()
        }
        Beginning::Replaced => [live(), vec![broke]].concat(),
        Beginning::LiveAgain => [live(), vec![broke, gone], machine(2)].concat(),
    }
}

/// What may well happen at `now`, by weight: answers to what is owed, what people do, and what
/// time does. Nothing once nothing is owed.
fn likely(session: &Session, now: Time) -> Vec<(u32, Time, EventKind)> {
    let mut likely = Vec::new();
    let every = every_event_of(session.incarnation.max(1));
    let mut add = |weight, at, name: &str| {
        let found = every.iter().find(|(other, _)| *other == name);
        let (_, kind) = found.unwrap_or_else(|| panic!("there is no event {name}"));
        likely.push((weight, at, kind.clone()));
    };
    for duty in owed(session) {
        let answers: &[(u32, &str)] = match duty {
            Duty::Admit => &[(60, "Admitted"), (4, "ClientJoined"), (1, "ClientOverflow")],
            Duty::EnsureMachine => {
                &[(20, "MachineMade"), (60, "MachineStarted"), (6, "MachineFailed")]
            }
            Duty::OpenRoom => &[(40, "RoomOpened"), (2, "RoomFailed")],
            Duty::Attend => &[
                (40, "BotReady"),
                (4, "Audible"),
                (4, "Measured"),
                (4, "BotNotReady"),
                (2, "BotExited(0)"),
                (4, "BotExited(1)"),
                (4, "BotExited(oom)"),
                (4, "BotBroke"),
                (4, "MachineLost"),
                (1, "ClientOverflow"),
            ],
            Duty::WatchRoom => {
                &[(20, "BotPresent"), (40, "ClientJoined"), (8, "RoomEmpty"), (2, "ClientLeft")]
            }
            Duty::Warn => &[(40, "WarningDelivered"), (20, "WarningFailed")],
            Duty::DestroyMachine => &[(60, "MachineDestroyed")],
            Duty::CloseRoom => &[(60, "RoomClosed")],
            Duty::WakeAt(wake) => {
                add(8, wake.max(now), "TimePassed");
                &[(1, "EndRequested"), (1, "PlaceLost")]
            }
        };
        for (weight, name) in answers {
            add(*weight, now, name);
        }
    }
    likely
}

fn pick_of(likely: Vec<(u32, Time, EventKind)>, pick: u32) -> Option<(Time, EventKind)> {
    let all: u32 = likely.iter().map(|(weight, ..)| weight).sum();
    let mut left = pick.checked_rem(all)?;
    for (weight, at, kind) in likely {
        match left.checked_sub(weight) {
            Some(rest) => left = rest,
            None => return Some((at, kind)),
        }
    }
    unreachable!("what is left is less than all weights together")
}
