use callbox_link::fake::{self, BotReady};
use callbox_machines::Script;
use callbox_protocol::{
    agent::LogStream,
    api::{Session, SessionList, SessionState},
};
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{TestApp, code};

#[tokio::test]
async fn events_tell_a_sessions_whole_life_and_come_to_an_end() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let path = format!("/v1/sessions/{id}/events?token={}", join["token"].as_str().unwrap());
    let answer = app.anonymous(Method::GET, &path).send().await.unwrap();
    let watching = tokio::spawn(async move {
        let events = answer.bytes_stream().eventsource();
        let sessions =
            events.map(|event| serde_json::from_str::<Session>(&event.unwrap().data).unwrap());
        sessions.collect::<Vec<_>>().await
    });
    let socket = app.connect(&join).await;
    app.until(&id, |session| session.state == SessionState::Live).await;
    drop(socket);
    let seen = watching.await.unwrap();
    assert!(seen.is_sorted_by_key(|session| session.state), "{seen:#?}");
    let last = seen.last().unwrap();
    assert_eq!((last.state, code(last)), (SessionState::Ended, "client-left"));
    let stages = &last.stages_ms;
    assert!(stages.started.unwrap() <= stages.ready.unwrap());
    app.finish().await;
}

#[tokio::test]
async fn logs_are_kept_followed_and_survive_rubbish() {
    let script = fake::Script { ready: BotReady::OnNotify, ..fake::Script::default() };
    let app = TestApp::with(Script { agent: script, ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let session = app.until(&id, |session| session.moments.started.is_some()).await;
    let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
    let follow = app.get(&format!("/v1/sessions/{id}/logs?follow=true")).await;
    agent.log("a line of the bot");
    agent.log_as(LogStream::Agent, "a line of the agent");
    agent.log("colours \u{1b}[31m and \u{fffd} rubbish");
    let mut lines = follow.bytes_stream().eventsource().map(|event| event.unwrap().data);
    let mut seen = String::new();
    while !seen.contains("rubbish") {
        seen.push_str(&lines.next().await.expect("the stream stays open"));
    }
    agent.raw_log(&[0xff; 64]);
    agent.ready();
    app.wait(&id, "ready").await;
    agent.exit_bot(0);
    app.wait(&id, "ended").await;
    while let Some(line) = lines.next().await {
        seen.push_str(&line);
    }
    assert!(seen.contains("bot-finished"), "the stream ends with the session: {seen}");
    let kept: Value = app.get(&format!("/v1/sessions/{id}/logs")).await.json().await.unwrap();
    let kept = kept["logs"].as_array().unwrap();
    let sequence: Vec<u64> = kept.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(sequence, (1..=kept.len() as u64).collect::<Vec<_>>());
    assert!(kept.iter().any(|entry| entry["source"] == "agent"));
    app.finish().await;
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let app = TestApp::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, app.start(json!({ "bot": "parrot" })).await.0);
    }
    let (small, _) = app.start(json!({ "bot": "small" })).await;
    let list = async |query: &str| -> SessionList {
        app.get(&format!("/v1/sessions{query}")).await.json().await.unwrap()
    };
    let first = list("?bot=parrot&limit=2").await;
    let second =
        list(&format!("?bot=parrot&limit=3&before={}", first.next.as_ref().unwrap())).await;
    let listed: Vec<String> =
        first.sessions.iter().chain(&second.sessions).map(|session| session.id.clone()).collect();
    assert_eq!(listed, ids);
    assert_eq!(second.next, None);
    app.request(Method::DELETE, &format!("/v1/sessions/{small}"), &app.private)
        .send()
        .await
        .unwrap();
    app.wait(&small, "ended").await;
    assert_eq!(list("?bot=small").await.sessions.len(), 0, "the ended are not listed");
    assert_eq!(list("?bot=small&all=true").await.sessions.len(), 1);
    assert_eq!(list("?state=ended").await.sessions[0].id, small);
    app.finish().await;
}

#[tokio::test]
async fn waiting_for_what_does_not_come_says_so() {
    let app = TestApp::with(Script { ensure_held: true, ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let answer = app.get(&format!("/v1/sessions/{id}?wait=ready&timeout_ms=20")).await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "not-yet");
    app.finish().await;
}
