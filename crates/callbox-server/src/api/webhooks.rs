//! `POST /v1/webhooks/{transport}`: what a transport's vendor saw in a room.
//!
//! Nobody is asked for a key: the transport checks the vendor's signature. What was seen goes to
//! the session's driver, wherever that is; the request is passed on as it came, and checked again
//! there. One that gets lost is no trouble, as every driver looks into its room all the same.

use std::collections::BTreeMap;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, Request, StatusCode, Uri},
};
use callbox_core::{EventKind, SessionId};
use callbox_protocol::api::ErrorBody;
use callbox_transports::{Sight, WebhookRefusal};

use super::{App, carried::forward, error::Error};
use crate::{plane::Handle, replica::forward::is_forwarded};

/// Tell what was seen in a room (for the transport's vendor, who signs it).
///
/// Answered with 200 as soon as it is believed, and before anything came of it: vendors wait for
/// a few seconds only, and stop sending to whoever makes them wait.
#[utoipa::path(
    post, path = "/v1/webhooks/{transport}", tag = "operate",
    request_body(content = String, description = "as the vendor sends it"),
    params(("transport" = String, Path, description = "name of the transport")),
    responses(
        (status = 200, description = "it is believed"),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    )
)]
pub async fn receive(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Error> {
    let transport = app.plane.transports.get(name.as_str());
    let transport = transport.ok_or(Error::Webhook(WebhookRefusal::NoWebhooks))?;
    let seen = transport.webhook(&headers, &body, app.plane.clock.now());
    let seen = seen.map_err(|refusal| {
        tracing::debug!(transport = name, %refusal, "a webhook was not taken");
        Error::Webhook(refusal)
    })?;
    let mut elsewhere = BTreeMap::new();
    for seen in seen {
        match app.plane.handle(seen.session) {
            Some(handle) if handle.session.borrow().transport == name => {
                transport.heard_of(seen.session);
                tell(&handle, seen.sight);
            }
            Some(_) => {}
            None => drop(elsewhere.insert(seen.session, seen.sight)),
        }
    }
    if !elsewhere.is_empty() && !is_forwarded(&headers) {
        let plane = app.plane.clone();
        plane.spawn(async move {
            for session in elsewhere.into_keys() {
                pass_on(&app, session, &uri, &headers, &body).await;
            }
        });
    }
    Ok(StatusCode::OK)
}

fn tell(handle: &Handle, sight: Sight) {
    match sight {
        Sight::BotJoined => handle.tell(EventKind::BotPresent),
        Sight::ClientJoined => handle.tell(EventKind::ClientJoined),
        Sight::Changed => {}
    }
    handle.room_news.notify_one();
}

/// To whoever drives the session. One that nobody knows may be another deployment's, or over.
async fn pass_on(app: &App, session: SessionId, uri: &Uri, headers: &HeaderMap, body: &Bytes) {
    let Ok(Some(row)) = app.plane.store.get(session).await else { return };
    if row.session.moments.ended.is_some() {
        return;
    }
    let mut request = Request::post(uri.clone()).body(Body::from(body.clone()));
    if let Ok(request) = &mut request {
        *request.headers_mut() = headers.clone();
    }
    let Ok(request) = request else { return };
    if let Err(error) = forward(app, session, row.replica, request).await {
        let session = session.to_string();
        tracing::info!(session.id = session, ?error, "a webhook did not reach its session");
    }
}
