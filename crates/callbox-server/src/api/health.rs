//! What machines ask about the dispatcher: is it there, can it start, what has it counted.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use callbox_protocol::api::{BotInfo, Info, Reserve};
use serde_json::json;

use super::{App, error::Error};
use crate::metrics;

/// Always 200 while the process answers.
pub async fn healthz() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// 200 when sessions can be started here.
pub async fn readyz(State(app): State<App>) -> Response {
    let out_of_service = match (app.plane.closing(), app.plane.drain.now()) {
        (true, _) => Some("shutting down"),
        (false, Some(_)) if app.plane.drain.is_last() => Some("shutting down"),
        (false, Some(_)) => Some("draining"),
        (false, None) => None,
    };
    if let Some(why) = out_of_service {
        let body = json!({ "status": "not ready", "why": why });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    let preparing = app.plane.preparing();
    if !preparing.is_empty() {
        // A start would work, but wait for what is being made once and kept.
        let body =
            json!({ "status": "not ready", "why": "preparing bots", "preparing": preparing });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    if let Err(error) = app.plane.store.ping().await {
        tracing::error!(%error, "not ready: the store does not answer");
        let body = json!({ "status": "not ready", "why": "the store does not answer" });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    Json(json!({ "status": "ok" })).into_response()
}

/// The shape of Pipecat's runner.
pub async fn status(State(app): State<App>) -> Json<serde_json::Value> {
    let transports: Vec<&str> = app.plane.transports.keys().copied().collect();
    Json(json!({ "status": "ready", "transports": transports }))
}

/// What this dispatcher is and which bots can be called.
#[utoipa::path(get, path = "/v1/info", tag = "info", responses((status = 200, body = Info)))]
pub async fn info(State(app): State<App>) -> Result<Json<Info>, Error> {
    let bots = app
        .plane
        .config
        .bots
        .values()
        .map(|bot| BotInfo { name: bot.name.clone(), transports: bot.transports.clone() });
    Ok(Json(Info {
        name: "callbox".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        auth: app.auth().await?,
        bots: bots.collect(),
        reserves: reserves(&app),
        queued: u32::try_from(app.plane.queue.waiting()).unwrap_or(u32::MAX),
    }))
}

fn reserves(app: &App) -> BTreeMap<String, Reserve> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let levels = app.plane.reserves().into_iter();
    levels
        .map(|(bot, level)| {
            (bot, Reserve { ready: count(level.ready), target: count(level.target) })
        })
        .collect()
}

/// Prometheus' text form.
pub async fn prometheus(State(app): State<App>) -> String {
    metrics::live(app.plane.driven().len(), app.plane.queue.waiting());
    metrics::draining(app.plane.drain.now().is_some());
    metrics::replicas(app.plane.replicas.others().len() + 1);
    for (bot, level) in app.plane.reserves() {
        metrics::reserve(&bot, level.ready, level.target);
    }
    app.prometheus.as_ref().map(|handle| handle.render()).unwrap_or_default()
}
