//! A session as everybody sees it: core types to wire types.

use callbox_core::{Outcome, Session, State, StateKind, Time};
use callbox_protocol::api;

use crate::clock::rfc3339;

pub fn session(session: &Session) -> api::Session {
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
        state: state(session.state.kind()),
        end_reason: why.map(|why| api::EndReason {
            code: why.code.as_str().into(),
            detail: why.detail.clone(),
        }),
        outcome: match &session.state {
            State::Ended { why } => Some(match why.code.outcome() {
                Outcome::Completed => api::Outcome::Completed,
                Outcome::Failed => api::Outcome::Failed,
            }),
            _ => None,
        },
        incarnation: session.incarnation,
        machine: session.machine_name(),
        accelerator: session.facts.as_ref().map(|facts| facts.accelerator.clone()),
        start: session.facts.as_ref().map(|facts| facts.start.clone()),
        moments: api::Moments {
            accepted: Some(rfc3339(moments.accepted)),
            started: moments.started.map(rfc3339),
            ready: moments.ready.map(rfc3339),
            joined: moments.joined.map(rfc3339),
            audible: moments.audible.map(rfc3339),
            ended: moments.ended.map(rfc3339),
        },
        stages_ms: api::StagesMs {
            accepted: Some(0.0),
            started: from_start(moments.started),
            ready: from_start(moments.ready),
            joined: from_start(moments.joined),
            audible: from_start(moments.audible),
            ended: from_start(moments.ended),
        },
        start_stages: session.facts.iter().flat_map(|facts| &facts.stages).map(stage).collect(),
        deadline_at: moments.ended.is_none().then(|| rfc3339(session.deadline_at)),
    }
}

fn stage(stage: &callbox_core::StartStage) -> api::Stage {
    let hundredths = u32::try_from(stage.took.as_micros() / 10).unwrap_or(u32::MAX);
    api::Stage { name: stage.name.clone(), ms: f64::from(hundredths) / 100.0 }
}

fn state(kind: StateKind) -> api::SessionState {
    match kind {
        StateKind::Queued => api::SessionState::Queued,
        StateKind::Starting => api::SessionState::Starting,
        StateKind::Joining => api::SessionState::Joining,
        StateKind::Live => api::SessionState::Live,
        StateKind::Ending => api::SessionState::Ending,
        StateKind::Ended => api::SessionState::Ended,
    }
}
