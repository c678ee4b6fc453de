//! What an event makes of a session.
//!
//! One arm for every pair of state and event, no wildcard over events: a new event must be
//! placed in every state before this compiles. Three answers, so that repeats are harmless:
//! *changed*, *already so*, *denied because*.

use crate::{
    BotExit, EndCode, EndReason, Event, EventKind, MachineFacts, MachineState, ReadyWhen,
    RoomState, Session, State, Time, Warning,
    deadline::{overdue, warn_at},
    restart::{failed, next_incarnation},
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
    /// Nobody asked for its machine or room to be taken away.
    #[error("nothing of the session is to go")]
    NotGoing,
    /// The machine is to go, and another one to come.
    #[error("the machine is being replaced")]
    Replaced,
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
        E::PlaceLost { detail } => place_lost(next, event.at, detail),
        E::TimePassed => time_passed(next, event.at),
        // A websocket client may be quicker than admission.
        E::ClientJoined => client_joined(next, event.at),
        E::RoomEmpty => client_gone(next, event.at),
        E::MachineMade { .. }
        | E::MachineStarted { .. }
        | E::MachineFailed { .. }
        | E::MachineLost { .. }
        | E::RoomOpened
        | E::RoomFailed { .. }
        | E::BotReady { .. }
        | E::BotPresent
        | E::BotNotReady { .. }
        | E::BotExited { .. }
        | E::BotBroke { .. }
        | E::Audible
        | E::WarningDelivered
        | E::WarningFailed { .. }
        | E::Measured(_) => return Err(Denied::NotAdmitted),
        E::MachineDestroyed { .. } | E::RoomClosed => return Err(Denied::NotGoing),
    }
    Ok(())
}

fn active(next: &mut Session, event: &Event) -> Result<(), Denied> {
    use EventKind as E;
    let at = event.at;
    if let Some(incarnation) = about(&event.kind) {
        check_incarnation(next, incarnation)?;
    }
    match &event.kind {
        E::Admitted => {}
        E::MachineMade { id, .. } => made(next, id)?,
        E::MachineStarted { facts, .. } => machine_started(next, at, facts)?,
        E::MachineFailed { reason, .. } => failed(next, at, reason.clone()),
        E::MachineLost { detail, .. } => {
            failed(next, at, EndReason::new(EndCode::MachineLost, detail));
        }
        E::PlaceLost { detail } => place_lost(next, at, detail),
        E::RoomOpened => next.room = RoomState::Open,
        // Still wanted, so that it is closed by name: whoever says that it was not made may be
        // wrong, and closing nothing costs little.
        E::RoomFailed { detail } => end(next, at, EndReason::new(EndCode::RoomFailed, detail)),
        E::BotReady { .. } => {
            next.moments.bot_said.get_or_insert(at);
            seen_ready(next, at, ReadyWhen::Bot);
        }
        E::BotPresent => {
            next.moments.bot_present.get_or_insert(at);
            seen_ready(next, at, ReadyWhen::Room);
        }
        E::BotNotReady { detail, .. } => {
            failed(next, at, EndReason::new(EndCode::BotNotReady, detail));
        }
        E::BotExited { exit, .. } => {
            let why = exit_reason(exit, next.moments.ready.is_some());
            failed(next, at, why);
        }
        E::BotBroke { detail, .. } => failed(next, at, EndReason::new(EndCode::BotFailed, detail)),
        E::ClientJoined => client_joined(next, at),
        E::RoomEmpty => client_gone(next, at),
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
        E::MachineDestroyed { .. } => next_incarnation(next, at)?,
        E::RoomClosed => return Err(Denied::NotGoing),
    }
    Ok(())
}

fn ending(next: &mut Session, event: &Event, why: &EndReason) -> Result<(), Denied> {
    use EventKind as E;
    match &event.kind {
        E::MachineDestroyed { incarnation } => {
            check_incarnation(next, *incarnation)?;
            next.machine = gone_machine(next.machine);
        }
        E::PlaceLost { .. } => next.machine = gone_machine(next.machine),
        E::RoomClosed => next.room = gone_room(next.room),
        E::Measured(seen) => next.usage = Some(*seen),
        // Too late to matter, and no news: it is ending already.
        E::EndRequested(_)
        | E::ClientLeft { .. }
        | E::ClientOverflow { .. }
        | E::RoomEmpty
        | E::RoomFailed { .. }
        | E::BotExited { .. }
        | E::BotBroke { .. }
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
        | E::MachineMade { .. }
        | E::MachineStarted { .. }
        | E::RoomOpened
        | E::BotReady { .. }
        | E::BotPresent
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
        E::MachineDestroyed { .. }
        | E::PlaceLost { .. }
        | E::RoomClosed
        | E::RoomEmpty
        | E::EndRequested(_)
        | E::ClientLeft { .. }
        | E::TimePassed => Ok(()),
        E::Admitted
        | E::MachineMade { .. }
        | E::MachineStarted { .. }
        | E::MachineFailed { .. }
        | E::MachineLost { .. }
        | E::RoomOpened
        | E::RoomFailed { .. }
        | E::BotReady { .. }
        | E::BotPresent
        | E::BotNotReady { .. }
        | E::BotExited { .. }
        | E::BotBroke { .. }
        | E::ClientJoined
        | E::ClientOverflow { .. }
        | E::Audible
        | E::WarningDelivered
        | E::WarningFailed { .. }
        | E::Measured(_) => Err(Denied::Ended),
    }
}

