//! The calls of the protocol.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use callbox_protocol::agent::{Clock, Hosts, Prepare, SessionData, Stop, Wake, Warning};
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::feed::{Feed, follow};
use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::serve::Access;
use crate::{end, hosts, prepare, session, tunnel, wake, warn};

/// Longest request that is read, in bytes.
const MAX_REQUEST: usize = 4 * 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Result<Response<Body>, Refusal>;

/// Answers one call, whose first bytes came at `came_at`. `close` asks the connection to end.
pub(crate) async fn answer(
    machine: Arc<Machine>,
    request: Request<Incoming>,
    access: Access,
    close: Arc<watch::Sender<bool>>,
    came_at: Instant,
) -> Response<Body> {
    // In a task of its own: a call that has begun is carried out, even if the host goes away
    // in the middle of it.
    let answering = tokio::spawn(dispatch(machine, request, access, close, came_at));
    let answer = answering.await.unwrap_or_else(|error| Err(Refusal::internal(error.to_string())));
    answer.unwrap_or_else(|refusal| {
        let mut response = json(&refusal.error);
        *response.status_mut() = refusal.status;
        response
    })
}

async fn dispatch(
    machine: Arc<Machine>,
    request: Request<Incoming>,
    access: Access,
    close: Arc<watch::Sender<bool>>,
    came_at: Instant,
) -> Answer {
    let call = (request.method().clone(), request.uri().path().to_owned());
    match (call.0, call.1.as_str()) {
        (Method::CONNECT, _) => {
            tunnel::open(&machine, request, access).await?;
            Ok(Response::new(Full::default().boxed_unsync()))
        }
        (method, path) if access == Access::Media => {
            Err(Refusal::not_found(format!("there is no call {method} {path} on the media port")))
        }
        (Method::GET, "/v1/health") => Ok(json(&machine.health())),
        (Method::GET, "/v1/events") => Ok(lines(machine.events.clone(), &request, &close)),
        (Method::GET, "/v1/logs") => Ok(lines(machine.logs.clone(), &request, &close)),
        (Method::POST, "/v1/prepare") => {
            let asked: Prepare = read(request).await?;
            Ok(json(&prepare::prepare(&machine, asked).await?))
        }
        (Method::POST, "/v1/freeze") => {
            let frozen = prepare::freeze(&machine).await?;
            close.send_replace(true);
            Ok(json(&frozen))
        }
        (Method::POST, "/v1/wake") => {
            let asked: Wake = read(request).await?;
            Ok(json(&wake::wake(&machine, asked, came_at).await?))
        }
        (Method::POST, "/v1/clock") => {
            let clock: Clock = read(request).await?;
            Ok(json(&wake::clock::set_again(&machine, &clock, came_at)?))
        }
        (Method::POST, "/v1/hosts") => {
            let asked: Hosts = read(request).await?;
            hosts::tell(&machine, &asked)?;
            Ok(json(&serde_json::json!({})))
        }
        (Method::POST, "/v1/rejoin") => {
            machine.set_rejoin(read(request).await?);
            Ok(json(&serde_json::json!({})))
        }
        (Method::POST, "/v1/session") => {
            let data: SessionData = read(request).await?;
            Ok(json(&session::accept(&machine, data)?))
        }
        (Method::POST, "/v1/warn") => {
            let warning: Warning = read(request).await?;
            warn::warn(&machine, &warning).await?;
            Ok(json(&serde_json::json!({})))
        }
        (Method::POST, "/v1/stop") => {
            let asked: Stop = read(request).await?;
            tokio::spawn(end::stop(machine, Duration::from_millis(asked.grace_ms)));
            Ok(json(&serde_json::json!({})))
        }
        (method, path) => Err(Refusal::not_found(format!("there is no call {method} {path}"))),
    }
}

fn lines(
    feed: Arc<dyn Feed>,
    request: &Request<Incoming>,
    close: &watch::Sender<bool>,
) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = query.split('&');
    let after = pairs.find_map(|pair| pair.strip_prefix("after=")?.parse().ok());
    let body = follow(feed, after.unwrap_or(0), close.subscribe());
    with_type(body.boxed_unsync(), "application/x-ndjson")
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect().await;
    let body = body.map_err(|error| {
        Refusal::bad_request(format!("the request's body cannot be read: {error}"))
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        // Only where it is: serde's own message can quote a secret.
        let (line, column) = (error.line(), error.column());
        Refusal::bad_request(format!(
            "the request's body is not what was expected at line {line}, column {column}"
        ))
    })
}

fn json(value: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    with_type(Full::from(body).boxed_unsync(), "application/json")
}

fn with_type(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
