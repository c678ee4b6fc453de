//! A dispatcher in miniature: enough of the public API, and a parrot, to test the client
//! against sockets.

pub mod binary;
#[allow(dead_code)]
#[path = "../../../src/media.rs"]
pub mod media;
pub mod operate;
pub mod parrot;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use callbox_protocol::api::{EndReason, Outcome, Session, SessionState};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How the stand-in behaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    /// Greets, then repeats what it hears.
    Parrot,
    /// Takes everything, says nothing.
    Mute,
    /// Greets, and answers with something else.
    Talker,
    /// The machine dies before the bot is ready.
    StartFails,
    /// The machine dies in the middle of the greeting.
    DiesInCall,
    /// Nothing ever becomes ready.
    Stuck,
    /// What is to end does not.
    Immortal,
    /// The websocket is not where the answer says.
    NoLine,
    /// As a parrot, but every second one has to wait and every third is refused.
    Crowded,
    /// Every answer is this.
    Says(u16, &'static str, &'static str),
}

pub struct StandIn {
    pub url: String,
    pub shared: Arc<Shared>,
}

pub struct Shared {
    mood: Mood,
    key: Option<&'static str>,
    address: String,
    pub sessions: Mutex<BTreeMap<String, watch::Sender<Session>>>,
    /// Bodies of the starts.
    pub starts: Mutex<Vec<Value>>,
    /// How many lines were opened.
    pub lines: watch::Sender<usize>,
    /// Bytes of audio that the bots got.
    pub got: Mutex<usize>,
    pub operated: operate::Operated,
}

impl StandIn {
    pub async fn new(mood: Mood) -> StandIn {
        StandIn::with_key(mood, None).await
    }

    pub async fn with_key(mood: Mood, key: Option<&'static str>) -> StandIn {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            mood: mood.clone(),
            key,
            address: address.clone(),
            sessions: Mutex::default(),
            starts: Mutex::default(),
            lines: watch::Sender::default(),
            got: Mutex::default(),
            operated: operate::Operated::default(),
        });
        let app = match mood {
            Mood::Says(status, kind, body) => {
                let status = StatusCode::from_u16(status).unwrap();
                let answer = move || async move { (status, [("content-type", kind)], body) };
                Router::new().fallback(any(answer))
            }
            _ => Router::new()
                .route("/start", post(start))
                .route("/ws/{id}", get(media))
                .route("/v1/info", get(info))
                .route("/v1/prices", get(prices))
                .route("/v1/sessions", get(list))
                .route("/v1/sessions/{id}", get(show).delete(stop))
                .route("/v1/sessions/{id}/events", get(events))
                .route("/v1/sessions/{id}/logs", get(logs))
                .merge(operate::routes())
                .with_state(shared.clone()),
        };
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        StandIn { url: format!("http://{address}"), shared }
    }

    /// A session that nobody called for.
    pub fn add(&self, number: usize, bot: &str, state: SessionState) {
        let session = new_session(number, bot, state);
        let ended = session.state == SessionState::Ended;
        let id = session.id.clone();
        self.shared.sessions.lock().unwrap().insert(id.clone(), watch::Sender::new(session));
        if ended {
            self.shared.change(&id, |session| session.state = SessionState::Ending);
            self.shared.end(&id, Outcome::Completed, "client-left", "the client hung up");
        }
    }

    pub fn session(&self, index: usize) -> Session {
        self.shared.sessions.lock().unwrap().values().nth(index).unwrap().borrow().clone()
    }
}

impl Shared {
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Session)) {
        self.sessions.lock().unwrap()[id].send_modify(change);
    }

    pub fn end(&self, id: &str, outcome: Outcome, code: &str, detail: &str) {
        self.change(id, |session| {
            if session.state == SessionState::Ended {
                return;
            }
            session.state = SessionState::Ended;
            session.outcome = Some(outcome);
            session.end_reason = Some(EndReason { code: code.into(), detail: detail.into() });
            session.stages_ms.ended = Some(900.0);
        });
    }

    fn may(&self, headers: &HeaderMap, id: Option<&str>) -> bool {
        let Some(key) = self.key else { return true };
        let given = headers.get("authorization").map(|value| value.to_str().unwrap());
        given == Some(&format!("Bearer {key}"))
            || id.is_some_and(|id| given == Some(&format!("Bearer {}", token(id))))
    }

    fn watch(&self, id: &str) -> Option<watch::Receiver<Session>> {
        Some(self.sessions.lock().unwrap().get(id)?.subscribe())
    }
}

