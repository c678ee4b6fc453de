//! A websocket as a carrier, for agents that dial.

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, future};
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::Carrier;

/// The bytes of its binary messages, one after the other. Pings are answered while it is read, and
/// dropping it drops the connection.
pub fn over_websocket<S>(websocket: WebSocketStream<S>) -> Carrier
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sink, messages) = websocket.split();
    let bytes = messages
        .take_while(|message| future::ready(!matches!(message, Ok(Message::Close(_)))))
        .filter_map(|message| {
            future::ready(match message {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                Ok(_) => None,
                Err(error) => Some(Err(broken(error))),
            })
        });
    let message = |bytes: Bytes| future::ok::<_, io::Error>(Message::Binary(bytes));
    let sink = sink.sink_map_err(broken).with(message);
    Box::new(tokio::io::join(
        StreamReader::new(Box::pin(bytes)),
        SinkWriter::new(CopyToBytes::new(Box::pin(sink))),
    ))
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn messages_are_a_stream_of_bytes_whatever_their_cuts() {
        let (near, far) = tokio::io::duplex(1024);
        let near = WebSocketStream::from_raw_socket(near, Role::Server, None).await;
        let mut far = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        let mut carrier = over_websocket(near);
        for part in [&b"CALL"[..], b"", b"BOX"] {
            far.send(Message::Binary(Bytes::copy_from_slice(part))).await.unwrap();
            far.send(Message::Ping(Bytes::new())).await.unwrap();
        }
        let mut read = [0; 7];
        carrier.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"CALLBOX");
        carrier.write_all(b"OK").await.unwrap();
        carrier.flush().await.unwrap();
        let answer = loop {
            match far.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => break bytes,
                other => assert!(matches!(other, Message::Pong(_)), "{other:?}"),
            }
        };
        assert_eq!(answer, "OK");
        far.close(None).await.unwrap();
        assert_eq!(carrier.read(&mut read).await.unwrap(), 0, "closed is the end");
    }
}
