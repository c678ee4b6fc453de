//! What a crash leaves, the next dispatcher takes up.

use callbox_core::{EndCode, SessionId};
use callbox_machines::Script;
use reqwest::Method;
use serde_json::json;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::app::{TestApp, code};

/// A runtime of its own for the dispatcher that crashes: with it, all its tasks are gone.
pub(crate) fn doomed() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) async fn crash(app: TestApp, runtime: Runtime) -> TestApp {
    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    TestApp::on(dir, provider, &Handle::current()).await
}

pub(crate) async fn doomed_app(script: Script, runtime: &Runtime) -> TestApp {
    let dir = tempfile::TempDir::new().unwrap();
    let provider = std::sync::Arc::new(callbox_machines::FakeProvider::new(script));
    TestApp::on(dir, provider, runtime.handle()).await
}

#[tokio::test]
async fn a_session_that_was_starting_goes_on() {
    let runtime = doomed();
    let app = doomed_app(Script { ensure_held: true, ..Script::default() }, &runtime).await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let app = crash(app, runtime).await;
    app.provider.set(|script| script.ensure_held = false);
    app.provider.release();
    let session = app.wait(&id, "ready").await;
    assert_eq!((session.incarnation, app.provider.made()), (1, 1));
    assert!(join["token"].is_string());
    app.finish().await;
}

#[tokio::test]
async fn a_machine_that_waits_for_its_client_is_adopted() {
    let runtime = doomed();
    let app = doomed_app(Script::default(), &runtime).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let before = app.wait(&id, "ready").await;
    let app = crash(app, runtime).await;
    let machine = before.machine.unwrap();
    let agent = app.provider.agent(&machine).unwrap();
    agent.wait_for(|seen| seen.connections == 2).await;
    agent.exit_bot(0);
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-finished");
    assert_eq!((app.provider.made(), agent.seen().sessions.len()), (1, 1));
    app.finish().await;
}

#[tokio::test]
async fn a_call_whose_media_went_through_the_dispatcher_is_ended() {
    let runtime = doomed();
    let app = doomed_app(Script::default(), &runtime).await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let socket = app.connect(&join).await;
    app.until(&id, |session| session.moments.joined.is_some()).await;
    let app = crash(app, runtime).await;
    drop(socket);
    assert_eq!(code(&app.wait(&id, "ended").await), "dispatcher-restarted");
    app.finish().await;
}

#[tokio::test]
async fn an_end_that_was_acknowledged_is_written_down() {
    let runtime = doomed();
    let app = doomed_app(Script::default(), &runtime).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(app.start(json!({ "bot": "parrot" })).await.0);
    }
    let doomed = &app;
    let ends = ids.iter().map(|id| async move {
        let path = format!("/v1/sessions/{id}");
        let answer = doomed.request(Method::DELETE, &path, &doomed.private).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let row = doomed.plane.store.get(SessionId::parse(id).unwrap()).await.unwrap().unwrap();
        let why = row.session.state.why().map(|why| why.code);
        assert_eq!(why, Some(EndCode::Stopped), "it was acknowledged");
    });
    futures::future::join_all(ends).await;
    let app = crash(app, runtime).await;
    for id in &ids {
        assert_eq!(code(&app.wait(id, "ended").await), "stopped");
    }
    app.finish().await;
}
