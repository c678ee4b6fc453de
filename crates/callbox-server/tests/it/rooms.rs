//! What a request asks of its room, and what a transport's vendor tells of it.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use callbox_core::{EventKind, SessionId, State};
use callbox_server::store::Memory;
use callbox_transports::Presence;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::still::{Outside, Still};

const BOTS: &str = "[bots.here]\n";

async fn post(app: &Still, path: &str, signature: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("x-fake-signature", signature)
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = app.router.clone().oneshot(request).await.unwrap();
    let (status, body) = (answer.status(), to_bytes(answer.into_body(), 65536).await.unwrap());
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn webhook(app: &Still, id: SessionId, sight: &str) {
    let body = json!({ "session": id.to_string(), "sight": sight });
    let (status, _) = post(app, "/v1/webhooks/fake", "fake", &body).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn what_a_request_asks_of_its_room_is_checked_and_kept_and_handed_on() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, BOTS).await;
    let asked = json!({ "bot": "here", "fakeRoomProperties": { "max": 3 }, "somethingElse": 1 });
    let (status, answer) = post(&app, "/start", "", &asked).await;
    assert_eq!(status, StatusCode::OK);
    let id = SessionId::parse(answer["sessionId"].as_str().unwrap()).unwrap();
    let session = app.until(id, |session| session.ready).await;
    assert_eq!(session.room_options, json!({ "max": 3 }));
    assert_eq!(outside.rooms.options(id), Some(json!({ "max": 3 })));

    let asked = json!({ "bot": "here", "fakeRoomProperties": "no such thing" });
    let (status, answer) = post(&app, "/start", "", &asked).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["code"], "invalid-room-options");
    let text = "cannot have fakeRoomProperties: no such thing";
    assert!(["error", "info", "detail"].iter().all(|key| answer[key] == text), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_heard_at_once_and_only_with_its_signature() {
    let outside = Outside::new(Memory::default());
    outside.rooms.set(|script| script.presence = Some(Presence { bot: true, clients: 0 }));
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    app.until(id, |session| session.ready && session.moments.bot_present.is_some()).await;
    let body = json!({ "session": id.to_string(), "sight": "client" });
    for (path, signature, status, code) in [
        ("/v1/webhooks/fake", "forged", 401, "bad-signature"),
        ("/v1/webhooks/nobody", "fake", 404, "no-webhooks"),
    ] {
        let (found, answer) = post(&app, path, signature, &body).await;
        assert_eq!((found.as_u16(), answer["code"].as_str()), (status, Some(code)), "{path}");
    }
    outside.rooms.set(|script| script.presence = Some(Presence { bot: true, clients: 1 }));
    webhook(&app, id, "client").await;
    let live = app.until(id, |session| session.state == State::Live).await;
    assert!(live.moments.joined.is_some());
    // Whoever left is seen by looking, sooner than by the next look.
    outside.rooms.set(|script| script.presence = Some(Presence { bot: true, clients: 0 }));
    let before = tokio::time::Instant::now();
    webhook(&app, id, "changed").await;
    let alone = app.plane.handle(id).unwrap().until(|session| session.alone_at.is_some()).await;
    assert!(alone.is_some() && before.elapsed() < Duration::from_millis(100));
    // Of a session that nobody knows: it may be another deployment's.
    webhook(&app, SessionId(uuid::Uuid::new_v4()), "changed").await;
    app.plane.handle(id).unwrap().tell(EventKind::ClientLeft { detail: "a test".into() });
}

#[tokio::test(start_paused = true)]
async fn a_transport_knows_how_many_share_its_limits() {
    let outside = Outside::new(Memory::default());
    let _app = Still::new(&outside, BOTS).await;
    assert_eq!(outside.rooms.shared_by(), 1);
}
