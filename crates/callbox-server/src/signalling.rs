//! Transport `webrtc`: offers and candidates on their way to the bot.
//!
//! Clients take a refusal as final and give up after some seconds of errors, so whatever is early
//! is held, and nothing is refused that may yet be taken. Nothing is sent twice: an offer is good
//! for one answer, and whether a bot saw it cannot be known once it was under way. Its client
//! makes another one.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Method, Request, Response},
};
use callbox_core::{EventKind, Session};
use tokio::sync::Mutex;

use crate::{
    plane::{Handle, Plane, over},
    proxy::{self, Unreachable},
};

/// Where clients send them, below their session.
const PATH: &str = "api/offer";

/// Has the offers and candidates of one session wait for each other: a bot takes candidates only
/// of a connection that it has answered for.
#[derive(Clone, Debug, Default)]
pub struct Turn(Arc<Mutex<()>>);

/// Whether this is one of them.
pub fn is_signalling(session: &Session, method: &Method, path: &str) -> bool {
    session.transport == "webrtc"
        && path == PATH
        && (*method == Method::POST || *method == Method::PATCH)
}

/// Holds it until its turn, then has the bot answer. The first offer that a bot accepts is how its
/// client joins.
pub async fn carry(
    plane: &Plane,
    handle: &Handle,
    port: u16,
    path_and_query: &str,
    request: Request<Body>,
) -> Result<Response<Body>, Unreachable> {
    let offers = *request.method() == Method::POST;
    if !offers {
        // In the row, so that another dispatcher knows it, too.
        let accepted = |session: &Session| session.moments.joined.is_some() || over(session);
        handle.until(accepted).await.filter(|session| !over(session)).ok_or(Unreachable::Ended)?;
    }
    let _turn = handle.signalling.0.lock().await;
    let answer = proxy::carry(plane, handle, port, path_and_query, request).await?;
    if offers && answer.status().is_success() {
        handle.tell(EventKind::ClientJoined);
    }
    Ok(answer)
}
