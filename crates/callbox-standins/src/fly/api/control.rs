//! Our own routes: what troubles there are, what was called, what is true.
//!
//! They take the stand-in's first token, like the rest.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use callbox_fly::Token;
use serde_json::{Value, json};

use super::body::Body;
use crate::fly::backend::Exit;
use crate::fly::refusal::Refusal;
use crate::fly::trouble::{Listed, Rule};
use crate::fly::world::Answer;
use crate::fly::{Calls, Limits, StandIn};

pub fn router(standin: StandIn) -> Router<StandIn> {
    Router::new()
        .route("/", get(about))
        .route("/trouble", get(troubles).post(add_trouble).delete(clear_troubles))
        .route("/trouble/{id}", delete(remove_trouble))
        .route("/calls", get(calls).delete(reset_calls))
        .route("/limits", put(set_limits))
        .route("/machines", get(machines))
        .route("/machines/{id}/exit", post(exit))
        .route("/machines/{id}/lose-host", post(lose_host))
        .layer(from_fn_with_state(standin, owner))
}

async fn owner(State(standin): State<StandIn>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = header.and_then(Token::from_authorization);
    let own = Token::from_authorization(&standin.token().authorization());
    if shown.is_none() || shown != own {
        return Refusal::no_token().into_response();
    }
    next.run(request).await
}

/// What this is, so that nobody takes it for Fly.
async fn about(State(standin): State<StandIn>) -> Json<Value> {
    let limits = standin.world.lock().limits.clone();
    let settings = standin.world.settings();
    Json(json!({
        "is": "a stand-in for Fly's Machines API; nothing of this is Fly",
        "backend": standin.backend.name(),
        "organization": settings.organization,
        "region": settings.region,
        "limits": limits,
    }))
}

async fn troubles(State(standin): State<StandIn>) -> Json<Vec<Listed>> {
    Json(standin.troubles())
}

async fn add_trouble(
    State(standin): State<StandIn>,
    Body(rule): Body<Rule>,
) -> Answer<(StatusCode, Json<Value>)> {
    rule.check().map_err(Refusal::invalid)?;
    Ok((StatusCode::CREATED, Json(json!({ "id": standin.add_trouble(rule) }))))
}

async fn clear_troubles(State(standin): State<StandIn>) -> StatusCode {
    standin.clear_troubles();
    StatusCode::NO_CONTENT
}

async fn remove_trouble(State(standin): State<StandIn>, Path(id): Path<u64>) -> Answer<StatusCode> {
    match standin.remove_trouble(id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::new(404, format!("there is no trouble {id}"))),
    }
}

async fn calls(State(standin): State<StandIn>) -> Json<Calls> {
    Json(standin.calls())
}

async fn reset_calls(State(standin): State<StandIn>) -> StatusCode {
    standin.reset_calls();
    StatusCode::NO_CONTENT
}

async fn set_limits(State(standin): State<StandIn>, Body(limits): Body<Limits>) -> StatusCode {
    standin.set_limits(limits);
    StatusCode::NO_CONTENT
}

/// The truth, whatever lists say.
async fn machines(State(standin): State<StandIn>) -> Json<Vec<Value>> {
    let all = standin.machines().into_iter();
    Json(all.map(|(app, machine)| json!({ "app": app, "machine": machine })).collect())
}

async fn exit(
    State(standin): State<StandIn>,
    Path(id): Path<String>,
    Body(exit): Body<Exit>,
) -> Answer<StatusCode> {
    match standin.exit(&id, exit).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::new(409, "no program runs in a machine of this id")),
    }
}

async fn lose_host(State(standin): State<StandIn>, Path(id): Path<String>) -> Answer<StatusCode> {
    match standin.lose_host(&id).await {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::no_machine()),
    }
}
