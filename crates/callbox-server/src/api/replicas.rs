//! `/v1/replicas`: the dispatchers on this database.

use axum::{Json, extract::State};
use callbox_protocol::api::{ErrorBody, Replica, ReplicaList, ReplicaState};

use super::{App, caller::Operator, error::Error};
use crate::replica::{SILENCE, lost_after};

/// List the dispatchers that share this one's database.
#[utoipa::path(
    get, path = "/v1/replicas", tag = "info",
    responses((status = 200, body = ReplicaList), (status = 401, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn list(State(app): State<App>, _operator: Operator) -> Result<Json<ReplicaList>, Error> {
    let store = &app.plane.store;
    let alive = store.replicas(SILENCE).await?;
    let mut replicas = Vec::new();
    for replica in store.replicas(lost_after(&app.plane.config)).await? {
        let state = match alive.contains(&replica) {
            true => ReplicaState::Alive,
            false => ReplicaState::Silent,
        };
        let sessions = store.driven(&replica.id).await?.len();
        replicas.push(Replica {
            answered: replica.id == app.plane.replicas.id(),
            id: replica.id,
            url: replica.url,
            state,
            sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
        });
    }
    Ok(Json(ReplicaList { replicas }))
}
