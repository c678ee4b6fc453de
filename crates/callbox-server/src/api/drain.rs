//! `/v1/drain`: no new sessions here, while those that live go on.

use std::time::Duration;

use axum::{Json, body::Bytes, extract::State};
use callbox_core::{Session, State as SessionState};
use callbox_protocol::api::{self, DrainRequest, DrainSession, ErrorBody};

use super::{App, caller::Operator, error::Error, view};
use crate::{clock::rfc3339, drain, plane::Plane};

/// More than this nobody reads; the counts are of all.
const SHOWN: usize = 100;
/// Longer than this no session lives.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Take no new sessions; with a deadline, end what lives then. Asked again, a new deadline
/// replaces the one before.
#[utoipa::path(
    post, path = "/v1/drain", tag = "operate", request_body = DrainRequest,
    responses((status = 200, body = api::Drain), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn begin(
    State(app): State<App>,
    _operator: Operator,
    body: Bytes,
) -> Result<Json<api::Drain>, Error> {
    let invalid = |problem: String| Error::Invalid { what: "body", problem };
    let request: DrainRequest = match body.iter().all(u8::is_ascii_whitespace) {
        true => DrainRequest::default(),
        false => serde_json::from_slice(&body).map_err(|error| invalid(error.to_string()))?,
    };
    let deadline = request.deadline_ms.map(Duration::from_millis);
    if deadline.is_some_and(|deadline| deadline > LONGEST) {
        return Err(invalid("deadline_ms is more than a year".into()));
    }
    drain::begin(&app.plane, deadline);
    Ok(Json(status_of(&app.plane)))
}

/// Whether sessions are taken, and which still live here.
#[utoipa::path(
    get, path = "/v1/drain", tag = "operate",
    responses((status = 200, body = api::Drain), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn status(State(app): State<App>, _operator: Operator) -> Json<api::Drain> {
    Json(status_of(&app.plane))
}

/// Take sessions again. What a deadline has ended stays ended.
#[utoipa::path(
    delete, path = "/v1/drain", tag = "operate",
    responses((status = 200, body = api::Drain), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn cancel(
    State(app): State<App>,
    _operator: Operator,
) -> Result<Json<api::Drain>, Error> {
    match drain::cancel(&app.plane) {
        true => Ok(Json(status_of(&app.plane))),
        false => Err(Error::Closing),
    }
}

fn status_of(plane: &Plane) -> api::Drain {
    let drain = plane.drain.now();
    let handles = plane.handles();
    let mut living: Vec<Session> =
        handles.iter().map(|(_, handle)| handle.session.borrow().clone()).collect();
    living.retain(|session| !matches!(session.state, SessionState::Ended { .. }));
    living.sort_unstable_by_key(|session| (session.moments.accepted, session.id));
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let queued = living.iter().filter(|session| session.state == SessionState::Queued).count();
    api::Drain {
        replica: plane.replicas.id().to_owned(),
        draining: drain.is_some(),
        since: drain.map(|drain| rfc3339(drain.since)),
        deadline_at: drain.and_then(|drain| drain.deadline).map(rfc3339),
        live: count(living.len()),
        queued: count(queued),
        sessions: living.iter().take(SHOWN).map(session).collect(),
    }
}

fn session(session: &Session) -> DrainSession {
    DrainSession {
        id: session.id.to_string(),
        bot: session.bot.clone(),
        state: view::state(session.state.kind()),
        accepted: rfc3339(session.moments.accepted),
        deadline_at: rfc3339(session.deadline_at),
    }
}
