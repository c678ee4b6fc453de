//! What is carried into the machine: the client's media websocket, and HTTP to the bot.

use axum::{
    body::Body,
    extract::{OriginalUri, Path, Request, State, WebSocketUpgrade},
    response::Response,
};
use callbox_core::{SessionId, State as SessionState};

use super::{App, Carried, caller::Participant, error::Error};
use crate::{
    media::{self, Place},
    plane::Handle,
    proxy::{self, Unreachable},
};

/// Largest websocket message, as of Pipecat's own client and server.
const MAX_MESSAGE: usize = 1 << 20;

/// `GET /ws/{id}?token=…`: the client's media.
pub async fn websocket(
    State(app): State<App>,
    caller: Participant,
    Path(id): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Result<Response, Error> {
    let id = SessionId::parse(&id).ok_or(Error::UnknownSession)?;
    caller.may(id)?;
    let handle = driven(&app, id).await?;
    let bot = {
        let session = handle.session.borrow();
        app.plane.bot(&session.bot).cloned()
    };
    let bot = bot.ok_or(Error::Internal)?;
    let place = Place::take(&handle).ok_or(Error::Taken)?;
    Ok(upgrade
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(move |socket| media::carry(app.plane, bot, place, socket)))
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
    let handle = driven(&app, id).await?;
    let port = {
        let session = handle.session.borrow();
        app.plane.bot(&session.bot).map(|bot| bot.machine.run.port)
    };
    let port = port.ok_or(Error::Internal)?;
    let target = match uri.query().map(without_token).filter(|query| !query.is_empty()) {
        Some(query) => format!("/{path}?{query}"),
        None => format!("/{path}"),
    };
    let carried = proxy::carry(&handle, port, &target, request).await;
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

/// The driver of a session that is not over.
async fn driven(app: &App, id: SessionId) -> Result<Handle, Error> {
    if let Some(handle) = app.plane.handle(id) {
        let why = match &handle.session.borrow().state {
            SessionState::Ending { why } | SessionState::Ended { why } => Some(why.clone()),
            _ => None,
        };
        return match why {
            None => Ok(handle),
            why => Err(Error::SessionOver(why)),
        };
    }
    let session = app.plane.session(id).await?.ok_or(Error::UnknownSession)?;
    Err(Error::SessionOver(session.state.why().cloned()))
}
