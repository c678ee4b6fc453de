//! Apps.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use callbox_fly::wire::{self, AppCreated, AppList, CreateApp, Organization, State as Phase};

use super::body::{Body, Query};
use crate::fly::StandIn;
use crate::fly::refusal::Refusal;
use crate::fly::world::{Answer, App, Inner};

pub async fn create(
    State(standin): State<StandIn>,
    Body(request): Body<CreateApp>,
) -> Answer<(StatusCode, Json<AppCreated>)> {
    let mut inner = standin.world.lock();
    let name = request.name.unwrap_or_default();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !(1..=63).contains(&name.len()) || !name.chars().all(legal) {
        return Err(Refusal::new(422, "Validation failed: Name is invalid"));
    }
    if request.org_slug.is_none_or(|org| org != inner.organization) {
        return Err(Refusal::new(404, "organization not found"));
    }
    if inner.apps.contains_key(&name) {
        return Err(Refusal::app_taken());
    }
    let app = App { network: request.network, ..App::new(&name, &mut inner.rng) };
    let created_at = inner.clock.now().as_millisecond();
    let created = AppCreated { id: Some(app.id.clone()), created_at: Some(created_at) };
    inner.apps.insert(name, app);
    Ok((StatusCode::CREATED, Json(created)))
}

pub async fn list(State(standin): State<StandIn>, query: Query) -> Json<AppList> {
    let inner = standin.world.lock();
    let ours = query.get("org_slug").is_none_or(|org| org == inner.organization);
    let apps: Vec<wire::App> = match ours {
        true => inner.apps.values().map(|app| shown(&inner, app)).collect(),
        false => Vec::new(),
    };
    let total_apps = u32::try_from(apps.len()).unwrap_or(u32::MAX);
    Json(AppList { apps, total_apps })
}

pub async fn get(
    State(standin): State<StandIn>,
    Path(app): Path<String>,
) -> Answer<Json<wire::App>> {
    let inner = standin.world.lock();
    inner.app(&app).map(|app| Json(shown(&inner, app)))
}

/// Takes all of its machines with it.
pub async fn delete(State(standin): State<StandIn>, Path(app): Path<String>) -> Answer<StatusCode> {
    let mut inner = standin.world.lock();
    inner.app(&app)?;
    let living = inner.machines.values().filter(|one| one.app == app && !one.state.is_gone());
    let ids: Vec<String> = living.map(|one| one.id.clone()).collect();
    for id in ids {
        inner.turn(&id, Phase::Destroying, "destroy");
    }
    inner.apps.remove(&app);
    Ok(StatusCode::ACCEPTED)
}

fn shown(inner: &Inner, app: &App) -> wire::App {
    let living =
        |one: &&crate::fly::record::Record| one.app == app.name && one.state != Phase::Destroyed;
    let count = inner.machines.values().filter(living).count();
    let organization = Organization {
        name: Some(inner.organization.clone()),
        slug: Some(inner.organization.clone()),
    };
    wire::App {
        id: Some(app.id.clone()),
        name: app.name.clone(),
        status: Some(if count > 0 { "deployed" } else { "pending" }.to_owned()),
        organization: Some(organization),
        network: app.network.clone(),
        machine_count: u32::try_from(count).ok(),
    }
}
