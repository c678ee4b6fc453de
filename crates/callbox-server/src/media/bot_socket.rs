//! The bot's end: a websocket to its port, inside a tunnel of the agent's connection.

use axum::extract::ws::Message;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::SessionId;
use callbox_link::{Link, Tunnel};
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message as Raw, client::IntoClientRequest as _, http::HeaderValue},
};

use super::End;

pub(super) struct BotSocket(WebSocketStream<Tunnel>);

pub(super) struct ToBot(SplitSink<WebSocketStream<Tunnel>, Raw>);
pub(super) struct FromBot(SplitStream<WebSocketStream<Tunnel>>);

impl BotSocket {
    /// Opens `/ws` as Pipecat's base image has it: the session in a header, the start request's
    /// body in the query.
    pub(super) async fn open(
        link: &Link,
        port: u16,
        session: SessionId,
        body: &Value,
    ) -> Result<BotSocket, String> {
        let tunnel = link.tunnel(port).await.map_err(|error| {
            format!("cannot reach port {port} of the bot: {}", crate::driver::Chain(&error))
        })?;
        let mut url = format!("ws://127.0.0.1:{port}/ws");
        if !body.is_null() {
            let encoded = STANDARD.encode(body.to_string());
            // `+` and `=` have meanings of their own in a query.
            let encoded = encoded.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            url.push_str("?body=");
            url.push_str(&encoded);
        }
        let mut request = url.into_client_request().map_err(|error| error.to_string())?;
        let id = HeaderValue::from_str(&session.to_string()).expect("a uuid is a header value");
        request.headers_mut().insert("x-daily-session-id", id);
        let (socket, _) = tokio_tungstenite::client_async(request, tunnel)
            .await
            .map_err(|error| format!("the bot does not accept a websocket on /ws: {error}"))?;
        Ok(BotSocket(socket))
    }

    pub(super) fn split(self) -> (ToBot, FromBot) {
        let (sink, stream) = self.0.split();
        (ToBot(sink), FromBot(stream))
    }
}

impl ToBot {
    pub(super) async fn send(&mut self, message: Message) -> Result<(), String> {
        let raw = match message {
            Message::Text(text) => Raw::text(text.as_str()),
            Message::Binary(bytes) => Raw::Binary(bytes),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return Ok(()),
        };
        let sent = self.0.send(raw).await;
        sent.map_err(|error| format!("the bot's websocket broke: {error}"))
    }

    pub(super) async fn close(&mut self) {
        // The bot may be gone already; there is nobody to tell then.
        let _ = self.0.close().await;
    }
}

impl FromBot {
    pub(super) async fn next(&mut self) -> Result<Message, End> {
        loop {
            match self.0.next().await {
                Some(Ok(Raw::Text(text))) => return Ok(Message::Text(text.as_str().into())),
                Some(Ok(Raw::Binary(bytes))) => return Ok(Message::Binary(bytes)),
                Some(Ok(Raw::Close(frame))) => {
                    let (code, reason) = match frame {
                        Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned()),
                        None => (1005, String::new()),
                    };
                    return Err(End::BotClosed { code, reason });
                }
                Some(Ok(Raw::Ping(_) | Raw::Pong(_) | Raw::Frame(_))) => {}
                Some(Err(error)) => {
                    return Err(End::BotBroke(format!("the bot's websocket broke: {error}")));
                }
                None => return Err(End::BotBroke("the bot's websocket ended".into())),
            }
        }
    }
}
