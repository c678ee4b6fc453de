//! The bot behind the tunnel.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{Role, WebSocketConfig},
};

use callbox_protocol::agent::BOT_WAKE_PATH;

use super::state::State;

/// Serves one connection to the bot, until it or the bot ends.
pub(super) async fn serve(state: Arc<State>, io: Upgraded) {
    let service = service_fn(|request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(state, request).await) }
    });
    let connection = http1::Builder::new().serve_connection(io, service).with_upgrades();
    tokio::select! {
        _ = connection => {}
        () = state.bot.cancelled() => {}
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/readyz" | "/livez" | "/bot" | BOT_WAKE_PATH => Response::new(Full::from("{}")),
        "/ws" => websocket(state, request),
        "/api/offer" => signal(&state, request).await,
        path if path.starts_with("/echo") => echo(request).await,
        _ => status(StatusCode::NOT_FOUND),
    }
}

/// Answers every offer but one that asks to be refused.
async fn signal(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let method = request.method().clone();
    let Ok(body) = request.into_body().collect().await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let refused = body.contains("\"refuse\"");
    state.note(|seen| seen.signals.push(format!("{method} {body}")));
    match refused {
        true => status(StatusCode::BAD_REQUEST),
        false => Response::new(Full::from(
            json!({ "sdp": "v=0", "type": "answer", "pc_id": "one" }).to_string(),
        )),
    }
}

async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let headers: BTreeMap<_, _> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let Ok(body) = body.collect().await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let told = json!({
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map(ToString::to_string),
        "headers": headers,
        "body": String::from_utf8_lossy(&body.to_bytes()),
    });
    Response::new(Full::from(told.to_string()))
}

fn websocket(state: Arc<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let path = request.uri().path_and_query().map(ToString::to_string);
    state.note(|seen| seen.websockets.push(path.unwrap_or_default()));
    tokio::spawn(async move {
        if let Ok(io) = hyper::upgrade::on(request).await {
            talk(&state, io).await;
        }
        state.note(|seen| seen.websockets_closed += 1);
        if let Some(code) = state.script.exit_on_close {
            state.bot_exit(Some(code), None, false);
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Greets, then echoes every frame in order until told `bye`.
async fn talk(state: &State, io: Upgraded) {
    // Thousands of us may live in one process.
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let io = TokioIo::new(io);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    for frame in &state.script.greeting {
        let frame = Message::Binary(Bytes::copy_from_slice(frame));
        if socket.send(frame).await.is_err() {
            return;
        }
    }
    let mut echoed = 0;
    let broken = state.websockets_token();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            // Whoever dies says no good-bye.
            () = state.bot.cancelled() => return,
            () = broken.cancelled() => return,
        };
        match message {
            Some(Ok(Message::Text(text))) if text.as_str() == "bye" => break,
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
                echoed += 1;
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => break,
            Some(Ok(_)) => {}
        }
        if state.script.close_after == Some(echoed) {
            break;
        }
    }
    // Says goodbye and waits for the answer, so that the last frames are not lost.
    let _ = socket.close(None).await;
    while let Some(Ok(_)) = socket.next().await {}
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
