//! What the world still owes a session.

use crate::{MachineState, RoomState, Session, State, Time, Warning};

/// One thing to do for a session. Every duty is idempotent: after a crash it is simply done again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Let it in as soon as there is room and nobody is before it.
    Admit,
    /// Have the provider run the machine, by name.
    EnsureMachine,
    /// Have the transport make the room.
    OpenRoom,
    /// Give the machine its session's data once, then listen to what it says.
    Attend,
    /// Look who is in the room.
    WatchRoom,
    /// Tell the bot that its call will end.
    Warn,
    /// Have the provider end the machine, by name, whether or not it was ever made.
    DestroyMachine,
    /// Have the transport end the room, whether or not it was ever made.
    CloseRoom,
    /// Look at the session again at this time at the latest.
    WakeAt(Time),
}

/// What is owed to `session`. Depends on the row alone; asking twice gives the same answer.
pub fn owed(session: &Session) -> Vec<Duty> {
    let mut duties = Vec::new();
    match session.state {
        State::Queued => duties.push(Duty::Admit),
        State::Starting | State::Joining | State::Live => {
            if session.room == RoomState::Wanted {
                duties.push(Duty::OpenRoom);
            }
            match session.machine {
                MachineState::Wanted => duties.push(Duty::EnsureMachine),
                MachineState::Running => duties.push(Duty::Attend),
                MachineState::Failed => duties.push(Duty::DestroyMachine),
                MachineState::None | MachineState::Gone => {}
            }
            if session.room == RoomState::Open {
                duties.push(Duty::WatchRoom);
            }
            if session.state == State::Live && session.warning == Warning::Due {
                duties.push(Duty::Warn);
            }
        }
        State::Ending { .. } => {
            match session.machine {
                MachineState::Wanted | MachineState::Running | MachineState::Failed => {
                    duties.push(Duty::DestroyMachine);
                }
                MachineState::None | MachineState::Gone => {}
            }
            if matches!(session.room, RoomState::Wanted | RoomState::Open) {
                duties.push(Duty::CloseRoom);
            }
        }
        State::Ended { .. } => return duties,
    }
    duties.push(Duty::WakeAt(wake_at(session)));
    duties
}

/// The first of all that may become due.
fn wake_at(session: &Session) -> Time {
    let mut at = session.deadline_at;
    if matches!(session.state, State::Starting | State::Joining | State::Live) {
        at = [session.alone_at, session.live_until].into_iter().flatten().fold(at, Time::min);
    }
    // The warning comes before the deadline, once.
    match (&session.state, session.warning, session.warn_at) {
        (State::Live, Warning::Ahead, Some(warn_at)) => at.min(warn_at),
        _ => at,
    }
}
