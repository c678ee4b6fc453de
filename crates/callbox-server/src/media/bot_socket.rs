//! The bot's end: a websocket to its port, inside a tunnel of the agent's connection.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use callbox_core::SessionId;
use callbox_link::{Link, Tunnel};
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{client::IntoClientRequest as _, http::HeaderValue, protocol::WebSocketConfig},
};

use super::client::READ_AT_ONCE;

pub(super) type BotSocket = WebSocketStream<Tunnel>;

/// Opens `/ws` as Pipecat's base image has it: the session in a header, the start request's body
/// in the query. Which machine of the session it is in, is in a header of ours.
pub(super) async fn open(
    link: &Link,
    port: u16,
    session: SessionId,
    incarnation: u32,
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
    request.headers_mut().insert("x-callbox-incarnation", incarnation.into());
    let config = WebSocketConfig::default().read_buffer_size(READ_AT_ONCE);
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, tunnel, Some(config))
        .await
        .map_err(|error| format!("the bot does not accept a websocket on /ws: {error}"))?;
    Ok(socket)
}
