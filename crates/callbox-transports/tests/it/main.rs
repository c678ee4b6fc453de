//! The contract that every transport keeps.

use callbox_core::SessionId;
use callbox_transports::{FakeTransport, SessionTokens, Transport, Websocket};
use uuid::Uuid;

async fn contract(transport: &dyn Transport) {
    let session = SessionId(Uuid::new_v4());
    let other = SessionId(Uuid::new_v4());
    let base = "ws://127.0.0.1:1";
    let plan = transport.plan(session, base, 8080);
    assert_eq!(transport.plan(session, base, 8080), plan, "a repeated request is answered alike");
    assert_ne!(
        transport.plan(other, base, 8080).client,
        plan.client,
        "no two sessions share a room"
    );
    assert!(plan.client.is_object() && !plan.bot_room_url.is_empty());

    transport.close(session).await.expect("closing what never was is success");
    transport.open(session).await.expect("a room is made");
    transport.open(session).await.expect("a room that is there is the one");
    transport.close(session).await.expect("a room is ended");
    transport.close(session).await.expect("ending it twice is success");
}

#[tokio::test]
async fn websocket_keeps_the_contract() {
    contract(&Websocket::new(SessionTokens::new("secret"))).await;
}

#[tokio::test]
async fn fake_keeps_the_contract() {
    let fake = FakeTransport::default();
    contract(&fake).await;
    assert!(fake.rooms().is_empty());
}

#[test]
fn the_websocket_answer_has_exactly_the_keys_that_the_client_allows() {
    let plan = Websocket::new(SessionTokens::new("secret")).plan(
        SessionId(Uuid::new_v4()),
        "wss://callbox.example",
        8080,
    );
    let keys: Vec<&String> = plan.client.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["token", "wsUrl"]);
    assert!(plan.client["token"].is_string());
}
