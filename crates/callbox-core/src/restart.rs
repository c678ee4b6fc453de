//! What a bot's death means: the end of its session, or a fresh machine in the same room.
//!
//! One machine at a time: the one that failed is destroyed first, and only then is the next one
//! wanted. A destroy that takes long costs the caller silence; two machines of one session in one
//! room would cost the promise.

use crate::{
    Denied, EndReason, MachineState, Outcome, Restarts, Session, State, Time, Warning, apply::end,
};

/// The machine is of no use any more. A bot that was ready may get a fresh one; everything else
/// ends here, with the machine still there to be destroyed by name: a start that failed half-way
/// may have left something, and destroying nothing costs little.
pub(crate) fn failed(next: &mut Session, at: Time, why: EndReason) {
    if next.machine == MachineState::Failed {
        return;
    }
    if why.code.outcome() == Outcome::Completed || !may_restart(next, at) {
        return end(next, at, why);
    }
    next.restarted.push(at);
    next.restarted_because = Some(why);
    next.state = State::Starting;
    next.machine = MachineState::Failed;
    next.ready = false;
    next.deadline_at = at.after(next.limits.start);
}

/// Forgets restarts that are too long ago to count, and says whether one more is allowed.
fn may_restart(next: &mut Session, at: Time) -> bool {
    let Restarts { most, within } = next.restarts;
    next.restarted.retain(|earlier| at.since(*earlier) < within);
    next.moments.ready.is_some() && next.restarted.len() < most as usize
}

/// The machine that failed is gone: now another one may come.
pub(crate) fn next_incarnation(next: &mut Session, at: Time) -> Result<(), Denied> {
    if next.machine != MachineState::Failed {
        return Err(Denied::NotGoing);
    }
    next.incarnation += 1;
    next.machine = MachineState::Wanted;
    next.machine_id = None;
    next.facts = None;
    next.usage = None;
    // Whatever the bot before it was told, this one was not.
    next.warning = Warning::Ahead;
    next.deadline_at = at.after(next.limits.start);
    Ok(())
}
