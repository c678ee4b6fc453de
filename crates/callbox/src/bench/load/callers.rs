//! The clients that make sessions live: a websocket each, which says something once, hears it
//! come back, and then only answers pings.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::api_client::Started;

/// How long it may take until what was said came back.
const ECHO: Duration = Duration::from_secs(60);
/// Connections from one address: the ports that a system gives out by itself are some 28,000.
const FROM_ONE_ADDRESS: usize = 20_000;

/// Clients that are in a call.
#[derive(Default)]
pub struct Callers {
    calls: JoinSet<()>,
}

/// A client that has heard its bot.
pub struct Caller(WebSocketStream<TcpStream>);

impl Callers {
    /// Stays in the call until this is dropped.
    pub fn stay(&mut self, caller: Caller) {
        let Caller(mut socket) = caller;
        self.calls.spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    }

    /// How many have been hung up on, or whose connection broke.
    pub fn lost(&mut self) -> usize {
        let mut lost = 0;
        while self.calls.try_join_next().is_some() {
            lost += 1;
        }
        lost
    }
}

/// The `index`th client joins its session.
pub async fn join(started: &Started, index: usize) -> Result<Caller, String> {
    timeout(ECHO, open(started, index))
        .await
        .unwrap_or_else(|_| Err(format!("no echo within {} s of joining", ECHO.as_secs())))
}

async fn open(started: &Started, index: usize) -> Result<Caller, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let to = started.ws_url.strip_prefix("ws://").and_then(|rest| rest.split('/').next());
    let to: SocketAddr = to
        .unwrap_or_default()
        .parse()
        .map_err(|_| format!("a strange address {}", started.ws_url))?;
    let socket = TcpSocket::new_v4().map_err(|e| text(&e))?;
    let last = u8::try_from(1 + index / FROM_ONE_ADDRESS).unwrap_or(u8::MAX);
    let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
    socket.bind(from).map_err(|e| text(&e))?;
    let stream = socket.connect(to).await.map_err(|e| text(&e))?;
    let request = format!("{}?token={}", started.ws_url, started.token.expose());
    // Small: there are many of us, and little is said.
    let config = WebSocketConfig::default().read_buffer_size(512).write_buffer_size(0);
    let (mut socket, _) =
        client_async_with_config(request, stream, Some(config)).await.map_err(|e| text(&e))?;
    socket.send(Message::text("hello")).await.map_err(|e| text(&e))?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(_) | Message::Binary(_))) => return Ok(Caller(socket)),
            Some(Ok(Message::Close(frame))) => return Err(format!("hung up on: {frame:?}")),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("the connection ended".into()),
        }
    }
}
