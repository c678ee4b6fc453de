//! What holds after any sequence of events, possible or not.

use crate::world::{accepted, event, every_event};
use callbox_core::{
    Applied, Duty, EventKind, MachineState, RoomState, Session, State, StateKind, Warning, apply,
    owed,
};
use proptest::prelude::*;

fn any_events() -> impl Strategy<Value = Vec<(i64, EventKind)>> {
    let kinds: Vec<EventKind> = every_event().into_iter().map(|(_, kind)| kind).collect();
    prop::collection::vec((0..2_000i64, prop::sample::select(kinds)), 0..40)
}

fn step(session: &Session, seconds: i64, kind: &EventKind) -> Session {
    match apply(session, &event(seconds, kind.clone())) {
        Ok(Applied::Changed(next)) => *next,
        Ok(Applied::Unchanged) | Err(_) => session.clone(),
    }
}

/// Does what is owed, until nothing but waiting is; counts the steps.
fn do_duties(mut session: Session) -> (Session, usize) {
    for steps in 0.. {
        let duties = owed(&session);
        let kind = match duties.iter().find(|duty| !matches!(duty, Duty::WakeAt(_))) {
            Some(Duty::DestroyMachine) => EventKind::MachineDestroyed,
            Some(Duty::CloseRoom) => EventKind::RoomClosed,
            _ => return (session, steps),
        };
        session = step(&session, 3_000, &kind);
        assert!(steps < 10, "duties do not come to an end: {duties:?}");
    }
    unreachable!("the loop above returns or fails")
}

proptest! {
    #[test]
    fn ended_owes_nothing_and_leaves_nothing(events in any_events()) {
        let mut session = accepted();
        for (seconds, kind) in events {
            session = step(&session, seconds, &kind);
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
    fn states_only_move_forward(events in any_events()) {
        let mut session = accepted();
        for (seconds, kind) in events {
            let next = step(&session, seconds, &kind);
            prop_assert!(next.state.kind() >= session.state.kind());
            session = next;
        }
    }

    #[test]
    fn a_repeated_event_changes_nothing_more(events in any_events()) {
        let mut session = accepted();
        for (seconds, kind) in events {
            let once = step(&session, seconds, &kind);
            // A deadline that has passed moves by its own repetition; everything else is at rest.
            if kind != EventKind::TimePassed {
                prop_assert_eq!(&step(&once, seconds, &kind), &once);
            }
            session = once;
        }
    }

    #[test]
    fn whatever_happened_a_stop_ends_it_in_two_steps(events in any_events()) {
        let mut session = accepted();
        for (seconds, kind) in events {
            session = step(&session, seconds, &kind);
        }
        let (ended, steps) = do_duties(step(&session, 2_500, &EventKind::EndRequested(crate::world::stop())));
        prop_assert_eq!(ended.state.kind(), StateKind::Ended);
        prop_assert!(steps <= 2);
    }

    #[test]
    fn who_waits_has_nothing_and_who_was_warned_is_not_warned_again(events in any_events()) {
        let mut session = accepted();
        let mut warned = false;
        for (seconds, kind) in events {
            session = step(&session, seconds, &kind);
            if session.state == State::Queued {
                prop_assert_eq!((session.machine, session.room), (MachineState::None, RoomState::None));
                prop_assert_eq!(owed(&session), vec![Duty::Admit, Duty::WakeAt(session.deadline_at)]);
            } else {
                prop_assert!(!owed(&session).contains(&Duty::Admit));
            }
            let owes = owed(&session).contains(&Duty::Warn);
            prop_assert!(!(warned && owes));
            warned |= matches!(session.warning, Warning::Delivered | Warning::GivenUp);
            prop_assert!(!owes || session.state == State::Live);
        }
    }

    #[test]
    fn a_machine_is_wanted_before_it_is_owed(events in any_events()) {
        let mut session = accepted();
        for (seconds, kind) in events {
            session = step(&session, seconds, &kind);
            if owed(&session).contains(&Duty::EnsureMachine) {
                prop_assert!(session.machine == MachineState::Wanted);
                prop_assert!(session.machine_name().is_some());
            }
        }
    }
}
