//! The media websocket, as a client holds it.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use prost::Message as _;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

use crate::media::Frame;
use crate::secret::Secret;

/// How long the handshake may take. The dispatcher accepts at once and holds what it cannot
/// deliver yet, so this is about the network only.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the other side may not take what we send.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message that is accepted, in bytes; a second of 48 kHz stereo is 192 kB.
const LARGEST: usize = 4 * 1024 * 1024;

/// An open media websocket.
pub struct Line {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What came.
pub enum Incoming {
    /// A frame.
    Frame(Frame),
    /// Something that is not one of Pipecat's frames.
    Other,
    /// The other side hung up.
    Closed,
}

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The address in the dispatcher's answer is no websocket address.
    #[error("cannot open the media websocket: {url:?} is not a websocket address")]
    Address {
        /// What the dispatcher said.
        url: String,
    },
    /// Nobody, or nobody who talks websocket, answers there.
    #[error("cannot open the media websocket at {url}: {reason}")]
    Open {
        /// Where, without the token.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It broke in the middle of the call.
    #[error("the media websocket broke: {reason}")]
    Broken {
        /// What happened.
        reason: String,
    },
}

impl LineError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            LineError::Open { .. } | LineError::Address { .. } => Some(
                "the address is the dispatcher's own idea of where clients reach it; check its \
                 public URL, and that a proxy in front of it lets websockets through"
                    .to_owned(),
            ),
            LineError::Broken { .. } => None,
        }
    }
}

impl Line {
    /// Opens `ws_url?token=…`, as `@pipecat-ai/websocket-transport` does.
    pub async fn open(ws_url: &str, token: &Secret) -> Result<Line, LineError> {
        let address_error = || LineError::Address { url: ws_url.to_owned() };
        let mut url = Url::parse(ws_url).map_err(|_| address_error())?;
        if !matches!(url.scheme(), "ws" | "wss") {
            return Err(address_error());
        }
        url.query_pairs_mut().append_pair("token", token.expose());
        let config = WebSocketConfig::default()
            .max_message_size(Some(LARGEST))
            .max_frame_size(Some(LARGEST));
        let connector = crate::tls::config().map(Connector::Rustls);
        // Small frames every 20 ms must not wait for one another.
        let disable_nagle = true;
        let opening = tokio_tungstenite::connect_async_tls_with_config(
            url.as_str(),
            Some(config),
            disable_nagle,
            connector,
        );
        let open_error = |reason: String| LineError::Open { url: ws_url.to_owned(), reason };
        match timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok((socket, _))) => Ok(Line { socket }),
            Ok(Err(error)) => Err(open_error(describe(&error, token))),
            Err(_) => Err(open_error("no answer in time".to_owned())),
        }
    }

    /// Says something.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), LineError> {
        let message = Message::Binary(frame.encode_to_vec().into());
        match timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(LineError::Broken { reason: error.to_string() }),
            Err(_) => Err(LineError::Broken { reason: "nothing is read any more".to_owned() }),
        }
    }

    /// What comes next. May be dropped at any await without losing anything.
    pub async fn receive(&mut self) -> Result<Incoming, LineError> {
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => {
                Ok(Frame::decode(bytes).map_or(Incoming::Other, Incoming::Frame))
            }
            Some(Ok(Message::Close(_))) | None => Ok(Incoming::Closed),
            Some(Ok(_)) => Ok(Incoming::Other),
            Some(Err(tungstenite::Error::ConnectionClosed)) => Ok(Incoming::Closed),
            Some(Err(error)) => Err(LineError::Broken { reason: error.to_string() }),
        }
    }

    /// Hangs up. Whether the other side still hears it makes no difference.
    pub async fn hang_up(mut self) {
        // A close without an answer within a second is the end all the same.
        let _ = timeout(Duration::from_secs(1), async {
            if self.socket.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        })
        .await;
    }
}

fn describe(error: &tungstenite::Error, token: &Secret) -> String {
    let text = match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(200)]);
            format!("the answer is {} {body}", response.status())
        }
        other => other.to_string(),
    };
    text.trim_end().replace(token.expose(), "…")
}
