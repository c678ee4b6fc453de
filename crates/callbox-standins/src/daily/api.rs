//! The API, and under `/standin` what only a stand-in has.

use std::{collections::HashMap, time::Duration};

use axum::{
    Json, Router,
    extract::{MatchedPath, Path, Query, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::{Value, json};

use super::{Effect, StandIn, Trouble, When, token, trouble};
use crate::serve::Cut;

/// Daily's words for what is wrong.
struct Refusal(StatusCode, &'static str, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1, "info": self.2 }))).into_response()
    }
}

fn invalid(info: String) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, "invalid-request-error", info)
}

fn no_room(name: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "not-found", format!("room {name} does not exist"))
}

type Answer = Result<Json<Value>, Refusal>;

pub(super) fn router(standin: StandIn) -> Router {
    let api = Router::new()
        .route("/v1", get(domain))
        .route("/v1/", get(domain))
        .route("/v1/rooms", get(list).post(make))
        .route("/v1/rooms/{name}", get(show).post(update).delete(remove))
        .route("/v1/rooms/{name}/presence", get(presence))
        .route("/v1/presence", get(all_presence))
        .route("/v1/meeting-tokens", post(make_token))
        .route("/v1/webhooks", post(make_webhook))
        .layer(middleware::from_fn_with_state(standin.clone(), gate));
    let own = Router::new()
        .route("/rooms/{name}/people", get(people).post(join))
        .route("/rooms/{name}/people/{id}", delete(leave))
        .route("/troubles", post(add_trouble).delete(clear_troubles));
    Router::new().merge(api).nest("/standin", own).with_state(standin)
}

/// Count, key, rate limit, trouble; then the call.
async fn gate(State(standin): State<StandIn>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = path.unwrap_or_default().replace("{name}", ":name");
    let path = path.strip_prefix("/v1").unwrap_or(&path);
    let call = format!("{} {}", request.method(), if path.is_empty() { "/" } else { path });
    let effect = {
        let mut world = standin.world();
        *world.calls.entry(call.clone()).or_default() += 1;
        if let Some(refusal) = refuse(&standin, &request) {
            return refusal.into_response();
        }
        if standin.settings.limits && world.rates.exceeded(&call) {
            return throttled();
        }
        trouble::strike(&mut world.troubles, &call)
    };
    let failed = || {
        let info = "something went wrong, says the stand-in".to_owned();
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, "server-error", info).into_response()
    };
    match effect {
        None => next.run(request).await,
        Some(Effect::Slow(ms)) => {
            let answer = next.run(request).await;
            tokio::time::sleep(Duration::from_millis(ms)).await;
            answer
        }
        Some(Effect::Throttled) => throttled(),
        Some(Effect::Forbidden) => {
            let info = "not allowed, says the stand-in".to_owned();
            Refusal(StatusCode::FORBIDDEN, "forbidden-error", info).into_response()
        }
        Some(Effect::ServerError(when)) => {
            done_if(when, request, next).await;
            failed()
        }
        Some(Effect::Cut(when)) => {
            done_if(when, request, next).await;
            let mut answer = failed();
            answer.extensions_mut().insert(Cut);
            answer
        }
    }
}

async fn done_if(when: When, request: Request, next: Next) {
    if when == When::After {
        next.run(request).await;
    }
}

fn throttled() -> Response {
    let info = "too many requests".to_owned();
    Refusal(StatusCode::TOO_MANY_REQUESTS, "rate-limit-error", info).into_response()
}

fn refuse(standin: &StandIn, request: &Request) -> Option<Refusal> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match given.and_then(|given| given.strip_prefix("Bearer ")) {
        None => {
            let info = "missing authorization header".to_owned();
            Some(Refusal(StatusCode::BAD_REQUEST, "authorization-header-error", info))
        }
        Some(key) if key != standin.api_key() => {
            let info = "invalid api key".to_owned();
            Some(Refusal(StatusCode::UNAUTHORIZED, "authentication-error", info))
        }
        Some(_) => None,
    }
}

