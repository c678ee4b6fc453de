//! A call that reaches its longest time is warned of it, once.

use std::time::Duration;

use callbox_core::{Applied, Duty, EventKind, Limits, Session, Time, Warning, apply, owed};

use crate::world::{LIMITS, accepted, at, event, facts};

fn step(session: &Session, seconds: i64, kind: EventKind) -> Session {
    match apply(session, &event(seconds, kind)).expect("the event is legal here") {
        Applied::Changed(next) => *next,
        Applied::Unchanged => session.clone(),
    }
}

/// Live since second 4.
fn live(limits: Limits) -> Session {
    let started = EventKind::MachineStarted { incarnation: 1, facts: facts() };
    let session = Session { limits, ..accepted() };
    let session = step(&session, 1, EventKind::Admitted);
    let session = step(&session, 2, started);
    let session = step(&session, 3, EventKind::BotReady { incarnation: 1 });
    step(&session, 4, EventKind::ClientJoined)
}

fn wakes_at(session: &Session) -> Time {
    let wake = owed(session).into_iter().find_map(|duty| match duty {
        Duty::WakeAt(at) => Some(at),
        _ => None,
    });
    wake.expect("what lives is looked at again")
}

#[test]
fn it_is_due_before_the_deadline_and_owed_until_it_is_answered() {
    let session = live(LIMITS);
    assert_eq!((wakes_at(&session), session.deadline_at), (at(544), at(604)));
    let early = step(&session, 543, EventKind::TimePassed);
    assert_eq!(early, session);

    let due = step(&session, 544, EventKind::TimePassed);
    assert!(owed(&due).contains(&Duty::Warn));
    assert_eq!(wakes_at(&due), due.deadline_at, "whoever takes it up again sees that it is owed");

    for (answer, kept) in [
        (EventKind::WarningDelivered, Warning::Delivered),
        (EventKind::WarningFailed { detail: "no answer".into() }, Warning::GivenUp),
    ] {
        let answered = step(&due, 545, answer);
        assert_eq!((answered.warning, owed(&answered).contains(&Duty::Warn)), (kept, false));
        let later = step(&answered, 600, EventKind::TimePassed);
        assert_eq!(later, answered, "it is warned of once");
        let ended = step(&answered, 604, EventKind::TimePassed);
        assert_eq!(ended.state.why().map(|why| why.code.as_str()), Some("max-duration"));
    }
}

#[test]
fn a_short_call_is_warned_at_its_half_and_zero_is_never() {
    let live_for = |seconds, warn| Limits {
        live: Duration::from_secs(seconds),
        warn: Duration::from_secs(warn),
        ..LIMITS
    };
    assert_eq!(live(live_for(30, 60)).warn_at, Some(at(4 + 15)));
    assert_eq!(live(live_for(600, 0)).warn_at, None);
}

#[test]
fn a_deadline_that_was_slept_through_is_not_warned_of() {
    let ended = step(&live(LIMITS), 700, EventKind::TimePassed);
    assert_eq!((ended.warning, owed(&ended).contains(&Duty::Warn)), (Warning::Ahead, false));
}
