//! The contract that every transport keeps.

use std::time::Duration;

mod livekit;
mod livekit_server;

use callbox_core::{SessionId, Time};
use callbox_transports::{FakeTransport, Plan, Room, SessionTokens, Transport, Webrtc, Websocket};
use serde_json::Value;
use uuid::Uuid;

fn room() -> Room {
    let accepted = Time::from_micros(1_790_000_000_000_000);
    Room {
        session: SessionId(Uuid::new_v4()),
        created_at: accepted,
        ends_by: accepted.after(Duration::from_secs(3600)),
        options: Value::Null,
    }
}

async fn contract(transport: &dyn Transport) {
    let (room, other) = (room(), room());
    let planned =
        |room| transport.plan(&Plan { room, base_url: "ws://127.0.0.1:1", bot_port: 8080 });
    let plan = planned(&room);
    assert_eq!(planned(&room), plan, "a repeated request is answered alike");
    assert_ne!(planned(&other).client, plan.client, "no two sessions share a room");
    assert!(plan.client.is_object() && !plan.bot_room_url.is_empty());

    transport.close(room.session).await.expect("closing what never was is success");
    transport.open(&room).await.expect("a room is made");
    transport.open(&room).await.expect("a room that is there is the one");
    transport.close(room.session).await.expect("a room is ended");
    transport.close(room.session).await.expect("ending it twice is success");
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
