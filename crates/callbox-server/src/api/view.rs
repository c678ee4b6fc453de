//! A session as everybody sees it: core types to wire types.

use std::time::Duration;

use callbox_core::{
    EndReason, MachineFacts, MachineState, Outcome, Session, State, StateKind, Time, UsageSeen,
    Warning,
};
use callbox_protocol::api;

use crate::{clock::rfc3339, plane::Plane};

pub fn session(plane: &Plane, session: &Session) -> api::Session {
    let moments = &session.moments;
    let from_start = |at: Option<Time>| {
        at.map(|at| at.since(moments.accepted).as_micros())
            .map(|us| f64::from(u32::try_from(us / 10).unwrap_or(u32::MAX)) / 100.0)
    };
    let why = session.state.why();
    api::Session {
        id: session.id.to_string(),
        bot: session.bot.clone(),
        transport: session.transport.clone(),
        provider: session.provider.clone(),
        labels: session.labels.clone(),
        version: session.version.clone(),
        place: Some(session.place.clone()).filter(|place| !place.is_empty()),
        state: state(session.state.kind()),
        end_reason: why.map(reason),
        outcome: match &session.state {
            State::Ended { why } => Some(match why.code.outcome() {
                Outcome::Completed => api::Outcome::Completed,
                Outcome::Failed => api::Outcome::Failed,
            }),
            _ => None,
        },
        incarnation: session.incarnation,
        machine: session.machine_name(),
        machine_id: session.machine_id.clone(),
        restarts: u32::try_from(session.restarted.len()).unwrap_or(u32::MAX),
        restarted_because: session.restarted_because.as_ref().map(reason),
        accelerator: session.facts.as_ref().map(|facts| facts.accelerator.clone()),
        start: session.facts.as_ref().map(|facts| facts.start.clone()),
        isolation: session.facts.as_ref().map(isolation),
        moments: api::Moments {
            accepted: Some(rfc3339(moments.accepted)),
            admitted: moments.admitted.map(rfc3339),
            started: moments.started.map(rfc3339),
            ready: moments.ready.map(rfc3339),
            bot_said: moments.bot_said.map(rfc3339),
            bot_present: moments.bot_present.map(rfc3339),
            joined: moments.joined.map(rfc3339),
            audible: moments.audible.map(rfc3339),
            ended: moments.ended.map(rfc3339),
        },
        stages_ms: api::StagesMs {
            accepted: Some(0.0),
            admitted: from_start(moments.admitted),
            started: from_start(moments.started),
            ready: from_start(moments.ready),
            bot_said: from_start(moments.bot_said),
            bot_present: from_start(moments.bot_present),
            joined: from_start(moments.joined),
            audible: from_start(moments.audible),
            ended: from_start(moments.ended),
        },
        start_stages: session.facts.iter().flat_map(|facts| &facts.stages).map(stage).collect(),
        deadline_at: moments.ended.is_none().then(|| rfc3339(session.deadline_at)),
        alone_until: session.alone_at.map(rfc3339),
        queue: queue_place(plane, session),
        warning: session.warn_at.map(|at| api::Warning {
            at: rfc3339(at),
            state: match session.warning {
                Warning::Ahead => api::WarningState::Ahead,
                Warning::Due => api::WarningState::Due,
                Warning::Delivered => api::WarningState::Delivered,
                Warning::GivenUp => api::WarningState::GivenUp,
            },
        }),
        // A session that is driven here is measured more often than it is saved.
        usage: plane
            .handle(session.id)
            .map_or(session.usage, |handle| *handle.usage.borrow())
            .as_ref()
            .map(usage),
        cost: cost(session, plane.clock.now()),
    }
}

/// What its machines have cost until now. One that was replaced counts as if it had run until the
/// next one did: what lies between is seconds.
fn cost(session: &Session, now: Time) -> Option<api::Cost> {
    let price = session.facts.as_ref()?.price.as_ref()?;
    let span = session.moments.ended.unwrap_or(now).since(session.moments.started?);
    Some(api::Cost {
        machine_usd: price.usd(span),
        machine_ms: millis(span),
        prices_as_of: price.as_of.clone(),
    })
}

fn reason(why: &EndReason) -> api::EndReason {
    api::EndReason { code: why.code.as_str().into(), detail: why.detail.clone() }
}

/// The last fresh machine that a session got or is about to get, while it lives.
pub fn restarting(session: &Session) -> Option<api::Restarting> {
    let why = session.restarted_because.as_ref()?;
    let going = u32::from(session.machine == MachineState::Failed);
    let begun = u32::try_from(session.restarted.len()).unwrap_or(u32::MAX);
    session.state.why().is_none().then(|| api::Restarting {
        incarnation: session.incarnation + going,
        reason: reason(why),
        left: session.restarts.most.saturating_sub(begun),
    })
}

/// A session's place in the queue, if it waits.
pub fn queue_place(plane: &Plane, session: &Session) -> Option<api::QueuePlace> {
    let place = plane.queue.place(plane, session)?;
    Some(api::QueuePlace {
        position: u32::try_from(place.position).unwrap_or(u32::MAX),
        wait_ms: place.estimate.map(millis),
    })
}

fn usage(seen: &UsageSeen) -> api::Usage {
    api::Usage {
        unique_bytes: seen.last.unique_bytes,
        shared_bytes: seen.last.shared_bytes,
        highest_unique_bytes: seen.highest_unique_bytes,
        cpu_ms: millis(seen.last.cpu),
        ready_unique_bytes: seen.ready_unique_bytes,
        audible_unique_bytes: seen.audible_unique_bytes,
        end_unique_bytes: seen.end_unique_bytes,
    }
}

/// Whole milliseconds, as a number on the wire.
pub fn millis(span: Duration) -> f64 {
    f64::from(u32::try_from(span.as_millis()).unwrap_or(u32::MAX))
}

fn stage(stage: &callbox_core::StartStage) -> api::Stage {
    let hundredths = u32::try_from(stage.took.as_micros() / 10).unwrap_or(u32::MAX);
    api::Stage { name: stage.name.clone(), ms: f64::from(hundredths) / 100.0 }
}

/// A state's word on the wire.
pub fn state(kind: StateKind) -> api::SessionState {
    match kind {
        StateKind::Queued => api::SessionState::Queued,
        StateKind::Starting => api::SessionState::Starting,
        StateKind::Joining => api::SessionState::Joining,
        StateKind::Live => api::SessionState::Live,
        StateKind::Ending => api::SessionState::Ending,
        StateKind::Ended => api::SessionState::Ended,
    }
}

/// Software emulation is a large program written in C between a guest and its host, and no
/// hardware: it is good for trying things out, however well it is caged.
fn isolation(facts: &MachineFacts) -> api::Isolation {
    let mut not_enforced = facts.not_enforced.clone();
    if facts.accelerator == "tcg" {
        not_enforced.insert(0, "software emulation: no hardware keeps the guest apart".to_owned());
    }
    let level = if not_enforced.is_empty() {
        api::IsolationLevel::Production
    } else {
        api::IsolationLevel::Development
    };
    api::Isolation { level, not_enforced }
}
