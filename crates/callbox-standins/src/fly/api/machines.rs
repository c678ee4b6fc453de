//! Create, list, get, update, destroy, events.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use callbox_fly::limits;
use callbox_fly::wire::{CreateMachine, Event, Machine, Ok as Done, State as Phase, UpdateMachine};

use super::body::{Body, Query};
use super::leases::nonce;
use crate::fly::StandIn;
use crate::fly::clock::since;
use crate::fly::record::Record;
use crate::fly::refusal::Refusal;
use crate::fly::trouble::Struck;
use crate::fly::world::Answer;

pub async fn create(
    State(standin): State<StandIn>,
    Path(app): Path<String>,
    Extension(struck): Extension<Struck>,
    Body(request): Body<CreateMachine>,
) -> Answer<Json<Machine>> {
    let region = standin.world.settings().region.clone();
    let image = request.config.image.clone().unwrap_or_default();
    // Looked at before the image is asked for, and again when the answer is there.
    standin.world.lock().plan(&app, request.clone(), &region)?;
    let found = standin.backend.find_image(&image).await;
    let found = found.ok_or_else(|| Refusal::image_missing(&image))?;
    let machine = {
        let mut inner = standin.world.lock();
        let planned = inner.plan(&app, request.clone(), &region)?;
        inner.create(&app, planned, &request, found, struck.fate)
    };
    standin.live(machine.id.clone());
    Ok(Json(machine))
}

pub async fn list(
    State(standin): State<StandIn>,
    Path(app): Path<String>,
    Extension(struck): Extension<Struck>,
    query: Query,
) -> Answer<Json<Vec<Machine>>> {
    let inner = standin.world.lock();
    inner.app(&app)?;
    let now = inner.clock.now();
    let (regions, states) = (query.list("region"), query.list("state"));
    let metadata = query.starting_with("metadata.");
    let shown = inner.machines.values().filter(|one| one.app == app).filter_map(|one| {
        let state = told(one, &struck, now, query.flag("include_deleted"))?;
        let among = |list: &[&str], word: &str| list.is_empty() || list.contains(&word);
        let has = |(key, value): &(&str, &str)| {
            one.config.metadata.get(*key).is_some_and(|is| is == value)
        };
        let wanted = among(&regions, &one.region)
            && among(&states, state.as_str())
            && metadata.iter().all(has);
        let machine = if query.flag("summary") { one.summary() } else { one.shown() };
        wanted.then_some(Machine { state: Some(state), ..machine })
    });
    Ok(Json(shown.collect()))
}

/// The state that a list tells, if it tells of the machine at all.
pub fn told(
    one: &Record,
    struck: &Struck,
    now: jiff::Timestamp,
    include_deleted: bool,
) -> Option<Phase> {
    let age = |then| u64::try_from(since(now, then).as_millis()).unwrap_or(u64::MAX);
    if struck.omit_ms.is_some_and(|for_ms| age(one.created_at) < for_ms) {
        return None;
    }
    if one.state != Phase::Destroyed {
        return Some(one.state.clone());
    }
    let ghost = struck.ghosts_ms.is_some_and(|for_ms| age(one.updated_at) < for_ms);
    match ghost {
        true => Some(one.lived_as.clone()),
        false => include_deleted.then_some(Phase::Destroyed),
    }
}

pub async fn get(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
) -> Answer<Json<Machine>> {
    standin.world.lock().machine(&app, &id).map(|one| Json(one.shown()))
}

pub async fn update(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
    headers: HeaderMap,
    Body(request): Body<UpdateMachine>,
) -> Answer<Json<Machine>> {
    let image = {
        let mut inner = standin.world.lock();
        inner.living(&app, &id)?;
        inner.may_change(&app, &id, nonce(&headers))?;
        request.config.image.clone().unwrap_or_default()
    };
    if image.is_empty() {
        return Err(Refusal::invalid("config.image is required"));
    }
    let found = standin.backend.find_image(&image).await;
    let found = found.ok_or_else(|| Refusal::image_missing(&image))?;
    standin.world.lock().update(&app, &id, request, found).map(Json)
}

pub async fn destroy(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
) -> Answer<Json<Done>> {
    let mut inner = standin.world.lock();
    inner.living(&app, &id)?;
    inner.may_change(&app, &id, nonce(&headers))?;
    // fly-go says `kill`, the docs say `force` (fly.md section 3.4).
    inner.destroy(&app, &id, query.flag("force") || query.flag("kill"))?;
    Ok(Json(Done { ok: true }))
}

pub async fn events(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
    query: Query,
) -> Answer<Json<Vec<Event>>> {
    let most = query.number("limit")?.unwrap_or(limits::EVENTS.0).min(limits::EVENTS.1);
    let mut inner = standin.world.lock();
    let machine = inner.machine(&app, &id)?;
    Ok(Json(machine.events.iter().take(most as usize).cloned().collect()))
}
