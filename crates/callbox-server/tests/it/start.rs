use callbox_machines::Script;
use callbox_protocol::api::SessionState;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::TestApp;

#[tokio::test]
async fn the_answer_has_the_shape_that_the_javascript_client_takes() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot", "transport": "websocket" })).await;
    let keys: Vec<&String> = join.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["token", "wsUrl"]);
    assert_eq!(join["token"].as_str().unwrap().split_once('.').unwrap().0, id);
    assert!(join["wsUrl"].as_str().unwrap().starts_with("ws://127.0.0.1:"));
    app.finish().await;
}

#[tokio::test]
async fn pipecat_clouds_path_starts_the_bot_in_the_path() {
    let app = TestApp::new().await;
    let answer = app.request(Method::POST, "/v1/public/parrot/start", &app.public).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "an empty body is legal");
    let id = answer.headers()["x-callbox-session-id"].to_str().unwrap().to_owned();
    assert_eq!(app.wait(&id, "ready").await.bot, "parrot");
    app.finish().await;
}

#[tokio::test]
async fn a_start_can_wait_until_the_bot_is_ready() {
    let app = TestApp::new().await;
    let request = app.request(Method::POST, "/start?wait=ready", &app.public);
    let answer = request.json(&json!({ "bot": "parrot" })).send().await.unwrap();
    let id = answer.headers()["x-callbox-session-id"].to_str().unwrap().to_owned();
    let session = app.until(&id, |_| true).await;
    assert!(session.moments.ready.is_some() && session.state == SessionState::Joining);
    app.finish().await;
}

#[tokio::test]
async fn a_transport_with_rooms_makes_one_and_ends_it() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    assert_eq!(join["room"], format!("fake-{id}"));
    app.wait(&id, "ready").await;
    assert_eq!(app.rooms.rooms().len(), 1);
    app.request(Method::DELETE, &format!("/v1/sessions/{id}"), &app.private).send().await.unwrap();
    app.wait(&id, "ended").await;
    assert!(app.rooms.rooms().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn the_same_key_never_buys_twice() {
    let app = TestApp::new().await;
    let start = async |key: &str, body: Value| {
        let request = app.request(Method::POST, "/start", &app.public);
        request.header("Idempotency-Key", key).json(&body).send().await.unwrap()
    };
    let body = json!({ "bot": "parrot" });
    let (first, second) = tokio::join!(start("k1", body.clone()), start("k1", body.clone()));
    let id = |answer: &reqwest::Response| answer.headers()["x-callbox-session-id"].clone();
    assert_eq!(id(&first), id(&second));
    let id = id(&first).to_str().unwrap().to_owned();
    assert_eq!(first.json::<Value>().await.unwrap(), second.json::<Value>().await.unwrap());
    app.wait(&id, "ready").await;
    assert_eq!(app.provider.made(), 1);

    let other = start("k1", json!({ "bot": "parrot", "body": { "n": 2 } })).await;
    assert_eq!(other.status(), StatusCode::CONFLICT);
    assert_eq!(other.json::<Value>().await.unwrap()["code"], "idempotency-key-reused");

    // The key of somebody else is another key.
    let request = app.request(Method::POST, "/start", &app.private);
    let answer = request.header("Idempotency-Key", "k1").json(&body).send().await.unwrap();
    assert_ne!(answer.headers()["x-callbox-session-id"].to_str().unwrap(), id);
    app.finish().await;
}

#[tokio::test]
async fn a_full_house_refuses_and_buys_nothing() {
    let app = TestApp::with(Script { ensure_held: true, ..Script::default() }).await;
    app.start(json!({ "bot": "small" })).await;
    let refused = app.start_raw(json!({ "bot": "small" })).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "5");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], "429");
    assert!(body["info"].as_str().unwrap().contains("small"));

    for _ in 0..15 {
        app.start(json!({ "bot": "parrot" })).await;
    }
    let refused = app.start_raw(json!({ "bot": "parrot" })).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(app.plane.store.living().await.unwrap().len(), 16);
    app.finish().await;
}