pub fn token(id: &str) -> String {
    format!("{id}.5ec2e7")
}

fn error(status: StatusCode, text: &str) -> Response {
    let body = json!({"error": text, "code": "x", "info": text, "detail": text});
    (status, Json(body)).into_response()
}

async fn start(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Json<Value>,
) -> Response {
    if !shared.may(&headers, None) {
        return error(StatusCode::UNAUTHORIZED, "a key is needed");
    }
    shared.starts.lock().unwrap().push(body.0.clone());
    let count = shared.starts.lock().unwrap().len();
    if shared.mood == Mood::Crowded && count.is_multiple_of(3) {
        let refusal = error(StatusCode::TOO_MANY_REQUESTS, "the host is full");
        return ([("retry-after", "7")], refusal).into_response();
    }
    let number = shared.sessions.lock().unwrap().len() + 1;
    let bot = body["bot"].as_str().unwrap_or("parrot");
    let session = new_session(number, bot, SessionState::Starting);
    let id = session.id.clone();
    shared.sessions.lock().unwrap().insert(id.clone(), watch::Sender::new(session));
    match shared.mood {
        Mood::StartFails => shared.end(&id, Outcome::Failed, "machine-lost", "it went away"),
        Mood::Stuck => {}
        _ => shared.change(&id, |session| {
            session.state = SessionState::Joining;
            session.stages_ms.ready = Some(240.0);
            session.moments.ready = Some(jiff::Timestamp::now().to_string());
        }),
    }
    let path = if shared.mood == Mood::NoLine { "nowhere" } else { "ws" };
    let join = json!({
        "wsUrl": format!("ws://{}/{path}/{id}", shared.address),
        "token": token(&id),
    });
    let mut answer = ([("x-callbox-session-id", id)], Json(join)).into_response();
    if shared.mood == Mood::Crowded && count.is_multiple_of(2) {
        answer.headers_mut().insert("x-callbox-queue-position", count.into());
    }
    answer
}

/// A reserve of one that is full.
async fn info() -> Response {
    let bots = [json!({"name": "parrot", "transports": ["websocket"]})];
    let reserves = json!({"parrot": {"ready": 1, "target": 1}});
    Json(json!({"name": "callbox", "version": "0", "auth": false, "bots": bots, "reserves": reserves}))
        .into_response()
}

/// A dollar an hour, and half of it a day for each of two that wait.
async fn prices() -> Response {
    let parrot = json!({
        "bot": "parrot", "provider": "fly", "session_usd_per_hour": 1.0, "reserve": 2,
        "reserve_usd_per_day": 1.0, "prices_as_of": "2026-06-07",
    });
    Json(json!({ "bots": [parrot] })).into_response()
}

fn new_session(number: usize, bot: &str, state: SessionState) -> Session {
    let session = json!({
        "id": format!("{number:07x}a-0000-4000-8000-000000000000"),
        "bot": bot, "transport": "websocket", "provider": "fake", "state": state,
        "outcome": null, "incarnation": 1, "end_reason": null, "machine": format!("m-{number}"),
        "accelerator": "kvm", "start": "clone", "deadline_at": null,
        "moments": {"accepted": jiff::Timestamp::now().to_string()},
        "stages_ms": {"accepted": 0.0, "admitted": 0.0, "started": 200.0},
        "usage": {"unique_bytes": 30_000_000, "shared_bytes": 90_000_000, "cpu_ms": 400.0,
                  "highest_unique_bytes": 40_000_000, "ready_unique_bytes": 20_000_000,
                  "audible_unique_bytes": null, "end_unique_bytes": 30_000_000},
        "cost": {"machine_usd": 0.25, "machine_ms": 900_000.0, "prices_as_of": "2026-06-07"},
        "start_stages": [{"name": "restore", "ms": 150.0}, {"name": "wake", "ms": 30.0}],
    });
    serde_json::from_value(session).unwrap()
}

