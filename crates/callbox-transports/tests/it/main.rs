//! The contract that every transport keeps, whatever its vendor does.
#![allow(clippy::unwrap_used)]

mod daily;
mod livekit;
mod livekit_server;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callbox_core::{Fault, FaultKind, SessionId, Time};
use callbox_transports::{
    FakeTransport, Plan, Presence, Room, SessionTokens, Transport, Webrtc, Websocket,
};
use serde_json::Value;
use uuid::Uuid;

fn room() -> Room {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let accepted = Time::from_micros(i64::try_from(now.as_micros()).unwrap());
    Room {
        session: SessionId(Uuid::new_v4()),
        created_at: accepted,
        ends_by: accepted.after(Duration::from_secs(3600)),
        options: Value::Null,
    }
}

/// Repeats what may be repeated, as the driver does.
async fn again<T, F: Future<Output = Result<T, Fault>>>(work: impl Fn() -> F) -> T {
    for _ in 0..20 {
        match work().await {
            Ok(done) => return done,
            Err(Fault { kind: FaultKind::Unavailable | FaultKind::Unknown, .. }) => {}
            Err(fault) => panic!("refused for good: {fault}"),
        }
    }
    panic!("it does not work, however often it is tried")
}

async fn contract(transport: &dyn Transport) {
    let (room, other) = (room(), room());
    let planned =
        |room| transport.plan(&Plan { room, base_url: "ws://127.0.0.1:1", bot_port: 8080 });
    let plan = planned(&room);
    assert_eq!(planned(&room), plan, "a repeated request is answered alike");
    assert_ne!(planned(&other).client, plan.client, "no two sessions share a room");
    let client = plan.client.as_object().expect("an object");
    assert!(client.values().all(|value| !value.is_null()), "clients break at null");
    assert!(!plan.bot_room_url.is_empty());
    // Where there is a room, each has a token of its own; servers for ICE are for both.
    let theirs = plan.client.to_string().contains(&plan.bot_token);
    assert!(!transport.sees_presence() || !theirs, "the client has the bot's token");
    let nothing = serde_json::Map::new();
    assert_eq!(transport.check(&nothing), Ok(Value::Null), "nothing is asked of it");

    again(|| transport.close(room.session)).await;
    again(|| transport.open(&room)).await;
    again(|| transport.open(&room)).await;
    if transport.sees_presence() {
        let nobody = Some(Presence { bot: false, clients: 0 });
        assert_eq!(again(|| transport.presence(&room)).await, nobody);
        assert!(again(|| transport.list()).await.iter().any(|one| one.session == room.session));
    }
    again(|| transport.close(room.session)).await;
    again(|| transport.close(room.session)).await;
    assert!(again(|| transport.list()).await.iter().all(|one| one.session != room.session));
    let unsigned = transport.webhook(&http::HeaderMap::new(), b"{}", room.created_at);
    assert!(unsigned.is_err(), "nobody is believed without a signature");
}

#[tokio::test]
async fn websocket_keeps_the_contract() {
    contract(&Websocket::new(SessionTokens::new("secret"))).await;
}

#[tokio::test]
async fn webrtc_keeps_the_contract() {
    contract(&Webrtc::new(vec!["turn:turn.example.com".into()], "secret")).await;
}

#[tokio::test]
async fn fake_keeps_the_contract() {
    let fake = FakeTransport::default();
    contract(&fake).await;
    assert!(fake.rooms().is_empty());
}

#[test]
fn the_websocket_answer_has_exactly_the_keys_that_the_client_allows() {
    let (room, base_url) = (room(), "wss://callbox.example");
    let websocket = Websocket::new(SessionTokens::new("secret"));
    let plan = websocket.plan(&Plan { room: &room, base_url, bot_port: 8080 });
    let keys: Vec<&String> = plan.client.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["token", "wsUrl"]);
    assert!(plan.client["token"].is_string());
}
