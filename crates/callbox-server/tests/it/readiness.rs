//! What counts as ready, who is in the room, and a room that is gone.

use callbox_core::Fault;
use callbox_link::fake::BotReady;
use callbox_machines::Script;
use callbox_protocol::api::SessionState;
use callbox_transports::Presence;
use reqwest::Method;
use serde_json::json;

use crate::app::{TestApp, code};

const NOBODY: Presence = Presence { bot: false, clients: 0 };
const BOT: Presence = Presence { bot: true, clients: 0 };
const BOTH: Presence = Presence { bot: true, clients: 1 };

#[tokio::test]
async fn ready_is_what_the_configuration_says_and_all_signs_are_written_down() {
    let app = TestApp::new().await;
    app.provider.set(|script| script.agent.ready = BotReady::OnNotify);
    app.rooms.set(|script| script.presence = Some(NOBODY));
    let mut ids = Vec::new();
    for (bot, ready_by_itself) in [("prompt", true), ("patient", false), ("present", false)] {
        let (id, _) = app.start(json!({ "bot": bot })).await;
        let session = app.until(&id, |session| session.moments.started.is_some()).await;
        assert_eq!(session.moments.ready.is_some(), ready_by_itself, "{bot}");
        ids.push((bot, id, session.machine.unwrap()));
    }
    // The bots say so: that counts for one of them.
    for (bot, id, machine) in &ids {
        let agent = app.provider.agent(machine).unwrap();
        agent.wait_for(|seen| !seen.sessions.is_empty()).await;
        agent.ready();
        let session = app.until(id, |session| session.moments.bot_said.is_some()).await;
        assert_eq!(session.moments.ready.is_some(), *bot != "present", "{bot}");
        assert_eq!(session.moments.bot_present, None);
    }
    // They are in their rooms, and then so is somebody else.
    app.rooms.set(|script| script.presence = Some(BOT));
    for (bot, id, _) in &ids {
        let session = app.until(id, |session| session.moments.bot_present.is_some()).await;
        let moments = session.moments;
        let sign = match *bot {
            "prompt" => moments.started,
            "patient" => moments.bot_said,
            _ => moments.bot_present,
        };
        assert_eq!(moments.ready, sign, "{bot}");
        assert_eq!((moments.joined, session.state), (None, SessionState::Joining), "{bot}");
    }
    app.rooms.set(|script| script.presence = Some(BOTH));
    for (_, id, _) in &ids {
        app.until(id, |session| session.state == SessionState::Live).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_bot_that_everybody_left_waits_so_long() {
    let app = TestApp::new().await;
    app.rooms.set(|script| script.presence = Some(BOTH));
    let (lonely, _) = app.start(json!({ "bot": "lonely" })).await;
    let (patient, _) = app.start(json!({ "bot": "patient" })).await;
    for id in [&lonely, &patient] {
        app.until(id, |session| session.state == SessionState::Live).await;
    }
    app.rooms.set(|script| script.presence = Some(BOT));
    app.until(&patient, |session| session.alone_until.is_some()).await;
    assert_eq!(code(&app.wait(&lonely, "ended").await), "alone");
    // Somebody comes back in time.
    app.rooms.set(|script| script.presence = Some(BOTH));
    let session = app.until(&patient, |session| session.alone_until.is_none()).await;
    assert_eq!(session.state, SessionState::Live);
    app.request(Method::DELETE, &format!("/v1/sessions/{patient}"), &app.private)
        .send()
        .await
        .unwrap();
    assert_eq!(code(&app.wait(&patient, "ended").await), "stopped");
    app.finish().await;
}

#[tokio::test]
async fn a_room_that_is_gone_ends_its_session() {
    let app = TestApp::new().await;
    app.rooms.set(|script| script.presence = Some(BOTH));
    let (id, _) = app.start(json!({ "bot": "patient" })).await;
    app.until(&id, |session| session.state == SessionState::Live).await;
    app.rooms.set(|script| script.rooms_vanish = true);
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "room-failed");
    app.finish().await;
}

#[tokio::test]
async fn what_the_provider_calls_a_machine_is_known_although_its_answer_is_lost() {
    let script =
        Script { calls_machines: Some("i-".into()), ensure_held: true, ..Script::default() };
    let app = TestApp::with(script).await;
    let (id, _) = app.start(json!({ "bot": "patient" })).await;
    let session = app.until(&id, |session| session.machine.is_some()).await;
    assert_eq!(session.machine_id, None);
    app.provider.set(|script| script.ensure_loses_answer = true);
    app.provider.release();
    let session = app.until(&id, |session| session.machine_id.is_some()).await;
    assert_eq!(session.machine_id.unwrap(), format!("i-{}", session.machine.unwrap()));
    app.wait(&id, "ready").await;
    assert_eq!(app.provider.made(), 1);

    // And of one that was begun and is refused at last.
    let refused = Fault::refused("broken after all");
    app.provider.set(|script| script.fails_when_made = Some(refused));
    let (id, _) = app.start(json!({ "bot": "patient" })).await;
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "start-failed");
    assert_eq!(session.machine_id.unwrap(), format!("i-{}", session.machine.unwrap()));
    app.finish().await;
}
