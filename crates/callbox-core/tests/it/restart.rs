//! A bot that dies in its call: the end, or a fresh machine.

use callbox_core::{
    Applied, BotExit, Denied, Duty, EventKind, MachineState, ReadyWhen, Session, SessionSpec,
    StateKind, apply, owed,
};

use crate::world::{RESTARTS, accepted, at, event, facts, spec, tenacious};

fn step(session: &Session, seconds: i64, kind: EventKind) -> Session {
    match apply(session, &event(seconds, kind)).expect("the event is legal here") {
        Applied::Changed(next) => *next,
        Applied::Unchanged => session.clone(),
    }
}

fn started(incarnation: u32) -> EventKind {
    EventKind::MachineStarted { incarnation, facts: facts() }
}

fn died(incarnation: u32) -> EventKind {
    let exit = BotExit { code: Some(1), signal: None, out_of_memory: false };
    EventKind::BotExited { incarnation, exit }
}

fn live(session: &Session) -> Session {
    let session = step(session, 1, EventKind::Admitted);
    let session = step(&session, 2, EventKind::RoomOpened);
    let session = step(&session, 2, started(1));
    let session = step(&session, 3, EventKind::BotReady { incarnation: 1 });
    step(&session, 4, EventKind::ClientJoined)
}

/// From the death of machine `n` to the call going on in the next one.
fn replaced(session: &Session, seconds: i64) -> Session {
    let n = session.incarnation;
    let session = step(session, seconds, died(n));
    assert_eq!(
        (session.state.kind(), session.machine),
        (StateKind::Starting, MachineState::Failed)
    );
    assert!(owed(&session).contains(&Duty::DestroyMachine), "first the old one goes");
    assert!(!owed(&session).contains(&Duty::CloseRoom), "the room stays");
    let session = step(&session, seconds, EventKind::MachineDestroyed { incarnation: n });
    assert_eq!((session.incarnation, session.machine), (n + 1, MachineState::Wanted));
    let session = step(&session, seconds, started(n + 1));
    let session = step(&session, seconds, EventKind::BotReady { incarnation: n + 1 });
    assert_eq!(session.state.kind(), StateKind::Live, "the client never left");
    session
}

fn code(session: &Session) -> Option<&'static str> {
    session.state.why().map(|why| why.code.as_str())
}

#[test]
fn without_a_policy_it_is_the_end() {
    assert_eq!(code(&step(&live(&accepted()), 10, died(1))), Some("bot-failed"));
}

#[test]
fn so_many_fresh_machines_within_so_long_and_then_the_end() {
    let twice = replaced(&replaced(&live(&tenacious()), 10), 20);
    assert_eq!((twice.incarnation, twice.restarted.as_slice()), (3, [at(10), at(20)].as_slice()));
    assert_eq!(code(&step(&twice, 109, died(3))), Some("bot-failed"), "a third within 100 s");
    let later = replaced(&twice, 115);
    assert_eq!(later.restarted, [at(20), at(115)], "what was long ago does not count");
}

#[test]
fn a_bot_that_never_was_ready_is_not_tried_again() {
    let starting = step(&tenacious(), 1, EventKind::Admitted);
    let joining = step(&starting, 2, started(1));
    assert_eq!(code(&step(&joining, 3, died(1))), Some("bot-failed"));
}

#[test]
fn a_bot_that_finishes_ends_the_call() {
    let exit = BotExit { code: Some(0), signal: None, out_of_memory: false };
    let finished = step(&live(&tenacious()), 9, EventKind::BotExited { incarnation: 1, exit });
    assert_eq!(code(&finished), Some("bot-finished"));
}

#[test]
fn news_of_the_machine_before_changes_nothing() {
    let session = replaced(&live(&tenacious()), 10);
    for stale in [died(1), EventKind::MachineDestroyed { incarnation: 1 }, started(1)] {
        assert_eq!(apply(&session, &event(11, stale)), Err(Denied::OtherIncarnation));
    }
}

#[test]
fn a_restart_does_not_lengthen_the_call() {
    let session = replaced(&live(&tenacious()), 590);
    assert_eq!(session.deadline_at, at(604));
    let dying = step(&session, 600, died(2));
    assert_eq!(code(&step(&dying, 604, EventKind::TimePassed)), Some("max-duration"));
}

#[test]
fn who_is_alone_long_enough_ends_and_who_comes_back_in_time_goes_on() {
    let alone = step(&live(&accepted()), 100, EventKind::RoomEmpty);
    assert!(owed(&alone).contains(&Duty::WakeAt(at(140))));
    assert_eq!(code(&step(&alone, 140, EventKind::TimePassed)), Some("alone"));
    let back = step(&alone, 139, EventKind::ClientJoined);
    assert_eq!((code(&step(&back, 141, EventKind::TimePassed)), back.alone_at), (None, None));
}

#[test]
fn what_counts_as_ready_is_configured_and_all_of_it_is_written_down() {
    let seen = [(ReadyWhen::Machine, 2), (ReadyWhen::Room, 3), (ReadyWhen::Bot, 4)];
    for (ready_when, second) in seen {
        let session =
            Session::accepted(SessionSpec { ready_when, restarts: RESTARTS, ..spec() }, at(0));
        let session = step(&session, 1, EventKind::Admitted);
        let session = step(&session, 2, started(1));
        let session = step(&session, 3, EventKind::BotPresent);
        let session = step(&session, 4, EventKind::BotReady { incarnation: 1 });
        let moments = session.moments;
        assert_eq!(moments.ready, Some(at(second)), "{ready_when:?}");
        let all = (moments.started, moments.bot_present, moments.bot_said);
        assert_eq!(all, (Some(at(2)), Some(at(3)), Some(at(4))));
    }
}

#[test]
fn a_place_that_is_lost_takes_its_machine_along() {
    let session = step(&live(&tenacious()), 200, EventKind::PlaceLost { detail: "silent".into() });
    assert_eq!((code(&session), session.machine), (Some("machine-lost"), MachineState::Gone));
    assert!(owed(&session).contains(&Duty::CloseRoom));
}
