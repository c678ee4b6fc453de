//! The client's end: the connection as it is after the upgrade, and the websocket on it.

use bytes::Bytes;
use futures::StreamExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};

use super::LAST_WORD;

/// Largest websocket message, as of Pipecat's own client and server.
const MAX_MESSAGE: usize = 1 << 20;

/// How much is read at once; what is longer takes more than one read. Made for every call before
/// anything is said, so it is no larger than it need be: 20 ms of 48 kHz stereo are 4 KiB.
pub(super) const READ_AT_ONCE: usize = 8 * 1024;

pub(super) type Client = WebSocketStream<TcpStream>;

/// A client's connection, with our half of the websocket's handshake said. Nothing of it is in
/// this process alone, so it can go to another one.
#[derive(Debug)]
pub struct Line {
    pub(super) stream: TcpStream,
    /// What came with the handshake, or right after it.
    pub(super) first: Bytes,
}

impl Line {
    /// Takes the connection out of HTTP's hands. None when it is no TCP connection of ours.
    pub fn of(upgraded: Upgraded) -> Option<Line> {
        let parts = downcast::<TokioIo<TcpStream>>(upgraded).ok()?;
        Some(Line { stream: parts.io.into_inner(), first: parts.read_buf })
    }

    pub(super) async fn websocket(self) -> Client {
        // Audio waits for nothing. It works without, only later.
        let _ = self.stream.set_nodelay(true);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_AT_ONCE)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let first = self.first.to_vec();
        let (stream, role) = (self.stream, Role::Server);
        WebSocketStream::from_partially_read(stream, first, role, Some(config)).await
    }
}

/// What the client is told at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Close {
    /// Of the websocket protocol.
    pub code: u16,
    /// The session's end code; empty where there is none.
    pub reason: String,
}

/// Closes, and waits a moment for the client's answer: a connection that is dropped with unread
/// bytes in it is reset, and the client might never see why.
pub(super) async fn say_goodbye(mut client: Client, close: Option<Close>) {
    let frame =
        close.map(|Close { code, reason }| CloseFrame { code: code.into(), reason: reason.into() });
    let goodbye = async {
        // A client that is gone cannot be told.
        let _ = client.close(frame).await;
        while let Some(Ok(message)) = client.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    };
    let _ = timeout(LAST_WORD, goodbye).await;
}
