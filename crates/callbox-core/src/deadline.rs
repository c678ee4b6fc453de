//! What time does to a session.

use crate::{EndCode, EndReason, Limits, Session, State, Time};

/// A call that is shorter than the warning is warned of at its half: told at its beginning, it
/// would begin with its end.
pub(crate) fn warn_at(session: &Session, live_since: Time) -> Option<Time> {
    let Limits { live, warn, .. } = session.limits;
    (!warn.is_zero()).then(|| live_since.after(live - warn.min(live / 2)))
}

/// What has lasted too long, if anything has.
pub(crate) fn overdue(session: &Session, at: Time) -> Option<EndReason> {
    let passed = |deadline: Option<Time>| deadline.is_some_and(|deadline| at >= deadline);
    let limits = &session.limits;
    let (code, what, span) = match (&session.state, session.ready) {
        (State::Starting | State::Joining | State::Live, _) if passed(session.live_until) => {
            (EndCode::MaxDuration, "the call reached its longest time", limits.live)
        }
        (State::Starting | State::Joining | State::Live, _) if passed(session.alone_at) => {
            (EndCode::Alone, "nobody came back to the bot", limits.alone)
        }
        _ if at < session.deadline_at => return None,
        (State::Queued, _) => {
            (EndCode::QueueTimeout, "there was no room for its machine", limits.queued)
        }
        (State::Starting, _) => (EndCode::StartTimeout, "the machine did not start", limits.start),
        (State::Joining, false) => {
            (EndCode::ReadyTimeout, "the bot did not become ready", limits.ready)
        }
        (State::Joining, true) => (EndCode::JoinTimeout, "no client joined", limits.join),
        // Its deadline is `live_until`.
        (State::Live | State::Ending { .. } | State::Ended { .. }, _) => return None,
    };
    Some(EndReason::new(code, format!("{what} within {} s", span.as_secs_f64())))
}
