//! Where agents dial in whose machines have no port to us (`callbox_protocol::join`).

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::Response,
};
use callbox_core::{MachineState, Session, of_machine_name, of_reserve_name};
use callbox_link::over_websocket;
use callbox_machines::{Denied, Provider};
use callbox_protocol::join::BOOT_HEADER;
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::server::create_response_with_body,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    App,
    caller::bearer,
    carried::{forward, forward_to},
    error::Error,
};
use crate::{
    plane::over,
    replica::{forward::Unreachable, lost_after},
};

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
    if let Some(keeper) = of_reserve_name(&machine) {
        return waiting(&app, &machine, keeper, request, answer).await;
    }
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
            Err(Denied::Token) => Err(BAD_TOKEN),
            _ => Err(Error::MachineOver),
        };
    }
    allowed.map_err(|denied| match denied {
        Denied::Token => BAD_TOKEN,
        Denied::Late => USED_TOKEN,
    })?;
    if let Some(driver) = driver {
        return forward(&app, id, driver, request).await;
    }
    let boot = boot.to_owned();
    let upgrade = hyper::upgrade::on(request);
    arrives(&app, provider, machine, boot, upgrade);
    Ok(answer)
}

/// A machine in reserve comes to the replica that has it, and to no other. That one is certain of
/// what it has; where it is gone for good, nobody wants the machine any more.
async fn waiting(
    app: &App,
    machine: &str,
    keeper: &str,
    request: Request,
    answer: Response,
) -> Result<Response, Error> {
    let (token, boot) = shown(request.headers())?;
    // All who meet agents have the deployment's secret: who it is for shows when it is here.
    let mut meeting = app.plane.providers.values().filter(|one| one.arrivals().is_some());
    let ours = keeper == app.plane.replicas.id();
    let provider = match ours {
        true => meeting.clone().find(|one| one.keeps(machine).is_some()).or(meeting.next()),
        false => meeting.next(),
    };
    let provider = Arc::clone(provider.ok_or(Error::UnknownMachine)?);
    let arrivals = provider.arrivals().ok_or(Error::UnknownMachine)?;
    let allowed = arrivals.admit(machine, token, boot, false);
    if !ours {
        // Whether it may, the other one decides again.
        allowed.map_err(|_| BAD_TOKEN)?;
        return match keeper_lives(app, keeper).await? {
            true => forward_to(app, keeper, request).await,
            false => Err(Error::MachineOver),
        };
    }
    match (allowed, provider.keeps(machine)) {
        (Err(Denied::Token), _) => Err(BAD_TOKEN),
        (_, None) => Err(Error::MachineOver),
        (Err(Denied::Late), _) => Err(USED_TOKEN),
        (Ok(()), Some(false)) => Err(Error::Elsewhere(Unreachable::Nobody)),
        (Ok(()), Some(true)) => {
            let (machine, boot) = (machine.to_owned(), boot.to_owned());
            let upgrade = hyper::upgrade::on(request);
            arrives(app, provider, machine, boot, upgrade);
            Ok(answer)
        }
    }
}

/// Whether the replica lives, or did so lately that it may come back to its machines.
async fn keeper_lives(app: &App, keeper: &str) -> Result<bool, Error> {
    if app.plane.replicas.other(keeper).is_some() {
        return Ok(true);
    }
    let lived = app.plane.store.replicas(lost_after(&app.plane.config)).await?;
    Ok(lived.iter().any(|replica| replica.id == keeper))
}

/// The connection becomes a carrier as soon as it is one.
fn arrives(
    app: &App,
    provider: Arc<dyn Provider>,
    machine: String,
    boot: String,
    upgrade: OnUpgrade,
) {
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
}

const USED_TOKEN: Error = Error::Forbidden { problem: "this token was used" };
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
