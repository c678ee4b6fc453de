//! Transport `webrtc`: what becomes of offers and candidates before a bot can take them.

use std::time::Duration;

use callbox_link::fake::BotReady;
use callbox_machines::Script;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::app::{SOON, TestApp};

/// How long something is watched that must not happen.
const A_WHILE: Duration = Duration::from_millis(300);

async fn late_bot() -> (TestApp, String) {
    let mut script = Script::default();
    script.agent.ready = BotReady::OnNotify;
    let app = TestApp::with(script).await;
    let started = app.request(Method::POST, "/start", &app.public);
    let started: Value =
        started.json(&json!({ "bot": "web" })).send().await.unwrap().json().await.unwrap();
    assert_eq!(started.as_object().unwrap().keys().collect::<Vec<_>>(), ["sessionId"]);
    let id = started["sessionId"].as_str().unwrap().to_owned();
    app.until(&id, |session| session.machine.is_some()).await;
    (app, id)
}

async fn signal(app: &TestApp, method: Method, id: &str, body: &Value) -> Response {
    let path = format!("/sessions/{id}/api/offer");
    app.request(method, &path, &app.public).json(body).send().await.unwrap()
}

#[tokio::test]
async fn an_early_offer_is_held_and_candidates_wait_for_its_answer() {
    let (app, id) = late_bot().await;
    let offer = json!({ "sdp": "v=0", "type": "offer", "pc_id": null });
    let candidates = json!({ "pc_id": "one", "candidates": [] });
    let offering = signal(&app, Method::POST, &id, &offer);
    let patching = signal(&app, Method::PATCH, &id, &candidates);
    let (mut offering, mut patching) = (Box::pin(offering), Box::pin(patching));
    tokio::select! {
        early = &mut offering => panic!("nobody can have answered: {early:?}"),
        early = &mut patching => panic!("nobody can have answered: {early:?}"),
        () = tokio::time::sleep(A_WHILE) => {}
    }
    let machine = app.until(&id, |session| session.machine.is_some()).await.machine.unwrap();
    let agent = app.provider.agent(&machine).unwrap();
    assert!(agent.seen().signals.is_empty(), "it is not ready");
    agent.ready();
    let answers = tokio::time::timeout(SOON, async { tokio::join!(offering, patching) });
    let (answer, patched) = answers.await.unwrap();
    assert_eq!((answer.status(), patched.status()), (StatusCode::OK, StatusCode::OK));
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["type"], "answer");
    // Byte for byte, once each, in their order.
    let expected = [("POST", offer.to_string()), ("PATCH", candidates.to_string())];
    let expected = expected.map(|(method, body)| format!("{method} {body}"));
    assert_eq!(agent.seen().signals, expected);
    // The answer is how the client is in.
    app.until(&id, |session| session.moments.joined.is_some()).await;
}

#[tokio::test]
async fn an_offer_that_is_refused_lets_nobody_in() {
    let (app, id) = late_bot().await;
    let machine = app.until(&id, |session| session.machine.is_some()).await.machine.unwrap();
    let agent = app.provider.agent(&machine).unwrap();
    agent.ready();
    let refused = signal(&app, Method::POST, &id, &json!({ "sdp": "refuse" })).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "the bot's own word");
    let session = app.until(&id, |session| session.moments.ready.is_some()).await;
    assert_eq!(session.moments.joined, None);
    assert_eq!(agent.seen().signals.len(), 1, "nothing is sent twice");
}

#[tokio::test]
async fn what_is_held_ends_with_its_session() {
    let (app, id) = late_bot().await;
    let offer = json!({ "sdp": "v=0" });
    let held = signal(&app, Method::POST, &id, &offer);
    let patch = signal(&app, Method::PATCH, &id, &offer);
    let ending = async {
        tokio::time::sleep(A_WHILE).await;
        let path = format!("/v1/sessions/{id}");
        app.request(Method::DELETE, &path, &app.private).send().await.unwrap()
    };
    let all = tokio::time::timeout(SOON, async { tokio::join!(held, patch, ending) });
    let (held, patch, _) = all.await.unwrap();
    for answer in [held, patch] {
        assert!(answer.status().is_client_error(), "final: {}", answer.status());
    }
}
