use callbox_core::SessionId;
use callbox_link::fake::{self, BotReady};
use callbox_machines::Script;
use callbox_protocol::api::SessionState;
use callbox_server::store::Replica;
use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::app::{SOON, Socket, TestApp, code};

fn agent(agent: fake::Script) -> Script {
    Script { agent, ..Script::default() }
}

async fn next(socket: &mut Socket) -> Message {
    timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap()
}

/// As Pipecat's serializer writes an audio frame: field 2, length-delimited.
const AUDIO: [u8; 4] = [0x12, 0x02, 0x1a, 0x00];

#[tokio::test]
async fn frames_pass_in_order_from_the_first_one() {
    let script = fake::Script {
        ready: BotReady::OnNotify,
        greeting: vec![vec![0x22, 0x00], AUDIO.to_vec()],
        ..fake::Script::default()
    };
    let app = TestApp::with(agent(script)).await;
    let (id, join) = app.start(json!({ "bot": "parrot", "body": { "name": "Ada" } })).await;
    let mut socket = app.connect(&join).await;
    // Sent while nobody is there to take it: text, rubbish, an empty frame.
    let held = [Message::text("first"), Message::binary(vec![0xff, 0, 1]), Message::binary(vec![])];
    for message in &held {
        socket.send(message.clone()).await.unwrap();
    }
    let session = app.until(&id, |session| session.moments.started.is_some()).await;
    let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
    agent.wait_for(|seen| !seen.sessions.is_empty()).await;
    assert_eq!(agent.seen().websockets.len(), 0, "the bot is left alone until it is ready");
    agent.ready();
    assert_eq!(next(&mut socket).await, Message::binary(vec![0x22, 0x00]));
    assert_eq!(next(&mut socket).await, Message::binary(AUDIO.to_vec()));
    for message in held {
        assert_eq!(next(&mut socket).await, message);
    }
    for n in 0..200u8 {
        socket.send(Message::binary(vec![n; 640])).await.unwrap();
    }
    for n in 0..200u8 {
        assert_eq!(next(&mut socket).await, Message::binary(vec![n; 640]));
    }
    let session = app.until(&id, |session| session.moments.audible.is_some()).await;
    assert_eq!(session.state, SessionState::Live);
    let asked = &agent.seen().websockets[0];
    assert_eq!(asked, "/ws?body=eyJuYW1lIjoiQWRhIn0%3D", "the body travels as base64 JSON");
    socket.close(None).await.unwrap();
    assert_eq!(code(&app.wait(&id, "ended").await), "client-left");
    app.finish().await;
}

#[tokio::test]
async fn a_bot_that_hangs_up_closes_the_clients_socket() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let mut socket = app.connect(&join).await;
    socket.send(Message::text("bye")).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("a close was due") };
    assert_eq!(u16::from(frame.code), 1000);
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-finished");
    app.finish().await;
}

#[tokio::test]
async fn a_stopped_session_closes_the_clients_socket() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let mut socket = app.connect(&join).await;
    app.until(&id, |session| session.state == SessionState::Live).await;
    let token = join["token"].as_str().unwrap();
    let end =
        app.request(Method::DELETE, &format!("/v1/sessions/{id}"), token).send().await.unwrap();
    assert_eq!(end.status(), StatusCode::ACCEPTED, "who was given the session may end it");
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("a close was due") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1000, "stopped"));
    app.wait(&id, "ended").await;
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_floods_before_the_bot_is_ready_is_ended() {
    let script = fake::Script { ready: BotReady::OnNotify, ..fake::Script::default() };
    let app = TestApp::with(agent(script)).await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let mut socket = app.connect(&join).await;
    for _ in 0..20 {
        let _ = socket.send(Message::binary(vec![7; 1000])).await;
    }
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "client-overflow");
    assert!(session.end_reason.unwrap().detail.contains("4096"));
    app.finish().await;
}

#[tokio::test]
async fn one_session_has_one_client_with_the_right_token() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let (_, other) = app.start(json!({ "bot": "parrot" })).await;
    let url = join["wsUrl"].as_str().unwrap();
    let refused = async |url: String| match connect_async(url).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("a refusal was due: {other:?}"),
    };
    assert_eq!(refused(url.to_owned()).await, 401);
    assert_eq!(refused(format!("{url}?token={}", other["token"].as_str().unwrap())).await, 403);
    assert_eq!(refused(format!("{url}?token=x")).await, 401);
    let socket = app.connect(&join).await;
    let again = format!("{url}?token={}", join["token"].as_str().unwrap());
    assert_eq!(refused(again.clone()).await, 409, "its client is there already");
    drop(socket);
    app.wait(&id, "ended").await;
    assert_eq!(refused(again).await, 409, "it is over");
    app.finish().await;
}

#[tokio::test]
async fn http_of_a_session_reaches_its_bot() {
    let script = fake::Script { ready: BotReady::OnNotify, ..fake::Script::default() };
    let app = TestApp::with(agent(script)).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let path = format!("/sessions/{id}/echo/deep?x=1&token=theirs");
    let request =
        app.request(Method::PATCH, &path, &app.public).header("x-mine", "yes").body("hello");
    let waiting = tokio::spawn(request.send());
    let session = app.until(&id, |session| session.moments.started.is_some()).await;
    app.provider.agent(&session.machine.unwrap()).unwrap().ready();
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "a call made before the bot was up waited");
    let seen: Value = answer.json().await.unwrap();
    assert_eq!((&seen["method"], &seen["body"]), (&json!("PATCH"), &json!("hello")), "{seen}");
    assert_eq!(seen["path"], "/echo/deep?x=1", "{seen}");
    let headers = seen["headers"].to_string();
    assert!(headers.contains("x-mine") && headers.contains(&id), "{headers}");
    assert!(!headers.contains("authorization"), "the key stays with the dispatcher: {headers}");
    for reserved in ["bot", "ws", "_callbox/wake", "readyz", "%62ot", "%2562ot", "/bot"] {
        let path = format!("/sessions/{id}/{reserved}");
        let answer = app.request(Method::POST, &path, &app.private).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{reserved}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_call_that_is_cut_because_another_replica_has_its_session_says_so() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let mut socket = app.connect(&join).await;
    app.until(&id, |session| session.moments.joined.is_some()).await;
    let other = Replica { id: "other".into(), place: String::new(), url: String::new() };
    app.plane.store.beat(&other).await.unwrap();
    let taken = app.plane.store.take_over(&other, Duration::ZERO, Duration::ZERO, 10).await;
    assert_eq!(taken.unwrap().len(), 1);
    app.plane.handle(SessionId::parse(&id).unwrap()).unwrap().look();
    let closed = async {
        loop {
            if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
                return frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
            }
        }
    };
    let closed = timeout(SOON, closed).await.unwrap();
    assert_eq!(closed, Some((1012, "dispatcher-restarted".into())));
}