async fn domain(State(standin): State<StandIn>) -> Json<Value> {
    let settings = &standin.settings;
    Json(json!({ "domain_name": settings.domain, "domain_id": settings.domain_id, "config": {} }))
}

async fn list(
    State(standin): State<StandIn>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(100);
    let after = query.get("starting_after").map(String::as_str);
    Json(standin.world().page(limit.clamp(1, 100), after))
}

async fn make(State(standin): State<StandIn>, Json(body): Json<Value>) -> Answer {
    let mut world = standin.world();
    let name = match body["name"].as_str() {
        Some(name) => name.to_owned(),
        None => world.new_id(),
    };
    let privacy = body["privacy"].as_str().unwrap_or("public").to_owned();
    let properties = match &body["properties"] {
        Value::Null => json!({}),
        properties => properties.clone(),
    };
    world.make(name, &privacy, properties).map(Json).map_err(invalid)
}

async fn show(State(standin): State<StandIn>, Path(name): Path<String>) -> Answer {
    standin.world().shown(&name).map(Json).ok_or_else(|| no_room(&name))
}

async fn update(
    State(standin): State<StandIn>,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let mut world = standin.world();
    let room = world.rooms().get_mut(&name).ok_or_else(|| no_room(&name))?;
    for (property, value) in body["properties"].as_object().into_iter().flatten() {
        room.properties[property.as_str()] = value.clone();
    }
    Ok(Json(world.shown(&name).unwrap_or_default()))
}

async fn remove(State(standin): State<StandIn>, Path(name): Path<String>) -> Answer {
    let mut world = standin.world();
    world.rooms();
    match world.remove(&name) {
        true => Ok(Json(json!({ "deleted": true, "name": name }))),
        false => Err(no_room(&name)),
    }
}

async fn presence(State(standin): State<StandIn>, Path(name): Path<String>) -> Answer {
    standin.world().people_in(&name).map(Json).ok_or_else(|| no_room(&name))
}

async fn all_presence(State(standin): State<StandIn>) -> Json<Value> {
    Json(standin.world().all_people())
}

async fn make_token(State(standin): State<StandIn>, Json(body): Json<Value>) -> Answer {
    let properties = &body["properties"];
    let mut claims = json!({ "d": standin.settings.domain_id, "iat": token::now() as i64 });
    for (property, claim) in
        [("room_name", "r"), ("is_owner", "o"), ("user_name", "u"), ("user_id", "ud")]
    {
        if !properties[property].is_null() {
            claims[claim] = properties[property].clone();
        }
    }
    for same in ["exp", "nbf"] {
        if !properties[same].is_null() {
            claims[same] = properties[same].clone();
        }
    }
    Ok(Json(json!({ "token": token::sign(standin.api_key(), &claims) })))
}

async fn make_webhook(State(standin): State<StandIn>, Json(body): Json<Value>) -> Answer {
    standin.hooks.add(&body).await.map(Json).map_err(invalid)
}

async fn people(State(standin): State<StandIn>, Path(name): Path<String>) -> Json<Value> {
    Json(json!(standin.people(&name)))
}

async fn join(
    State(standin): State<StandIn>,
    Path(name): Path<String>,
    Json(body): Json<Value>,
) -> Answer {
    let joined = standin.join(&name, body["token"].as_str().unwrap_or_default());
    joined.map(|id| Json(json!({ "id": id }))).map_err(invalid)
}

async fn leave(State(standin): State<StandIn>, Path((name, id)): Path<(String, String)>) -> Answer {
    match standin.leave(&name, &id) {
        true => Ok(Json(json!({ "left": true }))),
        false => Err(no_room(&name)),
    }
}

async fn add_trouble(State(standin): State<StandIn>, Json(trouble): Json<Trouble>) -> StatusCode {
    standin.add_trouble(trouble);
    StatusCode::NO_CONTENT
}

async fn clear_troubles(State(standin): State<StandIn>) -> StatusCode {
    standin.clear_troubles();
    StatusCode::NO_CONTENT
}
