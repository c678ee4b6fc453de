//! `POST /start` and `POST /v1/public/{bot}/start`: a client asks for a session.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use callbox_core::{Limits, Session, SessionId, SessionSpec};
use callbox_protocol::api::{
    ErrorBody, Join, QUEUE_POSITION_HEADER, QUEUE_WAIT_HEADER, QueuePlace, SESSION_ID_HEADER,
    StartRequest,
};
use callbox_transports::{Plan, Room, Transport};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    App,
    caller::Starter,
    error::Error,
    sessions::{WaitFor, wait_for},
    view,
};
use crate::{
    config::Bot,
    driver, metrics,
    rollout::{self, Entering},
    store::{Inserted, NewSession, StartKey, Versioned},
};

/// Pipecat Cloud's own bound for this transport: the body travels in a query.
const MAX_WEBSOCKET_BODY: usize = 4096;
const MAX_KEY: usize = 255;
const MAX_LABELS: usize = 16;
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static QUEUE_POSITION: HeaderName = HeaderName::from_static(QUEUE_POSITION_HEADER);
static QUEUE_WAIT: HeaderName = HeaderName::from_static(QUEUE_WAIT_HEADER);
static SESSION_ID: HeaderName = HeaderName::from_static(SESSION_ID_HEADER);

/// What a start may say in its query.
#[derive(Debug, Default, Deserialize)]
pub struct StartQuery {
    /// Answer only when the session is `started` or `ready`; at once when absent.
    wait: Option<WaitFor>,
}

/// Start a session (the shape of Pipecat's development runner).
#[utoipa::path(
    post, path = "/start", tag = "start", request_body = StartRequest,
    params(
        ("wait" = Option<String>, Query, description = "`started` | `ready`: answer only then"),
        ("Idempotency-Key" = Option<String>, Header, description = "same key and body: same session"),
    ),
    responses(
        (status = 200, description = "how to join; header `x-callbox-session-id` names the session", body = Join),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody), (status = 504, body = ErrorBody),
    ),
    security(("key" = []))
)]
pub async fn start(
    State(app): State<App>,
    starter: Starter,
    Query(query): Query<StartQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    begin(&app, starter, query, &headers, &body, None).await.inspect_err(count)
}

