//! What an event makes of a session.
//!
//! One arm for every pair of state and event, no wildcard over events: a new event must be
//! placed in every state before this compiles. Three answers, so that repeats are harmless:
//! *changed*, *already so*, *denied because*.

use crate::{
    BotExit, EndCode, EndReason, Event, EventKind, Limits, MachineFacts, MachineState, RoomState,
    Session, State, Time, Warning,
};

/// What became of an event that was not denied.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// The row to save.
    Changed(Box<Session>),
    /// The row says so already: nothing to save.
    Unchanged,
}

/// Why an event cannot happen to the session as it is. Not an error of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denied {
    /// It is over; nothing more can happen.
    #[error("the session has ended")]
    Ended,
    /// It is on its way out.
    #[error("the session is ending")]
    Ending,
    /// Nothing was asked of anybody yet, so nobody can answer.
    #[error("the session was not admitted yet")]
    NotAdmitted,
    /// The event is about another machine of the session than the current one.
    #[error("the event is about an earlier machine of the session")]
    OtherIncarnation,
    /// Only an ending session has its machine and room taken away.
    #[error("the session is not ending")]
    NotEnding,
}

/// What `event` makes of `session`.
///
/// # Errors
/// [`Denied`] when it cannot happen now; the row stays as it is.
pub fn apply(session: &Session, event: &Event) -> Result<Applied, Denied> {
    let mut next = session.clone();
    match &session.state {
        State::Queued => queued(&mut next, event)?,
        State::Starting | State::Joining | State::Live => active(&mut next, event)?,
        State::Ending { why } => ending(&mut next, event, why)?,
        State::Ended { .. } => ended(event)?,
    }
    Ok(if next == *session { Applied::Unchanged } else { Applied::Changed(Box::new(next)) })
}

fn queued(next: &mut Session, event: &Event) -> Result<(), Denied> {
    use EventKind as E;
    match &event.kind {
        E::Admitted => admit(next, event.at),
        E::EndRequested(why) => end(next, event.at, why.clone()),
        E::ClientLeft { detail } => {
            end(next, event.at, EndReason::new(EndCode::ClientLeft, detail))
        }
        E::ClientOverflow { detail } => {
            end(next, event.at, EndReason::new(EndCode::ClientOverflow, detail));
        }
        E::TimePassed => time_passed(next, event.at),
        // A websocket client may be quicker than admission.
        E::ClientJoined => {
            next.moments.joined.get_or_insert(event.at);
        }
        E::MachineStarted { .. }
        | E::MachineFailed { .. }
        | E::MachineLost { .. }
        | E::RoomOpened
        | E::RoomFailed { .. }
        | E::BotReady
        | E::BotNotReady { .. }
        | E::BotExited(_)
        | E::Audible
        | E::WarningDelivered
        | E::WarningFailed { .. }
        | E::Measured(_) => return Err(Denied::NotAdmitted),
        E::MachineDestroyed | E::RoomClosed => return Err(Denied::NotEnding),
    }
    Ok(())
}

fn active(next: &mut Session, event: &Event) -> Result<(), Denied> {
    use EventKind as E;
    let at = event.at;
    match &event.kind {
        E::Admitted => {}
        E::MachineStarted { incarnation, facts } => {
            check_incarnation(next, *incarnation)?;
            machine_started(next, at, facts);
        }
        E::MachineFailed { incarnation, reason } => {
            check_incarnation(next, *incarnation)?;
            // Still wanted, so that it is destroyed by name: a start that failed half-way may
            // have left something, and destroying nothing costs little.
            end(next, at, reason.clone());
        }
        E::MachineLost { incarnation, detail } => {
            check_incarnation(next, *incarnation)?;
            end(next, at, EndReason::new(EndCode::MachineLost, detail));
        }
        E::RoomOpened => next.room = RoomState::Open,
        E::RoomFailed { detail } => {
            next.room = RoomState::Gone;
            end(next, at, EndReason::new(EndCode::RoomFailed, detail));
        }
        E::BotReady => {
            next.moments.ready.get_or_insert(at);
            settle(next, at);
        }
        E::BotNotReady { detail } => end(next, at, EndReason::new(EndCode::BotNotReady, detail)),
        E::BotExited(exit) => {
            let why = exit_reason(exit, next.moments.ready.is_some());
            end(next, at, why);
        }
        E::ClientJoined => {
            next.moments.joined.get_or_insert(at);
            settle(next, at);
        }
        E::ClientLeft { detail } => end(next, at, EndReason::new(EndCode::ClientLeft, detail)),
        E::ClientOverflow { detail } => {
            end(next, at, EndReason::new(EndCode::ClientOverflow, detail))
        }
        E::Audible => {
            next.moments.audible.get_or_insert(at);
        }
        E::WarningDelivered => warned(next, Warning::Delivered),
        E::WarningFailed { .. } => warned(next, Warning::GivenUp),
        E::Measured(seen) => next.usage = Some(*seen),
        E::EndRequested(why) => end(next, at, why.clone()),
        E::TimePassed => time_passed(next, at),
        E::MachineDestroyed | E::RoomClosed => return Err(Denied::NotEnding),
    }
    Ok(())
}

