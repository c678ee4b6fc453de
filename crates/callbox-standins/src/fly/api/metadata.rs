//! Metadata (fly.md section 3.4). Changing it makes no new version of the machine.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use callbox_fly::wire::{MetadataUpdate, MetadataValue};

use super::body::Body;
use super::leases::nonce;
use crate::fly::StandIn;
use crate::fly::refusal::Refusal;
use crate::fly::world::Answer;

type Machine = Path<(String, String)>;
type Key = Path<(String, String, String)>;

pub async fn all(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
) -> Answer<Json<BTreeMap<String, String>>> {
    let mut inner = standin.world.lock();
    Ok(Json(inner.living(&app, &id)?.config.metadata.clone()))
}

pub async fn one(
    State(standin): State<StandIn>,
    Path((app, id, key)): Key,
) -> Answer<Json<MetadataValue>> {
    let mut inner = standin.world.lock();
    let value = inner.living(&app, &id)?.config.metadata.get(&key).cloned();
    let value = value.ok_or_else(|| Refusal::new(404, "metadata key not found"))?;
    Ok(Json(MetadataValue { value }))
}

pub async fn set(
    State(standin): State<StandIn>,
    Path((app, id, key)): Key,
    headers: HeaderMap,
    Body(request): Body<MetadataValue>,
) -> Answer<StatusCode> {
    change(&standin, (&app, &id), &headers, None, |all| {
        all.insert(key, request.value);
    })
}

pub async fn remove(
    State(standin): State<StandIn>,
    Path((app, id, key)): Key,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    change(&standin, (&app, &id), &headers, None, |all| {
        all.remove(&key);
    })
}

pub async fn replace(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
    Body(request): Body<MetadataUpdate>,
) -> Answer<StatusCode> {
    let version = request.machine_version;
    change(&standin, (&app, &id), &headers, version, |all| *all = request.metadata)
}

pub async fn merge(
    State(standin): State<StandIn>,
    Path((app, id)): Machine,
    headers: HeaderMap,
    Body(request): Body<MetadataUpdate>,
) -> Answer<StatusCode> {
    let version = request.machine_version;
    change(&standin, (&app, &id), &headers, version, |all| all.extend(request.metadata))
}

fn change(
    standin: &StandIn,
    (app, id): (&str, &str),
    headers: &HeaderMap,
    version: Option<String>,
    change: impl FnOnce(&mut BTreeMap<String, String>),
) -> Answer<StatusCode> {
    let mut inner = standin.world.lock();
    let now = inner.clock.now();
    inner.living(app, id)?;
    inner.may_change(app, id, nonce(headers))?;
    let machine = inner.living(app, id)?;
    if version.is_some_and(|version| !version.is_empty() && version != machine.version) {
        return Err(Refusal::version_mismatch());
    }
    change(&mut machine.config.metadata);
    machine.updated_at = now;
    Ok(StatusCode::NO_CONTENT)
}
