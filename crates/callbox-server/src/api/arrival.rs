//! Where agents dial in whose machines have no port to us (`callbox_protocol::join`).

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::Response,
};
use callbox_core::{MachineState, Session, of_machine_name};
use callbox_link::over_websocket;
use callbox_protocol::join::BOOT_HEADER;
use http::HeaderMap;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::server::create_response_with_body,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{App, caller::bearer, carried::forward, error::Error};
use crate::plane::over;

/// Largest message. What the agent sends at once is far smaller.
const MAX_MESSAGE: usize = 1 << 20;

/// `GET /v1/machines/{machine}/link`: the connection becomes the carrier of the agent's protocol.
/// Answers 410 only to who proved to be the machine, and only when nobody will want it again.
pub async fn link(
    State(app): State<App>,
    Path(machine): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let answer = create_response_with_body(&request, Body::empty)
        .map_err(|error| Error::Invalid { what: "request", problem: error.to_string() })?;
    let (id, incarnation) = of_machine_name(&machine).ok_or(Error::UnknownMachine)?;
    let (session, driver) = match app.plane.handle(id) {
        Some(handle) => (handle.session.borrow().clone(), None),
        None => {
            let row = app.plane.store.get(id).await?.ok_or(Error::UnknownMachine)?;
            (row.session, Some(row.replica))
        }
    };
    let provider = app.plane.providers.get(session.provider.as_str()).map(Arc::clone);
    let provider = provider.ok_or(Error::UnknownMachine)?;
    let arrivals = provider.arrivals().ok_or(Error::UnknownMachine)?;
    let (token, boot) = shown(request.headers())?;
    let has_started = session.machine != MachineState::Wanted || session.incarnation != incarnation;
    let allowed = arrivals.admit(&machine, token, boot, has_started);
    if is_over(&session, incarnation) {
        // Whoever has any token of this machine may know that it is not wanted.
        return match allowed {
            Err(callbox_machines::Denied::Token) => Err(BAD_TOKEN),
            _ => Err(Error::MachineOver),
        };
    }
    allowed.map_err(|denied| match denied {
        callbox_machines::Denied::Token => BAD_TOKEN,
        callbox_machines::Denied::Late => Error::Forbidden { problem: "this token was used" },
    })?;
    if let Some(driver) = driver {
        return forward(&app, id, driver, request).await;
    }
    let boot = boot.to_owned();
    let upgrade = hyper::upgrade::on(request);
    app.plane.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let stream = TokioIo::new(upgraded);
        let websocket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        if let Some(arrivals) = provider.arrivals() {
            arrivals.arrive(&machine, &boot, over_websocket(websocket));
        }
    });
    Ok(answer)
}

const BAD_TOKEN: Error = Error::Unauthorized { problem: "this token is not this machine's" };

/// The agent's token, and the process that it says it is.
fn shown(headers: &HeaderMap) -> Result<(&str, &str), Error> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_boot = |boot: &&str| boot.len() == 32 && boot.bytes().all(|b| b.is_ascii_hexdigit());
    let boot = text(BOOT_HEADER).filter(is_boot);
    bearer(headers)
        .zip(boot)
        .ok_or(Error::Unauthorized { problem: "this is for machines of sessions" })
}

/// Whether this machine is not, and will never again be, the one that the session needs.
fn is_over(session: &Session, incarnation: u32) -> bool {
    let has_one = matches!(session.machine, MachineState::Wanted | MachineState::Running);
    over(session) || session.incarnation != incarnation || !has_one
}
