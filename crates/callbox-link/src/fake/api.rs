use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use callbox_protocol::agent::{
    AgentError, AgentEventKind, Awake, Clock, Frozen, Health, Hosts, Phase, Prepare, Prepared,
    SessionAccepted, SessionData, Stop, Wake, Warning,
};
use callbox_protocol::join::Rejoin;

use super::bot;
use super::hello::{Shared, answer_hellos};
use super::script::BotReady;
use super::state::{Lines, State};
use crate::Carrier;
use crate::rewind::Rewind;

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Result<Response<Body>, Refusal>;

/// Why a call is not answered with 200.
struct Refusal {
    status: StatusCode,
    error: AgentError,
}

/// Serves one connection after the other on `carrier`.
pub(super) async fn serve(state: Arc<State>, mut carrier: Carrier) {
    use tokio::io::AsyncWriteExt;
    if carrier.write_all(&state.script.rubbish).await.is_err() {
        return;
    }
    tokio::time::sleep(state.script.boot_delay).await;
    let mut carrier = Shared::new(carrier);
    while let Ok(Some(first)) = answer_hellos(&mut carrier).await {
        state.note(|seen| seen.connections += 1);
        let io = TokioIo::new(Rewind::new(first, carrier.clone()));
        let end = CancellationToken::new();
        let service = service_fn(|request| {
            let (state, end) = (Arc::clone(&state), end.clone());
            async move { Ok::<_, Infallible>(answer(state, request, end).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => {}
            () = end.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // Long-lived streams would keep it open; the answer is out long before this.
                let _ = tokio::time::timeout(Duration::from_millis(100), connection).await;
            }
        }
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
    end: CancellationToken,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let call = path.strip_prefix("/v1/").unwrap_or_default();
    if state.script.cut_in.is_some_and(|cut| cut == call) {
        state.cut();
        return std::future::pending().await;
    }
    if let Some((_, raw)) = state.script.raw_answer.as_ref().filter(|(at, _)| *at == call) {
        return Response::new(full(raw.clone()));
    }
    let answer = match (request.method().clone(), call) {
        (Method::CONNECT, _) => tunnel(&state, request),
        (Method::GET, "health") => {
            Ok(json(&Health { version: "fake".to_owned(), phase: state.phase(), uptime_ms: 1 }))
        }
        (Method::GET, "events") => Ok(lines(state, Lines::Events, &request)),
        (Method::GET, "logs") => Ok(lines(state, Lines::Logs, &request)),
        (Method::POST, "prepare") => prepare(&state, request).await,
        (Method::POST, "freeze") => freeze(&state, &end),
        (Method::POST, "wake") => wake(&state, request).await,
        (Method::POST, "clock") => clock(&state, request).await,
        (Method::POST, "hosts") => {
            read::<Hosts>(request).await.map(|_| json(&serde_json::json!({})))
        }
        (Method::POST, "rejoin") => read::<Rejoin>(request).await.map(|rejoin| {
            state.note(|seen| seen.rejoin.push(rejoin));
            json(&serde_json::json!({}))
        }),
        (Method::POST, "session") => session(&state, request).await,
        (Method::POST, "warn") => warn(&state, request).await,
        (Method::POST, "stop") => stop(&state, request).await,
        _ => Err(refusal(StatusCode::NOT_FOUND, "not-found", "no such call")),
    };
    answer.unwrap_or_else(|refusal| {
        let mut response = json(&refusal.error);
        *response.status_mut() = refusal.status;
        response
    })
}

async fn prepare(state: &State, request: Request<Incoming>) -> Answer {
    let prepare: Prepare = read(request).await?;
    state.note(|seen| seen.prepares.push(prepare));
    tokio::time::sleep(state.script.call_delay).await;
    refused(StatusCode::UNPROCESSABLE_ENTITY, state.script.refuse_prepare.as_ref())?;
    advance(state, &[Phase::Booted], Phase::Prepared)?;
    Ok(json(&Prepared { took_ms: 1 }))
}

fn freeze(state: &State, end: &CancellationToken) -> Answer {
    state.note(|seen| seen.freezes += 1);
    refused(StatusCode::CONFLICT, state.script.refuse_freeze.as_ref())?;
    advance(state, &[Phase::Prepared], Phase::Frozen)?;
    end.cancel();
    Ok(json(&Frozen { listening: vec![format!("127.0.0.1:{}", state.script.port)] }))
}

async fn wake(state: &State, request: Request<Incoming>) -> Answer {
    let wake: Wake = read(request).await?;
    state.note(|seen| seen.wakes.push(wake.clone()));
    tokio::time::sleep(state.script.call_delay).await;
    let before = [Phase::Prepared, Phase::Frozen, Phase::Awake];
    advance(state, &before, Phase::Awake)?;
    Ok(json(&Awake {
        generation_id: state.script.generation_id.clone().unwrap_or(wake.generation_id),
        kernel_reseeded: state.script.kernel_reseeded,
        clock_set: state.script.clock_set,
        bot_reseeded: state.script.bot_reseeded,
        names_renewed: state.script.names_renewed,
        unix_ns: state.script.unix_ns.clone().or(Some(wake.unix_ns)),
        reseeded: Vec::new(),
        took_us: Default::default(),
    }))
}

async fn clock(state: &State, request: Request<Incoming>) -> Answer {
    let clock: Clock = read(request).await?;
    state.note(|seen| seen.clocks.push(clock.clone()));
    advance(state, &[Phase::Awake], Phase::Awake)?;
    Ok(json(&Clock { unix_ns: state.script.unix_ns.clone().unwrap_or(clock.unix_ns) }))
}

async fn session(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    let session: SessionData = read(request).await?;
    let session_id = session.session_id.clone();
    tokio::time::sleep(state.script.call_delay).await;
    // From here on without a pause: a dispatcher that dies leaves it done or not done.
    if state.seen().sessions.iter().any(|seen| seen.session_id == session_id) {
        // Asked again over a new connection: it is served already.
        return Ok(json(&SessionAccepted { session_id }));
    }
    state.note(|seen| seen.sessions.push(session));
    refused(StatusCode::UNPROCESSABLE_ENTITY, state.script.refuse_session.as_ref())?;
    advance(state, &[Phase::Awake], Phase::InSession)?;
    match state.script.ready.clone() {
        BotReady::AtOnce => state.event(AgentEventKind::Ready),
        BotReady::OnNotify => {}
        BotReady::Fails(detail) => state.event(AgentEventKind::NotReady { detail }),
        BotReady::After(delay) => {
            let state = Arc::clone(state);
            tokio::spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(delay) => state.event(AgentEventKind::Ready),
                    () = state.bot.cancelled() => {}
                }
            });
        }
    }
    if let Some(code) = state.script.exit_on_session {
        state.bot_exit(Some(code), None, false);
    }
    Ok(json(&SessionAccepted { session_id }))
}

