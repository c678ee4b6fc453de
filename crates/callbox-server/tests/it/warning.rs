//! A call that reaches its longest time is ended, and was warned of it.

use std::sync::Arc;

use callbox_machines::{FakeProvider, Script};
use callbox_protocol::api::{EndWarning, SessionState, WarningState};
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use serde_json::json;
use tokio::runtime::{Builder, Handle};

use crate::app::{TestApp, code};

#[tokio::test]
async fn the_bot_and_who_watches_are_warned_once_before_the_end() {
    let app = TestApp::new().await;
    let (id, join) = app.start(json!({ "bot": "brief" })).await;
    let events = app.get(&format!("/v1/sessions/{id}/events")).await;
    let session = app.wait(&id, "ready").await;
    let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
    let _socket = app.connect(&join).await;
    let live = app.until(&id, |session| session.state == SessionState::Live).await;
    assert!(live.warning.unwrap().at < live.deadline_at.unwrap());

    let ended = app.wait(&id, "ended").await;
    assert_eq!(code(&ended), "max-duration");
    assert_eq!(ended.warning.unwrap().state, WarningState::Delivered);
    let warnings = agent.seen().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].ends_in_ms > 0 && warnings[0].ends_in_ms <= 700, "{warnings:?}");
    assert_eq!(warnings[0].reason, "max-duration");

    let events: Vec<_> = events.bytes_stream().eventsource().map(Result::unwrap).collect().await;
    let told: Vec<EndWarning> = events
        .iter()
        .filter(|event| event.event == "warning")
        .map(|event| serde_json::from_str(&event.data).unwrap())
        .collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_in_ms > 0.0 && told[0].reason == "max-duration");
    app.finish().await;
}

#[tokio::test]
async fn a_call_that_was_warned_of_is_not_warned_of_again_after_a_restart() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let provider = Arc::new(FakeProvider::new(Script::default()));
    let app = TestApp::on(dir, provider, runtime.handle()).await;
    // The room's own media: the call goes on while there is no dispatcher.
    let (id, _) = app.start(json!({ "bot": "long", "transport": "fake" })).await;
    let session = app.wait(&id, "ready").await;
    let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
    app.tell(&id, callbox_core::EventKind::ClientJoined);
    let delivered = |state| {
        move |session: &callbox_protocol::api::Session| {
            session.warning.as_ref().is_some_and(|warning| warning.state == state)
        }
    };
    app.until(&id, delivered(WarningState::Delivered)).await;

    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    let app = TestApp::on(dir, provider, &Handle::current()).await;
    agent.wait_for(|seen| seen.connections == 2).await;
    assert_eq!(app.until(&id, |_| true).await.warning.unwrap().state, WarningState::Delivered);
    app.tell(&id, callbox_core::EventKind::ClientLeft { detail: "a test".into() });
    app.wait(&id, "ended").await;
    assert_eq!(agent.seen().warnings.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_warning_whose_time_comes_while_no_dispatcher_runs_is_delivered_by_the_next() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let provider = Arc::new(FakeProvider::new(Script::default()));
    let app = TestApp::on(dir, provider, runtime.handle()).await;
    let (id, _) = app.start(json!({ "bot": "long", "transport": "fake" })).await;
    let session = app.wait(&id, "ready").await;
    let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
    app.tell(&id, callbox_core::EventKind::ClientJoined);
    app.until(&id, |session| session.state == SessionState::Live).await;
    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    let app = TestApp::on(dir, provider, &Handle::current()).await;
    agent.wait_for(|seen| seen.warnings.len() == 1).await;
    app.finish().await;
}
