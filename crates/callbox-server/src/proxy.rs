//! HTTP of a session, carried into its machine: `/sessions/{id}/{path}` → the bot's `/{path}`.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version, header},
};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::plane::{Handle, Plane, over};

/// How long a bot may take to begin its answer.
const ANSWER: Duration = Duration::from_secs(120);

/// Why a request did not reach the bot.
pub enum Unreachable {
    /// The session ended, or ends, before the bot was ready.
    Ended,
    /// The bot does not accept it.
    Bot(String),
    /// The bot does not answer it.
    Slow,
}

/// Headers that belong to one connection and not to the message.
const OF_A_CONNECTION: [&str; 9] = [
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Waits until the bot is ready, then has it answer. Bodies flow both ways as they come.
pub async fn carry(
    plane: &Plane,
    handle: &Handle,
    port: u16,
    path_and_query: &str,
    request: Request<Body>,
) -> Result<Response<Body>, Unreachable> {
    let ready = handle.until(|s| s.ready || over(s)).await;
    let id = ready.filter(|session| !over(session)).ok_or(Unreachable::Ended)?.id;
    let link = handle.agent().await.ok_or(Unreachable::Ended)?;
    let tunnel = link.tunnel(port).await.map_err(|error| Unreachable::Bot(error.to_string()))?;
    let broke = |error: hyper::Error| Unreachable::Bot(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tunnel)).await.map_err(broke)?;
    plane.spawn(async move {
        // How it ends is seen by whoever reads the answer.
        let _ = connection.await;
    });

    let (mut parts, body) = request.into_parts();
    parts.uri =
        Uri::try_from(path_and_query).map_err(|error| Unreachable::Bot(error.to_string()))?;
    parts.headers = carried(&parts.headers);
    let local = HeaderValue::from_str(&format!("127.0.0.1:{port}")).expect("digits and dots");
    parts.headers.insert("host", local);
    let id = HeaderValue::from_str(&id.to_string()).expect("a uuid is a header value");
    parts.headers.insert("x-daily-session-id", id);
    parts.version = Version::HTTP_11;
    let answer = timeout(ANSWER, sender.send_request(Request::from_parts(parts, body)));
    let (mut parts, body) =
        answer.await.map_err(|_| Unreachable::Slow)?.map_err(broke)?.into_parts();
    parts.headers = carried(&parts.headers);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// What the bot shall see: the message's own, but for what opened our door.
fn carried(headers: &HeaderMap) -> HeaderMap {
    those(headers, |name| of_the_message(name) && name != header::AUTHORIZATION)
}

/// Whether a header goes on with its message from one connection to the next.
pub(crate) fn of_the_message(name: &HeaderName) -> bool {
    !OF_A_CONNECTION.contains(&name.as_str())
}

/// Those headers that `keep` names.
pub(crate) fn those(headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    headers.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}
