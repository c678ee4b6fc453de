//! What holds in any life of a session, possible or not.

use std::{cell::RefCell, collections::BTreeSet};

use crate::walk::{Step, lives, step};
use crate::world::{at, stop};
use callbox_core::{
    Duty, EndCode, EventKind, MachineState, RoomState, Session, State, StateKind, Warning, owed,
};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

/// Does what is owed, until nothing but waiting is; counts the steps.
fn do_duties(mut session: Session) -> (Session, usize) {
    for steps in 0.. {
        let duties = owed(&session);
        let kind = match duties.iter().find(|duty| !matches!(duty, Duty::WakeAt(_))) {
            Some(Duty::DestroyMachine) => {
                EventKind::MachineDestroyed { incarnation: session.incarnation }
            }
            Some(Duty::CloseRoom) => EventKind::RoomClosed,
            _ => return (session, steps),
        };
        session = step(&session, at(30_000), &kind);
        assert!(steps < 10, "duties do not come to an end: {duties:?}");
    }
    unreachable!("the loop above returns or fails")
}

/// Lives of a property: so many that each kind of life is among them; a second takes some.
const CASES: u32 = 1024;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn ended_owes_nothing_and_leaves_nothing(life in lives()) {
        for Step { after: session, .. } in life.steps() {
            if matches!(session.state, State::Ended { .. }) {
                prop_assert!(owed(&session).is_empty());
                prop_assert!(matches!(session.machine, MachineState::None | MachineState::Gone));
                prop_assert!(matches!(session.room, RoomState::None | RoomState::Gone));
                prop_assert!(session.moments.ended.is_some());
            } else {
                // Never later than the deadline.
                let wakes = |duty: &Duty| matches!(duty, Duty::WakeAt(at) if *at <= session.deadline_at);
                prop_assert!(owed(&session).iter().any(wakes));
            }
        }
    }

    #[test]
    fn states_move_forward_but_for_a_fresh_machine(life in lives()) {
        for Step { before, after, .. } in life.steps() {
            if after.state.kind() < before.state.kind() {
                prop_assert_eq!((after.state.kind(), after.machine), (StateKind::Starting, MachineState::Failed));
                prop_assert!(after.restarted.len() <= after.restarts.most as usize);
            }
        }
    }

    #[test]
    fn the_next_machine_comes_when_the_one_before_is_gone(life in lives()) {
        for Step { before, kind, after, .. } in life.steps() {
            if after.incarnation != before.incarnation {
                prop_assert_eq!(after.incarnation, before.incarnation + 1);
                let gone = kind == EventKind::MachineDestroyed { incarnation: before.incarnation };
                prop_assert!(gone || before.machine == MachineState::None);
            }
            // Neither made nor attended while it is to go.
            let duties = owed(&after);
            let makes = |duty: &Duty| matches!(duty, Duty::EnsureMachine | Duty::Attend);
            prop_assert!(!(duties.contains(&Duty::DestroyMachine) && duties.iter().any(makes)));
        }
    }

    #[test]
    fn restarts_move_no_longest_call(life in lives()) {
        for Step { before, after, .. } in life.steps() {
            prop_assert!(before.live_until.is_none() || after.live_until == before.live_until);
            if let (Some(until), false) = (after.live_until, after.state.why().is_some()) {
                let wakes = |duty: &Duty| matches!(duty, Duty::WakeAt(at) if *at <= until);
                prop_assert!(owed(&after).iter().any(wakes));
            }
        }
    }

    #[test]
    fn a_repeated_event_changes_nothing_more(life in lives()) {
        for Step { at, kind, after, .. } in life.steps() {
            // A deadline that has passed moves by its own repetition; everything else is at rest.
            if kind != EventKind::TimePassed {
                prop_assert_eq!(&step(&after, at, &kind), &after);
            }
        }
    }

    #[test]
    fn whatever_happened_a_stop_ends_it_in_two_steps(life in lives()) {
        let stopped = step(&life.last(), at(25_000), &EventKind::EndRequested(stop()));
        let (ended, steps) = do_duties(stopped);
        prop_assert_eq!(ended.state.kind(), StateKind::Ended);
        prop_assert!(steps <= 2);
    }

    #[test]
    fn who_waits_has_nothing_and_no_bot_is_warned_twice(life in lives()) {
        // By the number of its machine: a fresh one was not told what the one before it was.
        let mut warned = None;
        for Step { after: session, .. } in life.steps() {
            if session.state == State::Queued {
                prop_assert_eq!((session.machine, session.room), (MachineState::None, RoomState::None));
                prop_assert_eq!(owed(&session), vec![Duty::Admit, Duty::WakeAt(session.deadline_at)]);
            } else {
                prop_assert!(!owed(&session).contains(&Duty::Admit));
            }
            let owes = owed(&session).contains(&Duty::Warn);
            prop_assert!(!(owes && warned == Some(session.incarnation)));
            if matches!(session.warning, Warning::Delivered | Warning::GivenUp) {
                warned = Some(session.incarnation);
            }
            prop_assert!(!owes || session.state == State::Live);
        }
    }

    #[test]
    fn a_machine_is_wanted_before_it_is_owed(life in lives()) {
        for Step { after: session, .. } in life.steps() {
            if owed(&session).contains(&Duty::EnsureMachine) {
                prop_assert!(session.machine == MachineState::Wanted);
                prop_assert!(session.machine_name().is_some());
            }
        }
    }
}

