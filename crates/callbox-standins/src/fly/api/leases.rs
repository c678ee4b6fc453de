//! Leases (fly.md section 3.3).

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use callbox_fly::wire::{Lease, LeaseAnswer, LeaseRequest};
use serde_json::{Value, json};

use super::body::{Body, Query};
use crate::fly::StandIn;
use crate::fly::record::Record;
use crate::fly::refusal::Refusal;
use crate::fly::world::Answer;

/// Seconds of a lease that asks for none. Not known; a guess.
const TTL: i64 = 60;

/// The nonce that a call shows.
pub fn nonce(headers: &HeaderMap) -> Option<&str> {
    headers.get("fly-machine-lease-nonce").and_then(|value| value.to_str().ok())
}

pub async fn get(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
) -> Answer<Json<LeaseAnswer>> {
    let mut inner = standin.world.lock();
    let now = inner.clock.now();
    let machine = inner.living(&app, &id)?;
    machine.lease.take_if(|held| held.expires_at <= now);
    shown(machine).map(Json)
}

pub async fn acquire(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
    headers: HeaderMap,
    query: Query,
    Body(request): Body<LeaseRequest>,
) -> Answer<(StatusCode, Json<LeaseAnswer>)> {
    let asked = query.number("ttl")?.map(i64::from).or(request.ttl);
    let ttl = asked.filter(|ttl| *ttl > 0).unwrap_or(TTL);
    let mut inner = standin.world.lock();
    inner.living(&app, &id)?;
    inner.may_change(&app, &id, nonce(&headers))?;
    let (fresh, until) = (inner.held(ttl, request.description), inner.until(ttl));
    let machine = inner.living(&app, &id)?;
    match &mut machine.lease {
        Some(held) => held.expires_at = until,
        none => *none = Some(fresh),
    }
    Ok((StatusCode::CREATED, Json(shown(machine)?)))
}

pub async fn release(
    State(standin): State<StandIn>,
    Path((app, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    let mut inner = standin.world.lock();
    inner.living(&app, &id)?;
    inner.may_change(&app, &id, nonce(&headers))?;
    inner.living(&app, &id)?.lease = None;
    Ok(Json(json!({"status": "success", "data": {"ok": true}})))
}

fn shown(machine: &Record) -> Answer<LeaseAnswer> {
    let held = machine.lease.as_ref().ok_or_else(|| Refusal::new(404, "lease not found"))?;
    Ok(LeaseAnswer::new(Lease {
        nonce: held.nonce.clone(),
        expires_at: Some(held.expires_at.as_second()),
        owner: Some(held.owner.clone()),
        description: held.description.clone(),
        version: Some(machine.version.clone()),
    }))
}
