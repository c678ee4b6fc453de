//! One try to reach the dispatcher: TCP, TLS, the websocket's handshake.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use callbox_protocol::join::{BOOT_HEADER, Join, link_path};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{HeaderValue, Uri, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, http::StatusCode};

use super::socket::{Stream, socket};

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries that do not wait for each other, and how long one of them may take.
const STEP: Duration = Duration::from_millis(100);
const HANGS: Duration = Duration::from_secs(2);
/// What of a refusal goes into the log, in bytes.
const MAX_REASON: usize = 300;

/// Why there is no connection.
pub(super) enum Unheard {
    /// Nobody will ever want this machine again.
    NotWanted(String),
    /// It may be otherwise in a moment.
    NotNow(String),
}

/// Dials one dispatcher.
pub(super) struct Dialler {
    /// Scheme, authority, and a path that comes before ours.
    base: String,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
    boot: String,
}

impl Dialler {
    /// Checks the address once, instead of failing with it in every round.
    pub(super) fn new(join: &Join) -> io::Result<Dialler> {
        let wrong =
            |what: &str| io::Error::other(format!("the dispatcher's url {:?} {what}", join.url));
        let (scheme, rest) = join.url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        let (secure, scheme) = match scheme {
            "http" | "ws" => (false, "ws"),
            "https" | "wss" => (true, "wss"),
            _ => return Err(wrong("is neither http nor https")),
        };
        let rest = rest.trim_end_matches('/');
        let base = format!("{scheme}://{rest}");
        let uri = uri(&base, &join.machine).map_err(|_| wrong("is no address"))?;
        let host = uri.host().ok_or_else(|| wrong("has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = secure.then(|| connector(join.authorities.as_deref())).transpose()?;
        Ok(Dialler { base, host, port, tls, boot: random_hex()? })
    }

    /// One connection of this machine, opened with this token.
    pub(super) async fn dial(&self, machine: &str, token: &str) -> Result<DuplexStream, Unheard> {
        let late = |_| {
            let seconds = PATIENCE.as_secs();
            Err(Unheard::NotNow(format!("the dispatcher does not answer within {seconds} s")))
        };
        timeout(PATIENCE, self.connect(machine, token)).await.unwrap_or_else(late)
    }

    /// The same for a machine that may stand still in between, again and again: a try that hung
    /// when it did is dead afterwards, so the next one does not wait for it.
    pub(super) async fn dial_in_steps(
        &self,
        machine: &str,
        token: &str,
    ) -> Result<DuplexStream, Unheard> {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tries = FuturesUnordered::new();
        loop {
            tokio::select! {
                _ = steps.tick() => {
                    tries.push(timeout(HANGS, self.connect(machine, token)));
                }
                Some(tried) = tries.next() => match tried {
                    Ok(Err(Unheard::NotNow(_))) | Err(_) => {}
                    Ok(outcome) => return outcome,
                },
            }
        }
    }

    async fn connect(&self, machine: &str, token: &str) -> Result<DuplexStream, Unheard> {
        let (host, port) = (&self.host, self.port);
        let not_now = |error: &dyn std::fmt::Display| {
            Unheard::NotNow(format!("cannot reach the dispatcher at {host}:{port}: {error}"))
        };
        let plain = TcpStream::connect((host.as_str(), port)).await.map_err(|e| not_now(&e))?;
        // Audio waits for nothing. It works without, only later.
        let _ = plain.set_nodelay(true);
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(plain),
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(|e| not_now(&e))?;
                Box::new(tls.connect(name, plain).await.map_err(|e| not_now(&e))?)
            }
        };
        let request = self.request(machine, token).map_err(|error| not_now(&error))?;
        match client_async(request, stream).await {
            Ok((websocket, _)) => Ok(socket(websocket)),
            Err(WebSocketError::Http(refusal)) => {
                let said = reason(refusal.body().as_deref().unwrap_or_default());
                let status = refusal.status();
                let why = format!("the dispatcher answers {status}: {said}");
                Err(match status {
                    StatusCode::GONE => Unheard::NotWanted(why),
                    _ => Unheard::NotNow(why),
                })
            }
            Err(error) => Err(not_now(&error)),
        }
    }

    fn request(
        &self,
        machine: &str,
        token: &str,
    ) -> Result<tokio_tungstenite::tungstenite::handshake::client::Request, WebSocketError> {
        let uri = uri(&self.base, machine).map_err(http::Error::from)?;
        let mut request = uri.into_client_request()?;
        let text = |text: &str| HeaderValue::from_str(text).map_err(http::Error::from);
        let mut bearer = text(&format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request.headers_mut().insert(BOOT_HEADER, text(&self.boot)?);
        Ok(request)
    }
}

fn uri(base: &str, machine: &str) -> Result<Uri, http::uri::InvalidUri> {
    format!("{base}{}", link_path(machine)).parse()
}

/// Trusts the public authorities, and those that the machine was told.
fn connector(authorities: Option<&str>) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for certificate in CertificateDer::pem_slice_iter(authorities.unwrap_or_default().as_bytes()) {
        let added = certificate.map_err(io::Error::other);
        roots.add(added?).map_err(io::Error::other)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The start of what a refusal says, on one line.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_REASON)]);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

/// A part of this pause, so that a thousand machines do not come back at once.
pub(super) fn some_of(pause: Duration) -> Duration {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(url: &str) -> Join {
        Join {
            url: url.to_owned(),
            machine: "cb-1".to_owned(),
            token: "s3cret".to_owned(),
            orphan_ms: 1,
            stop_grace_ms: 1,
            authorities: None,
        }
    }

    #[test]
    fn addresses_are_what_people_write() {
        for (url, expected) in [
            ("http://127.0.0.1:7860", "ws://127.0.0.1:7860/v1/machines/cb-1/link at 7860"),
            ("https://box.example/", "wss://box.example/v1/machines/cb-1/link at 443"),
            ("https://x.example/calls", "wss://x.example/calls/v1/machines/cb-1/link at 443"),
            ("http://[fdaa::3]:80", "ws://[fdaa::3]:80/v1/machines/cb-1/link at 80"),
        ] {
            let dialler = Dialler::new(&join(url)).expect(url);
            let request = dialler.request("cb-1", "s3cret").expect("a request");
            assert_eq!(format!("{} at {}", request.uri(), dialler.port), expected);
            assert!(!format!("{request:?}").contains("s3cret"), "{request:?}");
        }
        for url in ["", "box.example", "ftp://box.example", "https://"] {
            assert!(Dialler::new(&join(url)).is_err(), "{url:?}");
        }
    }

    #[test]
    fn a_long_refusal_is_cut() {
        assert_eq!(reason(b"{\n  \"error\": \"no\"\n}"), "{ \"error\": \"no\" }");
        assert_eq!(reason(&[b'x'; 5000]).len(), MAX_REASON);
        let pause = Duration::from_secs(4);
        assert!((pause / 2..=pause).contains(&some_of(pause)));
    }
}