async fn warn(state: &State, request: Request<Incoming>) -> Answer {
    let warning: Warning = read(request).await?;
    let phase = state.phase();
    if phase != Phase::InSession {
        let message = format!("this call is not for the phase {phase:?}");
        return Err(refusal(StatusCode::CONFLICT, "wrong-phase", &message));
    }
    state.note(|seen| seen.warnings.push(warning));
    Ok(json(&serde_json::json!({})))
}

async fn stop(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    let stop: Stop = read(request).await?;
    state.note(|seen| seen.stops.push(Duration::from_millis(stop.grace_ms)));
    state.bot_exit(None, Some(15), false);
    let machine = Arc::clone(state);
    tokio::spawn(async move {
        // Long enough for the answer to get out, as with a real machine's reboot.
        tokio::time::sleep(Duration::from_millis(20)).await;
        machine.stopped.cancel();
    });
    Ok(json(&serde_json::json!({})))
}

fn tunnel(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    if !matches!(state.phase(), Phase::Awake | Phase::InSession) {
        return Err(refusal(
            StatusCode::CONFLICT,
            "wrong-phase",
            "tunnels need a machine that is awake",
        ));
    }
    let to = request.uri().authority().map(ToString::to_string);
    if to != Some(format!("127.0.0.1:{}", state.script.port)) {
        return Err(refusal(StatusCode::BAD_GATEWAY, "not-found", "nothing listens there"));
    }
    state.note(|seen| seen.tunnels += 1);
    let state = Arc::clone(state);
    tokio::spawn(async move {
        if let Ok(io) = hyper::upgrade::on(request).await {
            bot::serve(state, io).await;
        }
    });
    Ok(Response::new(full(Bytes::new())))
}

/// Lines from the one after number `after`, for as long as anybody listens.
fn lines(state: Arc<State>, which: Lines, request: &Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let after = query.strip_prefix("after=").and_then(|n| n.parse().ok()).unwrap_or(0);
    let start = (state.changes(), state, after);
    let body = stream::unfold(start, move |(mut changes, state, index)| async move {
        loop {
            if let Some(line) = state.line(which, index) {
                return Some((Ok(Frame::data(Bytes::from(line))), (changes, state, index + 1)));
            }
            changes.changed().await.ok()?;
        }
    });
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    let kind = http::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn advance(state: &State, from: &[Phase], to: Phase) -> Result<(), Refusal> {
    let phase = state.phase();
    if !from.contains(&phase) {
        let message = format!("this call is not for the phase {phase:?}");
        return Err(refusal(StatusCode::CONFLICT, "wrong-phase", &message));
    }
    state.set_phase(to);
    Ok(())
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let bad = |message: &str| refusal(StatusCode::BAD_REQUEST, "bad-request", message);
    let body = request.into_body().collect().await.map_err(|_| bad("no body"))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| bad(&error.to_string()))
}

fn refused(status: StatusCode, error: Option<&AgentError>) -> Result<(), Refusal> {
    match error.cloned() {
        Some(error) => Err(Refusal { status, error }),
        None => Ok(()),
    }
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Refusal {
    Refusal {
        status,
        error: AgentError {
            code: code.to_owned(),
            message: message.to_owned(),
            log_tail: Vec::new(),
        },
    }
}

fn json(value: &impl Serialize) -> Response<Body> {
    Response::new(full(serde_json::to_vec(value).unwrap_or_default()))
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}
