//! The routes: Fly's under `/v1`, and our own under `/_standin`.

mod actions;
mod apps;
mod body;
mod control;
mod gate;
mod leases;
mod machines;
mod metadata;
mod orgs;
mod platform;
mod wait;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use callbox_fly::Action;

use super::StandIn;
use super::refusal::Refusal;

/// All routes.
pub fn router(standin: StandIn) -> Router {
    let machine = "/v1/apps/{app}/machines/{id}";
    let on = |rest: &str| format!("{machine}/{rest}");
    let routes: Vec<(String, Action, MethodRouter<StandIn>)> = vec![
        ("/v1/apps".into(), Action::CreateApp, post(apps::create)),
        ("/v1/apps".into(), Action::ListApps, get(apps::list)),
        ("/v1/apps/{app}".into(), Action::GetApp, get(apps::get)),
        ("/v1/apps/{app}".into(), Action::DeleteApp, delete(apps::delete)),
        ("/v1/apps/{app}/machines".into(), Action::Create, post(machines::create)),
        ("/v1/apps/{app}/machines".into(), Action::List, get(machines::list)),
        ("/v1/orgs/{org}/machines".into(), Action::ListOrg, get(orgs::list)),
        (machine.into(), Action::Get, get(machines::get)),
        (machine.into(), Action::Update, post(machines::update)),
        (machine.into(), Action::Destroy, delete(machines::destroy)),
        (on("wait"), Action::Wait, get(wait::wait)),
        (on("start"), Action::Start, post(actions::start)),
        (on("stop"), Action::Stop, post(actions::stop)),
        (on("suspend"), Action::Suspend, post(actions::suspend)),
        (on("restart"), Action::Restart, post(actions::restart)),
        (on("signal"), Action::Signal, post(actions::signal)),
        (on("cordon"), Action::Cordon, post(actions::cordon)),
        (on("uncordon"), Action::Cordon, post(actions::uncordon)),
        (on("exec"), Action::Exec, post(actions::exec)),
        (on("events"), Action::Events, get(machines::events)),
        (on("metadata"), Action::GetMetadata, get(metadata::all)),
        (on("metadata"), Action::SetMetadata, put(metadata::replace)),
        (on("metadata"), Action::SetMetadata, patch(metadata::merge)),
        (on("metadata/{key}"), Action::GetMetadata, get(metadata::one)),
        (on("metadata/{key}"), Action::SetMetadata, post(metadata::set)),
        (on("metadata/{key}"), Action::SetMetadata, delete(metadata::remove)),
        (on("lease"), Action::GetLease, get(leases::get)),
        (on("lease"), Action::AcquireLease, post(leases::acquire)),
        (on("lease"), Action::ReleaseLease, delete(leases::release)),
        ("/v1/platform/regions".into(), Action::Regions, get(platform::regions)),
        ("/v1/platform/placements".into(), Action::Placements, post(platform::placements)),
    ];
    let mut router = Router::new();
    for (path, action, handler) in routes {
        let gate = from_fn_with_state((standin.clone(), action), gate::gate);
        router = router.route(&path, handler.layer(gate));
    }
    router
        .nest("/_standin", control::router(standin.clone()))
        .fallback(async || Refusal::new(404, "404 page not found"))
        .with_state(standin)
}