async fn media(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if query.get("token") != Some(&token(&id)) {
        return error(StatusCode::FORBIDDEN, "wrong token");
    }
    if shared.watch(&id).is_none_or(|session| session.borrow().state == SessionState::Ended) {
        return error(StatusCode::CONFLICT, "the session is over");
    }
    upgrade.on_upgrade(move |socket: WebSocket| async move {
        parrot::talk(&shared, &shared.mood, &id, socket).await;
        shared.end(&id, Outcome::Completed, "client-left", "the client closed its connection");
    })
}

async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if !shared.may(&headers, None) {
        return error(StatusCode::UNAUTHORIZED, "a key is needed");
    }
    let limit: usize = query.get("limit").map_or(50, |limit| limit.parse().unwrap());
    let mut sessions: Vec<Session> =
        shared.sessions.lock().unwrap().values().map(|session| session.borrow().clone()).collect();
    sessions.reverse();
    let all = query.get("all").is_some_and(|all| all == "true");
    sessions.retain(|session| all || session.state != SessionState::Ended);
    sessions.retain(|session| query.get("bot").is_none_or(|wanted| session.bot == *wanted));
    sessions.retain(|session| query.get("before").is_none_or(|before| session.id < *before));
    let more = sessions.len() > limit;
    sessions.truncate(limit);
    let next = sessions.last().filter(|_| more).map(|session| session.id.clone());
    Json(json!({"sessions": sessions, "next": next})).into_response()
}

async fn show(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if !shared.may(&headers, Some(&id)) {
        return error(StatusCode::UNAUTHORIZED, "a key is needed");
    }
    let Some(mut watch) = shared.watch(&id) else {
        return error(StatusCode::NOT_FOUND, "no such session");
    };
    if query.get("wait").is_some_and(|wait| wait == "ended") {
        let limit = Duration::from_millis(query["timeout_ms"].parse().unwrap());
        let ended = watch.wait_for(|session| session.state == SessionState::Ended);
        if tokio::time::timeout(limit, ended).await.is_err() {
            return error(StatusCode::GATEWAY_TIMEOUT, "not yet");
        }
    }
    let session = watch.borrow().clone();
    Json(session).into_response()
}

async fn stop(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if !shared.may(&headers, Some(&id)) {
        return error(StatusCode::UNAUTHORIZED, "a key is needed");
    }
    if shared.mood != Mood::Immortal {
        shared.end(&id, Outcome::Completed, "stopped", "ended through the API");
    }
    let session = shared.watch(&id).unwrap().borrow().clone();
    (StatusCode::ACCEPTED, Json(session)).into_response()
}

async fn events(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let watch = shared.watch(&id).unwrap();
    let states = futures::stream::unfold(Some((watch, true)), |state| async {
        let (mut watch, first) = state?;
        if !first {
            watch.changed().await.ok()?;
        }
        let session = watch.borrow_and_update().clone();
        let over = session.state == SessionState::Ended;
        Some((session, (!over).then_some((watch, false))))
    });
    let events = states
        .map(|session| Event::default().event("session").json_data(session).unwrap())
        .map(Ok::<_, Infallible>);
    Sse::new(events).into_response()
}

async fn logs(Query(query): Query<BTreeMap<String, String>>) -> Response {
    let entry = |seq: u64, source: &str, text: &str| json!({"seq": seq, "at_ms": 1_700_000_000_000u64 + seq, "source": source, "text": text});
    let entries = [entry(1, "dispatcher", "started"), entry(2, "bot", "hello \u{1b}[31mred")];
    if query.get("follow").is_none_or(|follow| follow != "true") {
        return Json(json!({"logs": entries})).into_response();
    }
    let events = futures::stream::iter(entries)
        .map(|entry| Event::default().event("log").json_data(entry).unwrap())
        .map(Ok::<_, Infallible>);
    Sse::new(events).into_response()
}
