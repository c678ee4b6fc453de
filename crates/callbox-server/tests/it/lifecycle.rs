use std::time::Duration;

use callbox_core::Fault;
use callbox_link::fake::{self, BotReady};
use callbox_machines::{Script, StartFault};
use callbox_protocol::api::{Outcome, SessionState};
use reqwest::Method;
use serde_json::json;

use crate::app::{TestApp, code};

fn agent(agent: fake::Script) -> Script {
    Script { agent, ..Script::default() }
}

#[tokio::test]
async fn a_bot_that_ends_ends_its_session() {
    let app = TestApp::new().await;
    for (exit, expected, outcome) in
        [(0, "bot-finished", Outcome::Completed), (3, "bot-failed", Outcome::Failed)]
    {
        let (id, _) = app.start(json!({ "bot": "parrot" })).await;
        let session = app.wait(&id, "ready").await;
        app.provider.agent(&session.machine.unwrap()).unwrap().exit_bot(exit);
        let session = app.wait(&id, "ended").await;
        assert_eq!((code(&session), session.outcome), (expected, Some(outcome)));
    }
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let session = app.wait(&id, "ready").await;
    app.provider.agent(&session.machine.unwrap()).unwrap().kill_bot_out_of_memory();
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-out-of-memory");
    app.finish().await;
}

#[tokio::test]
async fn a_bot_that_cannot_take_the_call_says_so() {
    let fails = BotReady::Fails("its program does not exist".into());
    let app = TestApp::with(agent(fake::Script { ready: fails, ..fake::Script::default() })).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "bot-not-ready");
    assert_eq!(session.end_reason.unwrap().detail, "its program does not exist");

    let exits = fake::Script {
        exit_on_session: Some(0),
        ready: BotReady::OnNotify,
        ..fake::Script::default()
    };
    app.provider.set(|script| script.agent = exits);
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-not-ready", "it exits at once");
    app.finish().await;
}

#[tokio::test]
async fn every_state_has_its_deadline() {
    let app = TestApp::with(Script { ensure_held: true, ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "hasty" })).await;
    assert_eq!(code(&app.wait(&id, "ended").await), "start-timeout");

    app.provider.set(|script| {
        script.ensure_held = false;
        script.agent.ready = BotReady::OnNotify;
    });
    let (id, _) = app.start(json!({ "bot": "hasty" })).await;
    assert_eq!(code(&app.wait(&id, "ended").await), "ready-timeout");

    app.provider.set(|script| script.agent.ready = BotReady::AtOnce);
    let (id, _) = app.start(json!({ "bot": "hasty" })).await;
    assert_eq!(code(&app.wait(&id, "ended").await), "join-timeout");

    let (id, join) = app.start(json!({ "bot": "hasty" })).await;
    let _socket = app.connect(&join).await;
    assert_eq!(code(&app.wait(&id, "ended").await), "max-duration");
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_machine_boots_is_served_at_once() {
    let app = TestApp::with(Script { ensure_held: true, ..Script::default() }).await;
    let (id, join) = app.start(json!({ "bot": "parrot" })).await;
    let socket = app.connect(&join).await;
    app.until(&id, |session| session.moments.joined.is_some()).await;
    drop(socket);
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "client-left");
    assert_eq!(app.provider.made(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_machine_that_dies_ends_its_session() {
    let app = TestApp::new().await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let session = app.wait(&id, "ready").await;
    app.provider.kill(&session.machine.unwrap());
    assert_eq!(code(&app.wait(&id, "ended").await), "machine-lost");
    app.finish().await;
}

#[tokio::test]
async fn a_cut_connection_is_made_anew() {
    let app = TestApp::new().await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let session = app.wait(&id, "ready").await;
    let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
    agent.cut();
    agent.wait_for(|seen| seen.connections == 2).await;
    agent.log("after the cut");
    agent.exit_bot(0);
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-finished");
    assert_eq!(agent.seen().sessions.len(), 1, "its data was sent once");
    app.finish().await;
}

#[tokio::test]
async fn an_unknown_outcome_is_looked_up_and_never_bought_twice() {
    let app = TestApp::with(Script { ensure_loses_answer: true, ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    app.wait(&id, "ready").await;
    assert_eq!(app.provider.made(), 1);
    app.finish().await;
}

#[tokio::test]
async fn what_may_work_later_is_tried_again() {
    let busy = StartFault::Provider(Fault::unavailable("busy"));
    let app = TestApp::with(Script { ensure_fails: Some(busy), ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    app.provider.set(|script| {
        script.ensure_fails = None;
        script.destroy_failures = 2;
    });
    app.wait(&id, "ready").await;
    app.request(Method::DELETE, &format!("/v1/sessions/{id}"), &app.private).send().await.unwrap();
    let session = app.wait(&id, "ended").await;
    assert_eq!((code(&session), session.state), ("stopped", SessionState::Ended));
    app.finish().await;
}

#[tokio::test]
async fn a_machine_that_is_not_proven_awake_gets_no_session() {
    let script = fake::Script { kernel_reseeded: false, ..fake::Script::default() };
    let app = TestApp::with(agent(script)).await;
    let (id, _) = app.start(json!({ "bot": "parrot", "body": { "secret": 1 } })).await;
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "start-failed");
    assert!(session.moments.started.is_none());
    app.finish().await;
}

#[tokio::test]
async fn a_slow_start_is_not_in_anybody_elses_way() {
    let slow = Script { start_takes: Duration::from_secs(600), ..Script::default() };
    let app = TestApp::with(slow).await;
    let (slow, _) = app.start(json!({ "bot": "parrot" })).await;
    app.provider.set(|script| script.start_takes = Duration::ZERO);
    let (quick, _) = app.start(json!({ "bot": "parrot" })).await;
    app.wait(&quick, "ready").await;
    assert_eq!(app.until(&slow, |_| true).await.state, SessionState::Starting);
    app.finish().await;
}
