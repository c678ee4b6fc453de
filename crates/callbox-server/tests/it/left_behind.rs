//! Calls that were begun under another configuration, or before a secret was lost, go on.

use std::time::Duration;

use callbox_core::{Session, SessionId};
use callbox_link::fake::FakeAgent;
use callbox_server::store::Memory;

use crate::still::{Outside, Still};

fn ready(session: &Session) -> bool {
    session.ready
}

/// A call whose machine has its data, and its agent.
async fn call(app: &Still, outside: &Outside, bot: &str) -> (SessionId, FakeAgent) {
    let id = app.start(bot).await;
    let machine = app.until(id, ready).await.machine_name().unwrap();
    let agent = outside.provider.agent(&machine).unwrap();
    agent.wait_for(|seen| seen.sessions.len() == 1).await;
    (id, agent)
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_any_more_ends_no_call() {
    let outside = Outside::new(Memory::default());
    let secret = outside.dir.path().join("secret");
    std::fs::write(&secret, "sesame").unwrap();
    let bots = format!("[bots.guarded]\n[bots.guarded.secrets]\nKEY = {{ file = {secret:?} }}\n");
    let app = Still::new(&outside, &bots).await;
    let (id, agent) = call(&app, &outside, "guarded").await;
    app.crash().await;
    std::fs::remove_file(&secret).unwrap();
    let app = Still::new(&outside, &bots).await;
    agent.wait_for(|seen| seen.connections == 2).await;
    agent.exit_bot(0);
    assert_eq!(app.end(id).await, "bot-finished");
    // Whoever starts anew needs it.
    let id = app.start("guarded").await;
    assert_eq!(app.end(id).await, "start-failed");
}

#[tokio::test(start_paused = true)]
async fn a_bot_that_left_the_configuration_leaves_its_calls() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, "[bots.here]\n[bots.gone]\n").await;
    let (id, agent) = call(&app, &outside, "gone").await;
    app.crash().await;
    let app = Still::new(&outside, "[bots.here]\n").await;
    agent.wait_for(|seen| seen.connections == 2).await;
    agent.exit_bot(0);
    assert_eq!(app.end(id).await, "bot-finished");
    assert_eq!(outside.provider.names(), Vec::<String>::new(), "its machine was destroyed");
}

#[tokio::test(start_paused = true)]
async fn without_its_provider_a_session_ends_when_its_machine_has_ended_itself() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, "[bots.here]\n").await;
    let (id, _) = call(&app, &outside, "here").await;
    app.crash().await;
    let began = tokio::time::Instant::now();
    let app = Still::with(&outside, "[bots.here]\n", Vec::new()).await;
    assert_eq!(app.end(id).await, "machine-lost");
    assert!(began.elapsed() >= Duration::from_secs(120), "not before it has");
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_break_as_often_as_it_held_meanwhile() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, "[bots.here]\n").await;
    let (id, agent) = call(&app, &outside, "here").await;
    for connections in 2..10 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        agent.cut();
        agent.wait_for(|seen| seen.connections == connections).await;
    }
    agent.exit_bot(0);
    assert_eq!(app.end(id).await, "bot-finished");
}
