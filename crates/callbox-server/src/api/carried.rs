//! What is carried into the machine: the client's media websocket, and HTTP to the bot.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{OriginalUri, Path, Request, State},
    response::Response,
};
use callbox_core::{Session, SessionId, State as SessionState};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::{App, Carried, caller::Participant, error::Error};
use crate::{
    media::{self, Line, Place},
    plane::Handle,
    proxy::{self, Unreachable},
    replica, signalling,
};

/// `GET /ws/{id}?token=…`: the client's media. The handshake is answered here and not by axum,
/// which would keep the connection: it may have to go to another process.
pub async fn websocket(
    State(app): State<App>,
    caller: Participant,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let answer = create_response_with_body(&request, Body::empty)
        .map_err(|error| Error::Invalid { what: "request", problem: error.to_string() })?;
    let id = SessionId::parse(&id).ok_or(Error::UnknownSession)?;
    caller.may(id)?;
    let handle = match driven(&app, id).await? {
        Driven::Here(handle) => handle,
        Driven::Elsewhere(driver) => return forward(&app, id, driver, request).await,
    };
    let bot = {
        let session = handle.session.borrow();
        app.plane.bot(&session.bot).cloned()
    };
    let bot = bot.ok_or(Error::Internal)?;
    let place = Place::take(&handle).ok_or(Error::Taken)?;
    let upgrade = hyper::upgrade::on(request);
    let plane = Arc::clone(&app.plane);
    app.plane.spawn(async move {
        match upgrade.await.map(Line::of) {
            Ok(Some(line)) => media::carry(plane, bot, place, line).await,
            Ok(None) => tracing::error!("a client's connection cannot be taken over"),
            // It hung up in the middle of the handshake, and may come again.
            Err(error) => tracing::debug!(%error, "a client did not take the upgrade"),
        }
    });
    Ok(answer)
}

/// `ANY /sessions/{id}/{path}`: the bot's own routes.
pub async fn http(
    State(app): State<App>,
    caller: Participant,
    Path((id, _)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    request: Request<Body>,
) -> Result<Response, Error> {
    let id = SessionId::parse(&id).ok_or(Error::UnknownSession)?;
    caller.may_use(id)?;
    // As it was sent: decoding it here would make another path of it.
    let path = uri.path().splitn(4, '/').nth(3).unwrap_or_default();
    if reserved(path) {
        return Err(Error::Reserved { path: path.to_owned() });
    }
    let handle = match driven(&app, id).await? {
        Driven::Here(handle) => handle,
        Driven::Elsewhere(driver) => return forward(&app, id, driver, request).await,
    };
    let (port, signals) = {
        let session = handle.session.borrow();
        let signals = signalling::is_signalling(&session, request.method(), path);
        (app.plane.bot(&session.bot).map(|bot| bot.machine.run.port), signals)
    };
    let port = port.ok_or(Error::Internal)?;
    let target = match uri.query().map(without_token).filter(|query| !query.is_empty()) {
        Some(query) => format!("/{path}?{query}"),
        None => format!("/{path}"),
    };
    let carried = match signals {
        true => signalling::carry(&app.plane, &handle, port, &target, request).await,
        false => proxy::carry(&app.plane, &handle, port, &target, request).await,
    };
    let mut response = carried.map_err(|unreachable| match unreachable {
        Unreachable::Ended => Error::SessionOver(handle.session.borrow().state.why().cloned()),
        Unreachable::Bot(detail) => Error::BadBot { detail },
        Unreachable::Slow => Error::SlowBot,
    })?;
    response.extensions_mut().insert(Carried);
    Ok(response)
}

/// The query without what opened our door: it is no business of the bot's.
fn without_token(query: &str) -> String {
    let others = query.split('&').filter(|pair| pair.split('=').next() != Some("token"));
    others.collect::<Vec<_>>().join("&")
}

/// Paths of the contract between dispatcher and bot; Pipecat Cloud reserves the same, and we our
/// own wake hook.
fn reserved(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    // What is encoded could become one of them at the bot.
    first.contains('%')
        || matches!(first, "" | "." | ".." | "bot" | "ws" | "readyz" | "livez" | "_callbox")
}

/// Who drives a session that is not over.
enum Driven {
    Here(Handle),
    /// Another replica, or nobody at the moment.
    Elsewhere(Option<String>),
}

async fn driven(app: &App, id: SessionId) -> Result<Driven, Error> {
    let why = |session: &Session| match &session.state {
        SessionState::Ending { why } | SessionState::Ended { why } => Err(why.clone()),
        _ => Ok(()),
    };
    let over = |why| Error::SessionOver(Some(why));
    if let Some(handle) = app.plane.handle(id) {
        why(&handle.session.borrow()).map_err(over)?;
        return Ok(Driven::Here(handle));
    }
    let row = app.plane.store.get(id).await?.ok_or(Error::UnknownSession)?;
    why(&row.session).map_err(over)?;
    Ok(Driven::Elsewhere(row.replica))
}

/// The answer of this replica, about no session.
pub(super) async fn forward_to(
    app: &App,
    replica: &str,
    request: Request<Body>,
) -> Result<Response, Error> {
    let answer = replica::forward::carry_to(&app.plane, replica, request).await;
    let mut response = answer.map_err(Error::Elsewhere)?;
    response.extensions_mut().insert(Carried);
    Ok(response)
}

/// The answer of the replica that drives the session.
pub(super) async fn forward(
    app: &App,
    id: SessionId,
    driver: Option<String>,
    request: Request<Body>,
) -> Result<Response, Error> {
    let answer = replica::forward::carry(&app.plane, id, driver.as_deref(), request).await;
    let mut response = answer.map_err(Error::Elsewhere)?;
    response.extensions_mut().insert(Carried);
    Ok(response)
}