fn ending(next: &mut Session, event: &Event, why: &EndReason) -> Result<(), Denied> {
    use EventKind as E;
    match &event.kind {
        E::MachineDestroyed => next.machine = gone_machine(next.machine),
        E::RoomClosed => next.room = gone_room(next.room),
        E::RoomFailed { .. } => next.room = gone_room(next.room),
        E::Measured(seen) => next.usage = Some(*seen),
        // Too late to matter, and no news: it is ending already.
        E::EndRequested(_)
        | E::ClientLeft { .. }
        | E::ClientOverflow { .. }
        | E::BotExited(_)
        | E::BotNotReady { .. }
        | E::MachineFailed { .. }
        | E::MachineLost { .. }
        | E::WarningDelivered
        | E::WarningFailed { .. } => {}
        // Overdue: it goes on, and is reported once in every span.
        E::TimePassed => {
            if event.at >= next.deadline_at {
                next.deadline_at = event.at.after(next.limits.ending);
            }
        }
        E::Admitted
        | E::MachineStarted { .. }
        | E::RoomOpened
        | E::BotReady
        | E::ClientJoined
        | E::Audible => return Err(Denied::Ending),
    }
    finish_if_clean(next, event.at, why);
    Ok(())
}

fn ended(event: &Event) -> Result<(), Denied> {
    use EventKind as E;
    match &event.kind {
        // Repeats of what brought it here, and wishes that are already fulfilled.
        E::MachineDestroyed
        | E::RoomClosed
        | E::EndRequested(_)
        | E::ClientLeft { .. }
        | E::TimePassed => Ok(()),
        E::Admitted
        | E::MachineStarted { .. }
        | E::MachineFailed { .. }
        | E::MachineLost { .. }
        | E::RoomOpened
        | E::RoomFailed { .. }
        | E::BotReady
        | E::BotNotReady { .. }
        | E::BotExited(_)
        | E::ClientJoined
        | E::ClientOverflow { .. }
        | E::Audible
        | E::WarningDelivered
        | E::WarningFailed { .. }
        | E::Measured(_) => Err(Denied::Ended),
    }
}

/// The intention is written before anything is bought: from here on machine and room may exist.
fn admit(next: &mut Session, at: Time) {
    next.state = State::Starting;
    next.incarnation = 1;
    next.machine = MachineState::Wanted;
    next.room = RoomState::Wanted;
    next.deadline_at = at.after(next.limits.start);
    next.moments.admitted.get_or_insert(at);
}

fn machine_started(next: &mut Session, at: Time, facts: &MachineFacts) {
    if next.machine == MachineState::Running {
        return;
    }
    next.machine = MachineState::Running;
    next.facts = Some(facts.clone());
    next.moments.started.get_or_insert(at);
    next.state = State::Joining;
    next.deadline_at = at.after(next.limits.ready);
    settle(next, at);
}

