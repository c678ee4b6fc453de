//! `/v1/sessions`: list, show, wait, watch, end; and their logs.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{
        IntoResponse as _, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
};
use callbox_core::{
    EndCode, EndReason, EventKind, Session, SessionId, State as SessionState, Time, Warning,
};
use callbox_protocol::api::{self, EndWarning, ErrorBody, LogEntry};
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{App, caller::Participant, carried::forward, error::Error, view};
use crate::{
    drain::warning_due,
    driver,
    plane::{Plane, over},
    replica::watch::Follower,
    store::StoreError,
};

/// What a client may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitFor {
    /// The machine runs.
    Started,
    /// The bot can take the call.
    Ready,
    /// Nothing is left.
    Ended,
}

impl WaitFor {
    fn reached(self, session: &Session) -> bool {
        let over = matches!(session.state, SessionState::Ended { .. });
        // What did not happen before the end will not happen: waiting on is pointless.
        over || match self {
            WaitFor::Started => session.moments.started.is_some(),
            WaitFor::Ready => session.moments.ready.is_some(),
            WaitFor::Ended => false,
        }
    }
}

/// How long it is waited for that something is written down: what a call to the store may take.
const WRITTEN: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug, Deserialize)]
pub struct ShowQuery {
    wait: Option<WaitFor>,
    timeout_ms: Option<u64>,
}

