//! Passing on what only the replica that drives a session can answer: what goes into its machine,
//! and its log.
//!
//! The request goes on as it came, credentials included, so the other one decides again who may.
//! One that was passed on is not passed on again: who drives a session may change in between, and
//! then the client asks anew.

use std::{io, sync::Arc, time::Duration};

use axum::body::Body;
use callbox_core::SessionId;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, net::TcpStream, time::timeout};

use super::{look_around, watch::driver_changed};
use crate::{
    plane::Plane,
    proxy::{of_the_message, those},
    store::Replica,
};

/// Says which replica passed a request on.
static FORWARDED: HeaderName = HeaderName::from_static("x-callbox-forwarded");
/// How long another replica may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Why a request was not passed on, or not answered.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// Nobody drives the session just now.
    #[error("no dispatcher drives the session at the moment")]
    Nobody,
    /// The replica has not said where it is reached, or is no more.
    #[error("dispatcher {0}, which drives the session, cannot be reached from here")]
    Unknown(String),
    /// It does not accept our connection.
    #[error("dispatcher {replica}, which drives the session, cannot be reached at {url}")]
    Refused {
        /// Its id.
        replica: String,
        /// Where it was tried.
        url: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was passed on to us, and we do not drive the session either.
    #[error("the session is changing hands")]
    Moving,
    /// The connection broke, or the session got another driver, after the request was sent.
    #[error("dispatcher {0} went away with the request")]
    Lost(String),
}

impl Unreachable {
    /// Whether the request may have been acted on all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Unreachable::Lost(_))
    }
}

/// Whether another replica passed this request on.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(&FORWARDED)
}

/// Has the replica `driver` answer a request about a session. Bodies flow both ways as they come,
/// and so do the bytes of an upgraded connection.
///
/// # Errors
/// See [`Unreachable`].
pub async fn carry(
    plane: &Arc<Plane>,
    id: SessionId,
    driver: Option<&str>,
    request: Request<Body>,
) -> Result<Response<Body>, Unreachable> {
    let driver = driver.ok_or(Unreachable::Nobody)?;
    let (watching, watched) = (Arc::clone(plane), driver.to_owned());
    let changed = move || {
        let (plane, driver) = (Arc::clone(&watching), watched.clone());
        async move { driver_changed(&plane, id, &driver).await }
    };
    pass_on(plane, driver, request, changed).await
}

/// Has this replica answer a request that is about no session.
///
/// # Errors
/// See [`Unreachable`].
pub async fn carry_to(
    plane: &Arc<Plane>,
    replica: &str,
    request: Request<Body>,
) -> Result<Response<Body>, Unreachable> {
    pass_on(plane, replica, request, std::future::pending::<()>).await
}

/// Passes it on, until `changed` says that it is another's to answer.
async fn pass_on<F: Future<Output = ()> + Send + 'static>(
    plane: &Arc<Plane>,
    driver: &str,
    mut request: Request<Body>,
    changed: impl Fn() -> F,
) -> Result<Response<Body>, Unreachable> {
    if is_forwarded(request.headers()) {
        return Err(Unreachable::Moving);
    }
    let (stream, authority) = reach(plane, driver).await?;
    let lost = || Unreachable::Lost(driver.to_owned());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|_| lost())?;
    plane.spawn(async move {
        // How it ends is seen by whoever reads the answer.
        let _ = connection.with_upgrades().await;
    });
    let from_client = hyper::upgrade::on(&mut request);
    let request = outward(plane, request, &authority);
    let mut answer = tokio::select! {
        answer = sender.send_request(request) => answer.map_err(|_| lost())?,
        // A host that is gone closes no connection.
        () = changed() => return Err(lost()),
    };
    let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgraded {
        let from_replica = hyper::upgrade::on(&mut answer);
        let changed = changed();
        plane.spawn(async move {
            let (Ok(client), Ok(replica)) = tokio::join!(from_client, from_replica) else { return };
            let (mut client, mut replica) = (TokioIo::new(client), TokioIo::new(replica));
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut replica) => {}
                () = changed => {}
            }
        });
    }
    let (mut parts, body) = answer.into_parts();
    parts.headers = carried(&parts.headers, upgraded);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// A connection to a replica, and what it is called there. Where it was a moment ago, it may not be
/// any more: then it is looked up.
async fn reach(plane: &Plane, driver: &str) -> Result<(TcpStream, String), Unreachable> {
    let known = plane.replicas.other(driver);
    let reached = connect(driver, known.as_ref()).await;
    if reached.is_ok() || look_around(plane).await.is_err() {
        return reached;
    }
    match plane.replicas.other(driver) {
        now if now == known => reached,
        now => connect(driver, now.as_ref()).await,
    }
}

async fn connect(
    driver: &str,
    replica: Option<&Replica>,
) -> Result<(TcpStream, String), Unreachable> {
    let address = replica.and_then(|replica| Some((replica, authority(&replica.url)?)));
    let (replica, authority) = address.ok_or_else(|| Unreachable::Unknown(driver.to_owned()))?;
    let connecting = timeout(CONNECT, TcpStream::connect(&authority)).await;
    let stream = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(|source| Unreachable::Refused {
        replica: replica.id.clone(),
        url: replica.url.clone(),
        source,
    })?;
    // Audio waits for nothing. It works without, only later.
    let _ = stream.set_nodelay(true);
    Ok((stream, authority))
}

/// The request as the other replica gets it.
fn outward(plane: &Plane, request: Request<Body>, authority: &str) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    parts.uri = path.parse::<Uri>().unwrap_or_default();
    let upgrade = parts.headers.contains_key(header::UPGRADE);
    // Whoever came without a credential was let in by us, as somebody of this host on a page that
    // may. The other one would judge our page.
    if !parts.headers.contains_key(header::AUTHORIZATION) && !path.contains("token=") {
        parts.headers.remove(header::ORIGIN);
    }
    parts.headers = carried(&parts.headers, upgrade);
    let text = |text: &str| HeaderValue::from_str(text).expect("visible characters");
    parts.headers.insert(header::HOST, text(authority));
    parts.headers.insert(&FORWARDED, text(plane.replicas.id()));
    parts.version = Version::HTTP_11;
    Request::from_parts(parts, body)
}

fn carried(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let of_the_upgrade =
        |name: &HeaderName| upgrade && [header::CONNECTION, header::UPGRADE].contains(name);
    those(headers, |name| of_the_message(name) || of_the_upgrade(name))
}

/// Host and port of `http://host:port`.
fn authority(url: &str) -> Option<String> {
    let uri = url.parse::<Uri>().ok()?;
    let authority = uri.authority()?;
    Some(match authority.port_u16() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:80"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_url_says_where_to_connect() {
        for (url, expected) in [
            ("http://10.0.0.2:7860", Some("10.0.0.2:7860")),
            ("http://[::1]:7860", Some("[::1]:7860")),
            ("http://callbox-1.internal", Some("callbox-1.internal:80")),
            ("", None),
        ] {
            assert_eq!(authority(url).as_deref(), expected, "{url:?}");
        }
    }

    #[test]
    fn only_an_upgrade_keeps_the_words_for_its_connection() {
        let mut headers = HeaderMap::new();
        for name in ["connection", "upgrade", "sec-websocket-key", "authorization", "host"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let names = |upgrade| {
            let mut names: Vec<_> =
                carried(&headers, upgrade).keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(false), ["authorization", "sec-websocket-key"]);
        assert_eq!(names(true), ["authorization", "connection", "sec-websocket-key", "upgrade"]);
    }
}
