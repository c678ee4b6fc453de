//! Wait (fly.md section 3.2).

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use callbox_fly::limits;
use callbox_fly::wire::{State as Phase, WaitAnswer};
use tokio::time::{Instant, timeout_at};

use super::body::Query;
use crate::fly::StandIn;
use crate::fly::record::Seen;
use crate::fly::refusal::Refusal;
use crate::fly::world::Answer;

/// The words that can be waited for. `settled` is any state that does not pass by itself; what
/// exactly Fly means by it is not known.
const STATES: [&str; 6] = ["started", "stopped", "suspended", "destroyed", "failed", "settled"];

pub async fn wait(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
    query: Query,
) -> Answer<Json<WaitAnswer>> {
    let mut states = query.list("state");
    if states.is_empty() {
        states.push("started");
    }
    if let Some(unknown) = states.iter().find(|state| !STATES.contains(state)) {
        return Err(Refusal::invalid(format!("unknown state {unknown:?}")));
    }
    let deadline = Instant::now() + longest(query.get("timeout"))?;
    let version = query.get("version").or(query.get("instance_id")).map(str::to_owned);
    let after = query.get("from_event_id").unwrap_or_default();
    let mut watch = {
        let mut inner = standin.world.lock();
        let machine = inner.machine(&app, &id)?;
        if let Some(version) = &version
            && *version != machine.version
            && !machine.replaced.contains(version)
        {
            return Err(Refusal::invalid(format!("unknown version {version:?}")));
        }
        machine.watch.subscribe()
    };
    loop {
        let seen = watch.borrow_and_update().clone();
        if version.as_ref().is_some_and(|version| *version != seen.version) {
            return Err(Refusal::replaced());
        }
        if is_reached(&states, &seen.state) && seen.event.as_str() > after {
            let Seen { state, version, event, .. } = seen;
            return Ok(Json(WaitAnswer {
                ok: true,
                state: Some(state),
                version: Some(version),
                event_id: Some(event),
            }));
        }
        if seen.state == Phase::Destroyed {
            // Nothing more will come of it.
            return Err(Refusal::no_machine());
        }
        match timeout_at(deadline, watch.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refusal::no_machine()),
            Err(_) => return Err(Refusal::wait_over(&states.join(", "), &seen.state)),
        }
    }
}

fn is_reached(states: &[&str], state: &Phase) -> bool {
    let settled = state.is_resting() && *state != Phase::Created;
    states.contains(&state.as_str()) || (settled && states.contains(&"settled"))
}

/// Seconds, within the limits. The clients that send a Go string are read, too.
fn longest(text: Option<&str>) -> Result<Duration, Refusal> {
    let Some(text) = text else { return Ok(limits::WAIT.1) };
    let text = text.strip_suffix('s').unwrap_or(text);
    let seconds: u64 = text.parse().map_err(|_| Refusal::wait_range())?;
    let timeout = Duration::from_secs(seconds);
    if timeout < limits::WAIT.0 || timeout > limits::WAIT.1 {
        return Err(Refusal::wait_range());
    }
    Ok(timeout)
}