/// Start a session of this bot (the shape of Pipecat Cloud).
#[utoipa::path(
    post, path = "/v1/public/{bot}/start", tag = "start", request_body = StartRequest,
    params(("bot" = String, Path, description = "name of the bot")),
    responses(
        (status = 200, description = "how to join", body = Join),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 413, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody), (status = 504, body = ErrorBody),
    ),
    security(("key" = []))
)]
pub async fn start_bot(
    State(app): State<App>,
    starter: Starter,
    Path(bot): Path<String>,
    Query(query): Query<StartQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Error> {
    begin(&app, starter, query, &headers, &body, Some(bot)).await.inspect_err(count)
}

fn count(error: &Error) {
    metrics::refused(match error {
        Error::AtCapacity { .. } => "at-capacity",
        Error::QueueFull { .. } => "queue-full",
        Error::Closing => "shutting-down",
        Error::Draining => "draining",
        Error::StoreAway => "store-away",
        Error::Internal => "internal",
        _ => "bad-request",
    });
}

async fn begin(
    app: &App,
    starter: Starter,
    query: StartQuery,
    headers: &HeaderMap,
    body: &Bytes,
    bot_in_path: Option<String>,
) -> Result<Response, Error> {
    if app.plane.closing() {
        return Err(Error::Closing);
    }
    let draining = app.plane.drain.now().is_some();
    let (request, asked) = parse(body)?;
    let bot = find_bot(app, bot_in_path.as_deref().or(request.bot.as_deref()))?;
    let transport = find_transport(app, bot, &request)?;
    let room_options = transport.check(&asked)?;
    let entering = rollout::enter(&app.plane, &bot.name);
    let new = NewSession {
        session: new_session(app, bot, (&**transport, room_options), request, headers, &entering)?,
        replica: app.plane.replicas.id().to_owned(),
        start_key: start_key(headers, starter, bot, body)?,
        total_cap: app.plane.config.max_sessions,
        bot_cap: bot.max_sessions,
        queue_cap: app.plane.config.max_queued,
    };
    if draining {
        let row = known_before(app, new).await?;
        return answer(app, &row, query.wait).await;
    }
    let plane = Arc::clone(&app.plane);
    // In a task of its own: a client that hangs up drops this request wherever it is, and a row
    // that was inserted must get its driver.
    let inserted = app.plane.spawn(async move {
        let inserted = driver::accept(&plane, new).await;
        // From here on its driver is why the version stays.
        drop(entering);
        inserted
    });
    let row = match inserted.await.ok_or(Error::Internal)?? {
        Inserted::Created(row) | Inserted::Existing(row) => row,
        Inserted::KeyReused => return Err(Error::KeyReused),
        Inserted::AtCapacity { bot, cap } => {
            let retry = app.plane.queue.retry_for_an_end(&app.plane);
            return Err(Error::AtCapacity { bot, cap, retry });
        }
        Inserted::QueueFull { cap } => {
            let retry = app.plane.queue.retry_for_a_place(&app.plane, &bot.provider);
            return Err(Error::QueueFull { cap, retry });
        }
    };
    answer(app, &row, query.wait).await
}

/// The session of a start that is repeated: its client has not heard the answer. While the
/// dispatcher is drained there is room for no other, and the store is asked with that.
async fn known_before(app: &App, new: NewSession) -> Result<Versioned, Error> {
    if new.start_key.is_none() {
        return Err(Error::Draining);
    }
    let nobody = NewSession { total_cap: 0, ..new };
    match app.plane.store.insert(&nobody).await? {
        Inserted::Existing(row) => Ok(row),
        Inserted::KeyReused => Err(Error::KeyReused),
        Inserted::Created(_) | Inserted::AtCapacity { .. } | Inserted::QueueFull { .. } => {
            Err(Error::Draining)
        }
    }
}

async fn answer(app: &App, row: &Versioned, wait: Option<WaitFor>) -> Result<Response, Error> {
    let session = &row.session;
    let id = HeaderValue::from_str(&session.id.to_string()).expect("a uuid is a header value");
    // As it is when the answer is made, before any waiting.
    let place = queue_place(app, session.id).await?;
    if let Some(moment) = wait
        && let Err(error) = reached(app, session, moment).await
    {
        // There is a session all the same, and this is how to find it.
        return Ok(([(SESSION_ID.clone(), id)], error).into_response());
    }
    let transport = app.plane.transports.get(session.transport.as_str()).ok_or(Error::Internal)?;
    // Only the client's half is used here, and it does not depend on the port.
    let port = app.plane.bot(&session.bot).map_or(0, |bot| bot.machine.run.port);
    let (room, base_url) = (Room::of(session), session.base_url.as_str());
    let join = transport.plan(&Plan { room: &room, base_url, bot_port: port });
    let mut response = ([(SESSION_ID.clone(), id)], Json(join.client)).into_response();
    if let Some(place) = place {
        let headers = response.headers_mut();
        headers.insert(QUEUE_POSITION.clone(), HeaderValue::from(place.position));
        if let Some(wait) = place.wait_ms {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole, from a u32
            headers.insert(QUEUE_WAIT.clone(), HeaderValue::from(wait as u64));
        }
    }
    Ok(response)
}

/// The answer's shapes are others' and take no more fields: a header says who must wait.
async fn queue_place(app: &App, id: SessionId) -> Result<Option<QueuePlace>, Error> {
    let session = app.plane.session(id).await?;
    Ok(session.and_then(|session| view::queue_place(&app.plane, &session)))
}

/// Waits for a moment of a session's start; one that ends before is no good answer.
async fn reached(app: &App, session: &Session, moment: WaitFor) -> Result<(), Error> {
    let Limits { queued, start, ready, .. } = session.limits;
    let patience = queued + start + ready + Duration::from_secs(1);
    let now = wait_for(app, session.id, moment, patience).await?;
    match now.state.why() {
        None => Ok(()),
        Some(why) => Err(Error::SessionOver(Some(why.clone()))),
    }
}

/// An empty body is legal and means nothing special; what is there must be an object. As we read
/// it, and as it came, for the transport's own words.
fn parse(body: &Bytes) -> Result<(StartRequest, Map<String, Value>), Error> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Default::default());
    }
    let invalid = |problem: String| Error::Invalid { what: "body", problem };
    // serde would take an array for a struct, field by field.
    let object: Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    let request = StartRequest::deserialize(&object);
    Ok((request.map_err(|error| invalid(error.to_string()))?, object))
}