/// Where a session is, as finely as it matters for what may go wrong.
fn place(session: &Session) -> String {
    let kind = session.state.kind().as_str();
    let more = match (&session.state, session.machine, session.warning) {
        (State::Starting, MachineState::Failed, _) => ", replaced",
        (State::Joining, ..) if session.ready => ", ready",
        (State::Live, ..) if session.alone_at.is_some() => ", alone",
        (State::Live, _, Warning::Due) => ", to be warned",
        (State::Live, _, Warning::Delivered | Warning::GivenUp) => ", warned",
        _ => "",
    };
    let again = if session.incarnation > 1 { ", again" } else { "" };
    format!("{kind}{more}{again}")
}

/// What the lives above must come by, or they say nothing. Of transitions, those between states.
const TRANSITIONS: [(StateKind, StateKind); 12] = [
    (StateKind::Queued, StateKind::Starting),
    (StateKind::Queued, StateKind::Ended),
    (StateKind::Starting, StateKind::Joining),
    (StateKind::Starting, StateKind::Live),
    (StateKind::Starting, StateKind::Ending),
    (StateKind::Joining, StateKind::Starting),
    (StateKind::Joining, StateKind::Live),
    (StateKind::Joining, StateKind::Ending),
    (StateKind::Live, StateKind::Starting),
    (StateKind::Live, StateKind::Ending),
    (StateKind::Ending, StateKind::Ended),
    (StateKind::Live, StateKind::Live),
];
const PLACES: [&str; 19] = [
    "queued",
    "starting",
    "starting, again",
    "starting, replaced",
    "starting, replaced, again",
    "joining",
    "joining, again",
    "joining, ready",
    "joining, ready, again",
    "live",
    "live, again",
    "live, alone",
    "live, alone, again",
    "live, to be warned",
    "live, to be warned, again",
    "live, warned",
    "live, warned, again",
    "ending",
    "ended",
];
/// Those that the core gives by itself, and the one that `stop` has.
const CODES: [EndCode; 16] = [
    EndCode::Alone,
    EndCode::BotFailed,
    EndCode::BotFinished,
    EndCode::BotNotReady,
    EndCode::BotOutOfMemory,
    EndCode::ClientLeft,
    EndCode::ClientOverflow,
    EndCode::JoinTimeout,
    EndCode::MachineLost,
    EndCode::MaxDuration,
    EndCode::QueueTimeout,
    EndCode::ReadyTimeout,
    EndCode::RoomFailed,
    EndCode::StartFailed,
    EndCode::StartTimeout,
    EndCode::Stopped,
];

/// As many lives as each property above looks at, drawn alike but always the same ones, so that this
/// fails when the way they are drawn misses something, and never by chance.
#[test]
fn the_lives_that_are_looked_at_come_by_everything() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = ProptestConfig { failure_persistence: None, cases: CASES, ..Default::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let seen = RefCell::new((BTreeSet::new(), BTreeSet::new(), BTreeSet::new()));
    let looked = runner.run(&lives(), |life| {
        let (transitions, places, codes) = &mut *seen.borrow_mut();
        for Step { before, after, .. } in life.steps() {
            transitions.insert((before.state.kind(), after.state.kind()));
            places.extend([place(&before), place(&after)]);
            codes.extend(after.state.why().map(|why| why.code.as_str()));
        }
        Ok(())
    });
    looked.expect("nothing is asserted in there");
    let (transitions, places, codes) = seen.into_inner();
    let missed: Vec<_> = TRANSITIONS.iter().filter(|one| !transitions.contains(one)).collect();
    assert!(missed.is_empty(), "no session went {missed:?}");
    let missed: Vec<_> = PLACES.iter().filter(|one| !places.contains(**one)).collect();
    assert!(missed.is_empty(), "no session was {missed:?}");
    let missed: Vec<_> = CODES.iter().filter(|one| !codes.contains(one.as_str())).collect();
    assert!(missed.is_empty(), "no session ended for {missed:?}");
}
