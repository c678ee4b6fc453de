//! Start, stop, suspend, restart, signal, cordon, exec.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use callbox_fly::wire::{GoDuration, Ok as Done, Started, State as Phase, StopRequest};
use serde_json::Value;

use super::body::{Body, Query};
use super::leases::nonce;
use crate::fly::refusal::Refusal;
use crate::fly::trouble::Struck;
use crate::fly::world::Answer;
use crate::fly::{StandIn, check};

type Machine = Path<(String, String)>;

const DONE: Json<Done> = Json(Done { ok: true });

pub async fn start(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    Extension(struck): Extension<Struck>,
    headers: HeaderMap,
) -> Answer<Json<Started>> {
    let mut inner = standin.world.lock();
    inner.may_change(&app, &id, nonce(&headers))?;
    let previous = inner.start(&app, &id, struck.fate.cold)?;
    Ok(Json(Started { previous_state: Some(previous), ..Started::default() }))
}

pub async fn stop(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
    Body(request): Body<StopRequest>,
) -> Answer<Json<Done>> {
    let mut inner = standin.world.lock();
    inner.may_change(&app, &id, nonce(&headers))?;
    let signal = request.signal.filter(|signal| !signal.is_empty());
    inner.stop(&app, &id, signal.as_deref(), request.timeout.map(|timeout| timeout.0))?;
    Ok(DONE)
}

pub async fn suspend(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
) -> Answer<Json<Done>> {
    let mut inner = standin.world.lock();
    inner.may_change(&app, &id, nonce(&headers))?;
    let fits = standin.backend.can_suspend(&inner.living(&app, &id)?.spec());
    inner.suspend(&app, &id, fits)?;
    Ok(DONE)
}

pub async fn restart(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
    query: Query,
) -> Answer<Json<Done>> {
    let grace = match query.get("timeout") {
        _ if query.flag("force_stop") => Some(Duration::ZERO),
        None => None,
        Some(text) => Some(seconds_or_duration(text)?),
    };
    let mut inner = standin.world.lock();
    inner.may_change(&app, &id, nonce(&headers))?;
    inner.restart(&app, &id, query.get("signal"), grace)?;
    Ok(DONE)
}

/// "Restart timeout as a Go duration string or number of seconds" (the specification).
fn seconds_or_duration(text: &str) -> Result<Duration, Refusal> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => text.parse::<GoDuration>().map(|d| d.0).map_err(Refusal::invalid),
    }
}

pub async fn signal(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
    Body(request): Body<Value>,
) -> Answer<Json<Done>> {
    // fly-go sends the number 9 (fly.md section 3.4).
    let signal = match &request["signal"] {
        Value::String(signal) => signal.clone(),
        Value::Number(number) if number.as_u64() == Some(9) => "SIGKILL".to_owned(),
        other => return Err(Refusal::invalid(format!("unknown signal {other}"))),
    };
    check::signal(Some(&signal))?;
    {
        let mut inner = standin.world.lock();
        inner.may_change(&app, &id, nonce(&headers))?;
        let machine = inner.living(&app, &id)?;
        if machine.host_lost {
            return Err(Refusal::host_unreachable());
        }
        if machine.state != Phase::Started {
            return Err(Refusal::cannot("signal", &machine.state));
        }
    }
    match signal.as_str() {
        "SIGKILL" => drop(standin.backend.end(&id, crate::fly::backend::Exit::killed()).await),
        signal => standin.backend.signal(&id, signal).await,
    }
    Ok(DONE)
}

pub async fn cordon(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
) -> Answer<Json<Done>> {
    set_cordoned(&standin, &app, &id, &headers, true)
}

pub async fn uncordon(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
) -> Answer<Json<Done>> {
    set_cordoned(&standin, &app, &id, &headers, false)
}

fn set_cordoned(
    standin: &StandIn,
    app: &str,
    id: &str,
    headers: &HeaderMap,
    cordoned: bool,
) -> Answer<Json<Done>> {
    let mut inner = standin.world.lock();
    inner.may_change(app, id, nonce(headers))?;
    inner.living(app, id)?.cordoned = cordoned;
    Ok(DONE)
}

/// No backend runs commands beside the main process.
pub async fn exec(State(standin): State<StandIn>, Path((app, id)): Machine) -> Answer<Json<Done>> {
    standin.world.lock().living(&app, &id)?;
    let backend = standin.backend.name();
    Err(Refusal::new(501, format!("unimplemented: the {backend} backend runs no commands")))
}
