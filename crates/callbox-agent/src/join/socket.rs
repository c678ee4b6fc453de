//! A websocket as a stream of bytes.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::carrier::Carrier;

/// How often the other side is asked for a sign of life.
const PING: Duration = Duration::from_secs(10);
/// After so long without any, the connection is gone: a host that vanished closes nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// What is between the websocket and its reader, and how much is sent at once.
const BUFFER: usize = 64 * 1024;

/// What TLS and plain TCP have in common.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Carrier for DuplexStream {}

/// The bytes of its messages. It ends when the websocket does, and the other way round.
pub(super) fn socket(websocket: WebSocketStream<Box<dyn Stream>>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(BUFFER);
    tokio::spawn(async move {
        let (mut sink, mut messages) = websocket.split();
        let (mut from_agent, mut to_agent) = tokio::io::split(far);
        let inward = async {
            while let Ok(Some(Ok(message))) = timeout(SILENCE, messages.next()).await {
                match message {
                    Message::Binary(bytes) => to_agent.write_all(&bytes).await?,
                    Message::Close(_) => break,
                    // Pongs are signs of life; pings were answered already.
                    _ => {}
                }
            }
            io::Result::Ok(())
        };
        let outward = async {
            let mut buffer = vec![0; BUFFER];
            let mut pings = interval(PING);
            pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let message = tokio::select! {
                    read = from_agent.read(&mut buffer) => match read? {
                        0 => break,
                        count => Message::Binary(Bytes::copy_from_slice(&buffer[..count])),
                    },
                    _ = pings.tick() => Message::Ping(Bytes::new()),
                };
                sink.send(message).await.map_err(io::Error::other)?;
            }
            io::Result::Ok(())
        };
        // Whichever ends first ends the connection; what is left unsaid was heard by nobody.
        tokio::select! {
            _ = inward => {}
            _ = outward => {}
        }
    });
    near
}