/// Which machine of the session an event is about, for those that are about one.
fn about(kind: &EventKind) -> Option<u32> {
    use EventKind as E;
    match kind {
        E::MachineMade { incarnation, .. }
        | E::MachineStarted { incarnation, .. }
        | E::MachineFailed { incarnation, .. }
        | E::MachineLost { incarnation, .. }
        | E::BotReady { incarnation }
        | E::BotNotReady { incarnation, .. }
        | E::BotExited { incarnation, .. }
        | E::BotBroke { incarnation, .. }
        | E::MachineDestroyed { incarnation } => Some(*incarnation),
        E::Admitted
        | E::PlaceLost { .. }
        | E::RoomOpened
        | E::RoomFailed { .. }
        | E::BotPresent
        | E::ClientJoined
        | E::ClientLeft { .. }
        | E::RoomEmpty
        | E::ClientOverflow { .. }
        | E::Audible
        | E::WarningDelivered
        | E::WarningFailed { .. }
        | E::Measured(_)
        | E::EndRequested(_)
        | E::TimePassed
        | E::RoomClosed => None,
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

fn made(next: &mut Session, id: &str) -> Result<(), Denied> {
    if next.machine == MachineState::Failed {
        return Err(Denied::Replaced);
    }
    // The last one counts: a machine of a reserve that failed was replaced by a fresh one.
    next.machine_id = Some(id.to_owned());
    Ok(())
}

fn machine_started(next: &mut Session, at: Time, facts: &MachineFacts) -> Result<(), Denied> {
    match next.machine {
        MachineState::Running => return Ok(()),
        MachineState::Failed => return Err(Denied::Replaced),
        MachineState::None | MachineState::Wanted | MachineState::Gone => {}
    }
    next.machine = MachineState::Running;
    next.facts = Some(facts.clone());
    next.moments.started.get_or_insert(at);
    next.state = State::Joining;
    next.deadline_at = at.after(next.limits.ready);
    seen_ready(next, at, ReadyWhen::Machine);
    settle(next, at);
    Ok(())
}

/// One of the things by which a bot is seen to be ready; only one of them counts.
fn seen_ready(next: &mut Session, at: Time, by: ReadyWhen) {
    let may_become = matches!(next.state, State::Starting | State::Joining) && !next.ready;
    if next.ready_when == by && may_become && next.machine != MachineState::Failed {
        next.ready = true;
        next.moments.ready.get_or_insert(at);
        settle(next, at);
    }
}

fn client_joined(next: &mut Session, at: Time) {
    next.moments.joined.get_or_insert(at);
    next.alone_at = None;
    settle(next, at);
}

/// A bot that nobody called yet waits for its client instead.
fn client_gone(next: &mut Session, at: Time) {
    if next.moments.joined.is_some() && !next.limits.alone.is_zero() {
        next.alone_at.get_or_insert(at.after(next.limits.alone));
    }
}

/// Moves a session on whose missing part may just have arrived.
fn settle(next: &mut Session, at: Time) {
    if next.state != State::Joining || !next.ready {
        return;
    }
    if next.moments.joined.is_none() {
        next.deadline_at = at.after(next.limits.join);
        return;
    }
    next.state = State::Live;
    next.deadline_at = *next.live_until.get_or_insert(at.after(next.limits.live));
    if next.warn_at.is_none() {
        next.warn_at = warn_at(next, at);
    }
}

fn place_lost(next: &mut Session, at: Time, detail: &str) {
    next.machine = gone_machine(next.machine);
    end(next, at, EndReason::new(EndCode::MachineLost, detail));
}

fn warned(next: &mut Session, outcome: Warning) {
    if next.warning == Warning::Due {
        next.warning = outcome;
    }
}

fn time_passed(next: &mut Session, at: Time) {
    match overdue(next, at) {
        Some(why) => end(next, at, why),
        None => {
            let due = next.state == State::Live && next.warn_at.is_some_and(|warn| at >= warn);
            if due && next.warning == Warning::Ahead {
                next.warning = Warning::Due;
            }
        }
    }
}

pub(crate) fn end(next: &mut Session, at: Time, why: EndReason) {
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
        MachineState::Wanted
        | MachineState::Running
        | MachineState::Failed
        | MachineState::Gone => MachineState::Gone,
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
