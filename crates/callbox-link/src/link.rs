use bytes::Bytes;
use futures::stream::BoxStream;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::sync::CancellationToken;

use callbox_protocol::agent::{AgentEvent, LogLine};

use crate::hello::say_hello;
use crate::rewind::Rewind;
use crate::tunnel::{self, Tunnel};
use crate::{Carrier, LinkError, lines};

/// Window of one stream. At 48 kHz stereo this is more than a second of raw audio, and a
/// tunnel that nobody reads costs no more than this.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Window of the connection: several tunnels can stand still and the others still flow.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A connection to one agent. Cheap to clone; calls from all clones run side by side.
///
/// The connection ends when all handles are dropped: links, tunnels, and streams of lines.
#[derive(Clone)]
pub struct Link {
    requests: SendRequest<Full<Bytes>>,
    gone: CancellationToken,
}

impl Link {
    /// Says hello over `carrier` until an agent answers, and starts HTTP/2 on it.
    ///
    /// Waits as long as the carrier stays open: a machine that still boots answers when it
    /// is up. Must run inside a tokio runtime, as the connection gets a task of its own.
    ///
    /// # Errors
    /// [`LinkError::Hello`] if the carrier ends or fails, or HTTP/2 does not start on it.
    pub async fn open(mut carrier: Carrier) -> Result<Link, LinkError> {
        let first = say_hello(&mut carrier).await.map_err(LinkError::Hello)?;
        let io = TokioIo::new(Rewind::new(first, carrier));
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await
            .map_err(|error| LinkError::Hello(std::io::Error::other(error)))?;
        let gone = CancellationToken::new();
        let on_end = gone.clone().drop_guard();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the agent ended");
            }
            drop(on_end);
        });
        Ok(Link { requests, gone })
    }

    /// What happens in the machine, from the event after number `after` (0: from the first).
    ///
    /// The request is made when the stream is first polled. The stream ends when the agent
    /// ends it; after an error it ends too. To go on over a new connection, ask for the
    /// events after the last one seen.
    pub fn events(&self, after: u64) -> BoxStream<'static, Result<AgentEvent, LinkError>> {
        lines::read(self.clone(), "events", after)
    }

    /// What the bot and the agent write, from the line after number `after` (0: from the
    /// oldest that is kept). Otherwise like [`Link::events`].
    pub fn logs(&self, after: u64) -> BoxStream<'static, Result<LogLine, LinkError>> {
        lines::read(self.clone(), "logs", after)
    }

    /// Opens a byte tunnel to `127.0.0.1:port` inside the machine.
    ///
    /// # Errors
    /// [`LinkError::Agent`] if nothing listens there or the machine is not awake.
    pub async fn tunnel(&self, port: u16) -> Result<Tunnel, LinkError> {
        tunnel::open(self, format!("127.0.0.1:{port}")).await
    }

    /// Waits for the next connection that somebody inside the machine makes to `127.0.0.1:port`,
    /// and is its other end. As long as nobody waits here, such connections wait in the machine.
    ///
    /// # Errors
    /// [`LinkError::Agent`] if something in the machine has that port or it is not awake.
    pub async fn inward(&self, port: u16) -> Result<Tunnel, LinkError> {
        tunnel::open(self, format!("inside:{port}")).await
    }

    /// Resolves when the connection is gone, at once if it is gone already.
    pub async fn closed(&self) {
        self.gone.cancelled().await;
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.gone.is_cancelled()
    }

    pub(crate) async fn send(
        &self,
        call: &'static str,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, LinkError> {
        let mut requests = self.requests.clone();
        requests.ready().await.map_err(|_| LinkError::Closed)?;
        requests.send_request(request).await.map_err(|error| broken(call, &error))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// What an error of HTTP/2 means for the caller: mostly, that the connection is gone.
pub(crate) fn broken(call: &'static str, error: &hyper::Error) -> LinkError {
    tracing::debug!(call, %error, "call to the agent broke off");
    if error.is_parse() || error.is_user() {
        return LinkError::Protocol { call, what: error.to_string() };
    }
    LinkError::Closed
}