/// Moves a session on whose missing part may just have arrived.
fn settle(next: &mut Session, at: Time) {
    if next.state != State::Joining {
        return;
    }
    match (next.moments.ready, next.moments.joined) {
        (Some(_), Some(_)) => {
            next.state = State::Live;
            next.deadline_at = at.after(next.limits.live);
            next.warn_at = warn_at(next, at);
        }
        (Some(ready), None) => next.deadline_at = ready.after(next.limits.join),
        (None, _) => {}
    }
}

/// A call that is shorter than the warning is warned of at its half: told at its beginning, it
/// would begin with its end.
fn warn_at(session: &Session, live_since: Time) -> Option<Time> {
    let Limits { live, warn, .. } = session.limits;
    (!warn.is_zero()).then(|| live_since.after(live - warn.min(live / 2)))
}

fn warned(next: &mut Session, outcome: Warning) {
    if next.warning == Warning::Due {
        next.warning = outcome;
    }
}

fn time_passed(next: &mut Session, at: Time) {
    if at < next.deadline_at {
        let due = next.state == State::Live && next.warn_at.is_some_and(|warn_at| at >= warn_at);
        if due && next.warning == Warning::Ahead {
            next.warning = Warning::Due;
        }
        return;
    }
    let (code, what, span) = match (&next.state, next.moments.ready) {
        (State::Queued, _) => {
            (EndCode::QueueTimeout, "there was no room for its machine", next.limits.queued)
        }
        (State::Starting, _) => {
            (EndCode::StartTimeout, "the machine did not start", next.limits.start)
        }
        (State::Joining, None) => {
            (EndCode::ReadyTimeout, "the bot did not become ready", next.limits.ready)
        }
        (State::Joining, Some(_)) => (EndCode::JoinTimeout, "no client joined", next.limits.join),
        (State::Live, _) => {
            (EndCode::MaxDuration, "the call reached its longest time", next.limits.live)
        }
        (State::Ending { .. } | State::Ended { .. }, _) => return,
    };
    end(next, at, EndReason::new(code, format!("{what} within {} s", span.as_secs_f64())));
}

fn end(next: &mut Session, at: Time, why: EndReason) {
    next.state = State::Ending { why: why.clone() };
    next.deadline_at = at.after(next.limits.ending);
    finish_if_clean(next, at, &why);
}

fn finish_if_clean(next: &mut Session, at: Time, why: &EndReason) {
    let machine_gone = matches!(next.machine, MachineState::None | MachineState::Gone);
    let room_gone = matches!(next.room, RoomState::None | RoomState::Gone);
    if machine_gone && room_gone {
        next.state = State::Ended { why: why.clone() };
        next.moments.ended.get_or_insert(at);
    }
}

fn gone_machine(state: MachineState) -> MachineState {
    match state {
        MachineState::None => MachineState::None,
        MachineState::Wanted | MachineState::Running | MachineState::Gone => MachineState::Gone,
    }
}

fn gone_room(state: RoomState) -> RoomState {
    match state {
        RoomState::None => RoomState::None,
        RoomState::Wanted | RoomState::Open | RoomState::Gone => RoomState::Gone,
    }
}

fn check_incarnation(session: &Session, incarnation: u32) -> Result<(), Denied> {
    if session.incarnation == incarnation { Ok(()) } else { Err(Denied::OtherIncarnation) }
}

/// A program that ends in peace before it was ready has not done what it was started for.
fn exit_reason(exit: &BotExit, ready: bool) -> EndReason {
    match exit {
        BotExit { out_of_memory: true, .. } => EndReason::new(
            EndCode::BotOutOfMemory,
            "the bot was ended by the kernel because the machine's memory was used up",
        ),
        BotExit { code: Some(0), .. } if ready => {
            EndReason::new(EndCode::BotFinished, "the bot finished")
        }
        BotExit { code: Some(0), .. } => {
            EndReason::new(EndCode::BotNotReady, "the bot finished before it was ready")
        }
        BotExit { code: Some(code), .. } => {
            EndReason::new(EndCode::BotFailed, format!("the bot exited with code {code}"))
        }
        BotExit { signal: Some(signal), .. } => {
            EndReason::new(EndCode::BotFailed, format!("the bot was ended by signal {signal}"))
        }
        BotExit { .. } => EndReason::new(EndCode::BotFailed, "the bot ended in an unknown way"),
    }
}