/// Show a session; with `wait`, when that has happened or the session has ended.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", tag = "sessions",
    params(
        ("id" = String, Path),
        ("wait" = Option<String>, Query, description = "`started` | `ready` | `ended`"),
        ("timeout_ms" = Option<u64>, Query, description = "30000 if absent; then 504 `not-yet`"),
    ),
    responses((status = 200, body = api::Session), (status = 404, body = ErrorBody), (status = 504, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn show(
    State(app): State<App>,
    caller: Participant,
    Path(id): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Json<api::Session>, Error> {
    let session = find(&app, &caller, &id).await?;
    let session = match query.wait {
        None => session,
        Some(moment) => {
            let patience = query.timeout_ms.map_or(PATIENCE, Duration::from_millis).min(LONGEST);
            wait_for(&app, session.id, moment, patience).await?
        }
    };
    Ok(Json(view::session(&app.plane, &session)))
}

/// End a session. Answers when that is written down; watch it to see it ended.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)),
    responses((status = 202, body = api::Session), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn end(
    State(app): State<App>,
    caller: Participant,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let session = find(&app, &caller, &id).await?;
    let why = EndReason::new(EndCode::Stopped, "ended through the API");
    // Acknowledged is written down: a dispatcher that dies now leaves it to the next one.
    let written = match app.plane.handle(session.id) {
        Some(handle) => {
            handle.tell(EventKind::EndRequested(why.clone()));
            crate::planted::is("end-not-written") || {
                // It stays with the driver, who writes it down as soon as the store is back.
                let away = |_| StoreError::unanswered("write down that a session is to end");
                timeout(WRITTEN, handle.until(over)).await.map_err(away)?.is_some()
            }
        }
        None => false,
    };
    if !written {
        driver::request_end(&app.plane, session.id, why).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(view::session(&app.plane, &session))).into_response())
}

/// Watch a session: server-sent events `session`, each with the whole session, until it ended;
/// `restarting` when its bot died and it gets a fresh machine; and `warning` when its longest time, or that of a drained dispatcher, is nearly over.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/events", tag = "sessions", params(("id" = String, Path)),
    responses((status = 200, description = "text/event-stream", body = api::Session), (status = 404, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn events(
    State(app): State<App>,
    caller: Participant,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let session = find(&app, &caller, &id).await?;
    let plane = Arc::clone(&app.plane);
    let changes = Follower::of(&plane, session.id);
    let stream = async_stream(&app.plane, move |out| async move {
        watch(&plane, changes, &out).await;
    });
    Ok(sse(stream))
}

/// Every change of the row, every change of the place in the queue, and each warning and each fresh
/// machine once.
async fn watch(plane: &Plane, mut changes: Follower, out: &Out) {
    let mut queue = plane.queue.changes();
    let mut warned = false;
    let mut drained_at = None;
    let Some(mut now) = changes.next().await else { return };
    // What is over when somebody begins to watch is no news.
    let ready = |now: &Session| now.ready.then(|| now.restarted.last().copied()).flatten();
    let mut told = ready(&now);
    loop {
        queue.mark_unchanged();
        if !out.send("session", &view::session(plane, &now)).await {
            return;
        }
        if let Some(restarting) = view::restarting(&now)
            && now.restarted.last().copied() != told
        {
            told = now.restarted.last().copied();
            if !out.send("restarting", &restarting).await {
                return;
            }
        }
        if now.state == SessionState::Live && now.warning != Warning::Ahead && !warned {
            warned = true;
            if !out.warn(plane, now.deadline_at, EndCode::MaxDuration).await {
                return;
            }
        }
        if matches!(now.state, SessionState::Ended { .. }) {
            return;
        }
        let place = position(plane, &now);
        // Our own drain ends nobody whom another dispatcher drives.
        let driven_here = |now: &Session| plane.handle(now.id).is_some();
        loop {
            tokio::select! {
                changed = changes.next() => match changed {
                    Some(next) => {
                        now = next;
                        break;
                    }
                    None => return,
                },
                deadline = warning_due(plane, &now, drained_at),
                    if now.state == SessionState::Live && driven_here(&now) => {
                    drained_at = Some(deadline);
                    if !out.warn(plane, deadline, EndCode::Drained).await {
                        return;
                    }
                }
                // The sender lives as long as the plane does.
                _ = queue.changed(), if place.is_some() => {
                    if position(plane, &now) != place {
                        break;
                    }
                }
            }
        }
    }
}

fn position(plane: &Plane, session: &Session) -> Option<usize> {
    plane.queue.place(plane, session).map(|place| place.position)
}

#[derive(Debug, Deserialize)]
pub struct LogsQuery {
    #[serde(default)]
    follow: bool,
}

/// A session's log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct LogList {
    /// In the order in which they were written.
    logs: Vec<LogEntry>,
}

/// Read a session's log; with `follow`, as server-sent events `log` until the session ended.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/logs", tag = "sessions",
    params(("id" = String, Path), ("follow" = Option<bool>, Query)),
    responses((status = 200, body = LogList), (status = 404, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn logs(
    State(app): State<App>,
    caller: Participant,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
    request: Request,
) -> Result<Response, Error> {
    let id = find(&app, &caller, &id).await?.id;
    if let Some(driver) = log_elsewhere(&app, id).await? {
        return forward(&app, id, Some(driver), request).await;
    }
    let unreadable = |error: std::io::Error| {
        tracing::error!(session.id = %id, %error, "cannot read a session's log");
        Error::Internal
    };
    if !query.follow {
        let (logs, _) = app.plane.logs.read(id, 0).map_err(unreadable)?;
        return Ok(Json(LogList { logs }).into_response());
    }
    let mut changes = app.plane.logs.follow(id);
    let plane = Arc::clone(&app.plane);
    let stream = async_stream(&app.plane, move |out| async move {
        let mut offset = 0;
        loop {
            let Ok((entries, next)) = plane.logs.read(id, offset) else { return };
            offset = next;
            for entry in &entries {
                if !out.send("log", entry).await {
                    return;
                }
            }
            let Some(watch) = &mut changes else { return };
            if watch.changed().await.is_err() {
                // The writer is gone: what it wrote last is read once more, then it is over.
                changes = None;
            }
        }
    });
    Ok(sse(stream))
}

/// Which other replica has the log, if one that lives does: the last that drove the session.
async fn log_elsewhere(app: &App, id: SessionId) -> Result<Option<String>, Error> {
    if app.plane.handle(id).is_some() {
        return Ok(None);
    }
    let driver = app.plane.store.get(id).await?.and_then(|row| row.replica);
    Ok(driver.filter(|driver| driver != app.plane.replicas.id()).filter(|driver| {
        // What was written here, before another one went on, is better than nothing.
        app.plane.replicas.other(driver).is_some() || !app.plane.logs.has(id)
    }))
}

/// Where a stream's events are put.
struct Out(tokio::sync::mpsc::Sender<Result<SseEvent, Infallible>>);

impl Out {
    /// False when nobody listens any more.
    async fn send<T: Serialize>(&self, name: &str, data: &T) -> bool {
        let Ok(event) = SseEvent::default().event(name).json_data(data) else { return false };
        self.0.send(Ok(event)).await.is_ok()
    }

    /// That the session will be ended at `deadline` for this reason.
    async fn warn(&self, plane: &Plane, deadline: Time, reason: EndCode) -> bool {
        let ends_in_ms = view::millis(plane.clock.until(deadline));
        self.send("warning", &EndWarning { ends_in_ms, reason: reason.as_str().into() }).await
    }
}

/// A stream of what `produce` puts out; it is dropped when its reader leaves.
fn async_stream<F, Fut>(
    plane: &Plane,
    produce: F,
) -> impl Stream<Item = Result<SseEvent, Infallible>> + use<F, Fut>
where
    F: FnOnce(Out) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let gone = sender.clone();
    let work = produce(Out(sender));
    plane.spawn(async move {
        tokio::select! { () = work => {} () = gone.closed() => {} }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

fn sse(stream: impl Stream<Item = Result<SseEvent, Infallible>> + Send + 'static) -> Response {
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

/// The session of this id, if the caller may see it.
pub async fn find(app: &App, caller: &Participant, id: &str) -> Result<Session, Error> {
    let id = SessionId::parse(id).ok_or(Error::UnknownSession)?;
    caller.may(id)?;
    app.plane.session(id).await?.ok_or(Error::UnknownSession)
}

/// The session as soon as `moment` is reached, or it has ended.
pub async fn wait_for(
    app: &App,
    id: SessionId,
    moment: WaitFor,
    patience: Duration,
) -> Result<Session, Error> {
    let reached = Follower::of(&app.plane, id).until(|session| moment.reached(session));
    match timeout(patience, reached).await {
        Ok(session) => session.ok_or(Error::UnknownSession),
        Err(_) => Err(Error::WaitedTooLong),
    }
}