fn find_bot<'a>(app: &'a App, name: Option<&str>) -> Result<&'a Arc<Bot>, Error> {
    let bots = &app.plane.config.bots;
    let found = match name {
        Some(name) => bots.get(name),
        None if bots.len() == 1 => bots.values().next(),
        None => None,
    };
    found.ok_or_else(|| Error::UnknownBot {
        name: name.unwrap_or_default().into(),
        known: bots.keys().cloned().collect(),
    })
}

/// First hit wins, as in Pipecat's runner: `transport`, then `createDailyRoom`, then the default.
fn find_transport<'a>(
    app: &'a App,
    bot: &Bot,
    request: &StartRequest,
) -> Result<&'a Arc<dyn Transport>, Error> {
    let asked = match (&request.transport, request.create_daily_room) {
        (Some(name), _) => name.as_str(),
        (None, Some(true)) => "daily",
        (None, _) => bot.transports.first().map_or("websocket", String::as_str),
    };
    let allowed = bot.transports.iter().any(|name| name == asked);
    let known = app.plane.transports.get(asked);
    known.filter(|_| allowed).ok_or_else(|| Error::UnknownTransport {
        name: asked.into(),
        allowed: bot.transports.clone(),
    })
}

fn new_session(
    app: &App,
    bot: &Bot,
    (transport, room_options): (&dyn Transport, Value),
    request: StartRequest,
    headers: &HeaderMap,
    entering: &Entering,
) -> Result<Session, Error> {
    let body = request.body.unwrap_or(Value::Null);
    if transport.name() == "websocket" && body.to_string().len() > MAX_WEBSOCKET_BODY {
        return Err(Error::TooLarge { limit: MAX_WEBSOCKET_BODY });
    }
    let spec = SessionSpec {
        id: SessionId(Uuid::new_v4()),
        bot: bot.name.clone(),
        transport: transport.name().into(),
        provider: bot.provider.clone(),
        body,
        room_options,
        base_url: base_url(app, headers)?,
        labels: check_labels(request.labels)?,
        version: entering.version().clone(),
        place: String::new(),
        limits: bot.limits,
        ready_when: bot.ready_when,
        restarts: bot.restarts,
    };
    Ok(Session::accepted(spec, app.plane.clock.now()))
}

/// Labels are for lists: few and short.
fn check_labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let invalid = |problem: String| Err(Error::Invalid { what: "labels", problem });
    if labels.len() > MAX_LABELS {
        return invalid(format!("there are {}, at most {MAX_LABELS} are kept", labels.len()));
    }
    for (name, value) in &labels {
        if !(1..=64).contains(&name.chars().count()) || value.chars().count() > 256 {
            return invalid(format!("{name:?}: a name has 1 to 64 characters, a value up to 256"));
        }
        // In a list, they are asked for as `name:value`.
        if name.contains(':') || name.chars().chain(value.chars()).any(char::is_control) {
            return invalid(format!("{name:?}: no colon in a name, no control characters at all"));
        }
    }
    Ok(labels)
}

/// The dispatcher's address as this client sees it, for its websocket.
fn base_url(app: &App, headers: &HeaderMap) -> Result<String, Error> {
    if let Some(url) = &app.plane.config.public_url {
        return Ok(url.replacen("http", "ws", 1));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host =
        host.filter(|host| !host.is_empty() && host.len() < 256).ok_or_else(|| Error::Invalid {
            what: "Host header",
            problem: "it is missing, and no public_url is set".into(),
        })?;
    let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    Ok(format!("{}://{host}", if secure { "wss" } else { "ws" }))
}

fn start_key(
    headers: &HeaderMap,
    starter: Starter,
    bot: &Bot,
    body: &Bytes,
) -> Result<Option<StartKey>, Error> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY);
    let key = key.ok_or_else(|| Error::Invalid {
        what: "Idempotency-Key",
        problem: format!("it must have 1 to {MAX_KEY} visible characters"),
    })?;
    let mut hash = Sha256::new();
    hash.update(bot.name.as_bytes());
    hash.update([0]);
    hash.update(body);
    Ok(Some(StartKey {
        scope: starter.scope,
        key: key.into(),
        body_hash: hex::encode(hash.finalize()),
    }))
}
