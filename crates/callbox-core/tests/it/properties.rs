//! What holds after any sequence of events, possible or not.

use crate::world::{accepted, event, every_event_of, tenacious};
use callbox_core::{
    Applied, Duty, EventKind, MachineState, RoomState, Session, State, StateKind, Warning, apply,
    owed,
};
use proptest::prelude::*;

fn any_events() -> impl Strategy<Value = Vec<(i64, EventKind)>> {
    let all = (1..=4).flat_map(every_event_of).map(|(_, kind)| kind);
    let kinds: Vec<EventKind> = all.collect();
    prop::collection::vec((0..2_000i64, prop::sample::select(kinds)), 0..60)
}

fn any_session() -> impl Strategy<Value = Session> {
    prop::sample::select(vec![accepted(), tenacious()])
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
            Some(Duty::DestroyMachine) => {
                EventKind::MachineDestroyed { incarnation: session.incarnation }
            }
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
    fn ended_owes_nothing_and_leaves_nothing(first in any_session(), events in any_events()) {
        let mut session = first;
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
    fn states_move_forward_but_for_a_fresh_machine(first in any_session(), events in any_events()) {
        let mut session = first;
        for (seconds, kind) in events {
            let next = step(&session, seconds, &kind);
            if next.state.kind() < session.state.kind() {
                prop_assert_eq!((next.state.kind(), next.machine), (StateKind::Starting, MachineState::Failed));
                prop_assert!(next.restarted.len() <= next.restarts.most as usize);
            }
            session = next;
        }
    }

    #[test]
    fn the_next_machine_comes_when_the_one_before_is_gone(first in any_session(), events in any_events()) {
        let mut session = first;
        for (seconds, kind) in events {
            let next = step(&session, seconds, &kind);
            if next.incarnation != session.incarnation {
                prop_assert_eq!(next.incarnation, session.incarnation + 1);
                let gone = kind == EventKind::MachineDestroyed { incarnation: session.incarnation };
                prop_assert!(gone || session.machine == MachineState::None);
            }
            // Neither made nor attended while it is to go.
            let duties = owed(&next);
            let makes = |duty: &Duty| matches!(duty, Duty::EnsureMachine | Duty::Attend);
            prop_assert!(!(duties.contains(&Duty::DestroyMachine) && duties.iter().any(makes)));
            session = next;
        }
    }

    #[test]
    fn restarts_move_no_longest_call(first in any_session(), events in any_events()) {
        let mut session = first;
        for (seconds, kind) in events {
            let next = step(&session, seconds, &kind);
            prop_assert!(session.live_until.is_none() || next.live_until == session.live_until);
            if let (Some(until), false) = (next.live_until, next.state.why().is_some()) {
                let wakes = |duty: &Duty| matches!(duty, Duty::WakeAt(at) if *at <= until);
                prop_assert!(owed(&next).iter().any(wakes));
            }
            session = next;
        }
    }

    #[test]
    fn a_repeated_event_changes_nothing_more(first in any_session(), events in any_events()) {
        let mut session = first;
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
    fn whatever_happened_a_stop_ends_it_in_two_steps(first in any_session(), events in any_events()) {
        let mut session = first;
        for (seconds, kind) in events {
            session = step(&session, seconds, &kind);
        }
        let (ended, steps) = do_duties(step(&session, 2_500, &EventKind::EndRequested(crate::world::stop())));
        prop_assert_eq!(ended.state.kind(), StateKind::Ended);
        prop_assert!(steps <= 2);
    }

    #[test]
    fn who_waits_has_nothing_and_who_was_warned_is_not_warned_again(first in any_session(), events in any_events()) {
        let mut session = first;
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
    fn a_machine_is_wanted_before_it_is_owed(first in any_session(), events in any_events()) {
        let mut session = first;
        for (seconds, kind) in events {
            session = step(&session, seconds, &kind);
            if owed(&session).contains(&Duty::EnsureMachine) {
                prop_assert!(session.machine == MachineState::Wanted);
                prop_assert!(session.machine_name().is_some());
            }
        }
    }
}
