//! A media websocket in the hands of somebody who may not mean well.

use futures::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message},
};

use super::{PATIENCE, Started};

/// An open websocket.
pub struct Wire(pub(super) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Wire {
    /// Joins the session.
    pub async fn join(session: &Started) -> Wire {
        let url = format!("{}?token={}", session.ws_url, session.token);
        let opened = timeout(PATIENCE, connect_async(url)).await.expect("it opens");
        Wire(opened.unwrap_or_else(|error| panic!("cannot join {session:?}: {error}")).0)
    }

    /// Joins, if the dispatcher lives long enough for it.
    pub async fn try_join(session: &Started) -> Option<Wire> {
        let url = format!("{}?token={}", session.ws_url, session.token);
        timeout(PATIENCE, connect_async(url)).await.expect("it ends").ok().map(|it| Wire(it.0))
    }

    /// Whether a bot that echoes is at the other end.
    pub async fn answers(&mut self) -> bool {
        if self.send("are you there?").await.is_err() {
            return false;
        }
        let next = timeout(PATIENCE, self.0.next()).await.expect("something comes");
        matches!(next, Some(Ok(Message::Text(text))) if text == "are you there?")
    }

    /// Sends, unless the other side has hung up.
    pub async fn send(&mut self, message: impl Into<Message>) -> Result<(), Error> {
        timeout(PATIENCE, self.0.send(message.into())).await.expect("it is taken")
    }

    /// The next message of the bot.
    pub async fn next(&mut self) -> Message {
        let next = timeout(PATIENCE, self.0.next()).await.expect("something comes");
        next.expect("the line is open").expect("the line is good")
    }

    /// Reads until the other side closes; its code, or none if it just hung up.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        let reading = async {
            while let Some(Ok(message)) = self.0.next().await {
                if let Message::Close(frame) = message {
                    return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
            }
            None
        };
        timeout(PATIENCE, reading).await.expect("the line is closed")
    }

    /// Closes as good clients do.
    pub async fn hang_up(mut self) {
        // Whoever hung up first, it is over.
        let _ = self.0.close(None).await;
        while let Some(Ok(_)) = self.0.next().await {}
    }
}
