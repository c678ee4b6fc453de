//! A bot that dies in its call, and what its configuration makes of that.

use std::time::Duration;

use callbox_core::{Fault, SessionId};
use callbox_link::fake::{self, BotReady, FakeAgent};
use callbox_machines::{Script, StartFault};
use callbox_protocol::api::{Restarting, Session, SessionState};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    app::{SOON, Socket, TestApp, code},
    restart::{crash, doomed, doomed_app},
};

const AUDIO: [u8; 4] = [0x12, 0x02, 0x1a, 0x00];

/// A call of this bot over the websocket, live, and its machine's agent.
async fn call(app: &TestApp, bot: &str) -> (String, Socket, FakeAgent) {
    let (id, join) = app.start(json!({ "bot": bot, "transport": "websocket" })).await;
    let socket = app.connect(&join).await;
    let session = app.until(&id, |session| session.state == SessionState::Live).await;
    let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
    agent.wait_for(|seen| !seen.websockets.is_empty()).await;
    (id, socket, agent)
}

async fn machine(app: &TestApp, id: &str, incarnation: u32) -> (Session, FakeAgent) {
    let session = app
        .until(id, |session| {
            session.incarnation == incarnation && session.state == SessionState::Live
        })
        .await;
    let agent = app.provider.agent(session.machine.as_ref().unwrap()).unwrap();
    (session, agent)
}

async fn echo(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text)).await.unwrap();
    assert_eq!(next(socket).await, Message::text(text));
}

async fn next(socket: &mut Socket) -> Message {
    timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap()
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    loop {
        if let Message::Close(frame) = next(socket).await {
            let frame = frame.unwrap();
            return (frame.code.into(), frame.reason.as_str().to_owned());
        }
    }
}

async fn logs(app: &TestApp, id: &str) -> Vec<String> {
    let logs: Value = app.get(&format!("/v1/sessions/{id}/logs")).await.json().await.unwrap();
    let lines = logs["logs"].as_array().unwrap().iter();
    lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_call_goes_on_in_a_fresh_machine_over_the_same_websocket() {
    let app = TestApp::new().await;
    let (id, mut socket, first) = call(&app, "tough").await;
    echo(&mut socket, "one").await;
    first.log("of the first");
    app.until_logged(&id, "of the first").await;
    app.provider.set(|script| {
        script.agent.ready = BotReady::OnNotify;
        script.agent.greeting = vec![AUDIO.to_vec()];
    });
    first.exit_bot(1);
    let between = app.until(&id, |session| session.incarnation == 2).await;
    assert_eq!(between.restarts, 1);
    let why = between.restarted_because.unwrap();
    assert_eq!(
        (why.code.as_str(), why.detail.as_str()),
        ("bot-failed", "the bot exited with code 1")
    );
    // Said to nobody; what is no audio is kept.
    socket.send(Message::binary(AUDIO.to_vec())).await.unwrap();
    socket.send(Message::text("two")).await.unwrap();
    let session = app.until(&id, |session| session.state == SessionState::Joining).await;
    let second = app.provider.agent(&session.machine.unwrap()).unwrap();
    second.wait_for(|seen| !seen.sessions.is_empty()).await;
    assert_eq!(second.seen().sessions[0].incarnation, 2, "the bot can know");
    second.log("of the second");
    second.ready();
    assert_eq!(next(&mut socket).await, Message::binary(AUDIO.to_vec()), "its greeting");
    assert_eq!(next(&mut socket).await, Message::text("two"));
    echo(&mut socket, "three").await;
    app.until_logged(&id, "of the second").await;
    let lines = logs(&app, &id).await;
    let place = |text: &str| lines.iter().position(|line| line == text).expect(text);
    let died = place("the bot died (the bot exited with code 1): a fresh machine, 2 of 3");
    assert!(place("of the first") < died && died < place("of the second"), "{lines:?}");
    assert_eq!(app.provider.made(), 2);
    assert_eq!(app.provider.names().len(), 1, "never two at once");
    socket.close(None).await.unwrap();
    assert_eq!(code(&app.wait(&id, "ended").await), "client-left");
    app.finish().await;
}

#[tokio::test]
async fn whatever_ends_a_bot_or_its_machine_is_survived() {
    let app = TestApp::new().await;
    type Kill = fn(&TestApp, &str, &FakeAgent);
    let kills: [(Kill, &str); 4] = [
        (|_, _, agent| agent.exit_bot(3), "bot-failed"),
        (|_, _, agent| agent.kill_bot(9), "bot-failed"),
        (|_, _, agent| agent.kill_bot_out_of_memory(), "bot-out-of-memory"),
        (|app, name, _| app.provider.kill(name), "machine-lost"),
    ];
    for (kill, expected) in kills {
        let (id, mut socket, agent) = call(&app, "tough").await;
        let name = app.until(&id, |_| true).await.machine.unwrap();
        kill(&app, &name, &agent);
        let (session, _) = machine(&app, &id, 2).await;
        assert_eq!(session.restarted_because.unwrap().code, expected);
        echo(&mut socket, "still there").await;
        drop(socket);
        assert_eq!(code(&app.wait(&id, "ended").await), "client-left");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_websocket_that_breaks_is_a_bot_that_died_and_one_that_closes_is_not() {
    // Its program does not end with its websocket.
    let agent = fake::Script { exit_on_close: None, ..fake::Script::default() };
    let app = TestApp::with(Script { agent, ..Script::default() }).await;
    let (id, mut socket, first) = call(&app, "tough").await;
    first.break_websockets();
    let (session, _) = machine(&app, &id, 2).await;
    assert_eq!(session.restarted_because.unwrap().code, "bot-failed");
    echo(&mut socket, "again").await;
    socket.send(Message::text("bye")).await.unwrap();
    assert_eq!(closed(&mut socket).await, (1000, "bot-finished".into()));
    assert_eq!(code(&app.wait(&id, "ended").await), "bot-finished");
    app.finish().await;
}

#[tokio::test]
async fn a_bot_that_finishes_has_finished() {
    let app = TestApp::new().await;
    let (id, mut socket, agent) = call(&app, "tough").await;
    agent.exit_bot(0);
    assert_eq!(closed(&mut socket).await, (1000, "bot-finished".into()));
    assert_eq!((code(&app.wait(&id, "ended").await), app.provider.made()), ("bot-finished", 1));
    app.finish().await;
}

#[tokio::test]
async fn when_all_are_used_up_the_last_failure_ends_it() {
    let app = TestApp::new().await;
    let (id, mut socket, _) = call(&app, "tough").await;
    for incarnation in 1..=3 {
        machine(&app, &id, incarnation).await.1.exit_bot(incarnation.cast_signed());
    }
    assert_eq!(closed(&mut socket).await, (1011, "bot-failed".into()));
    let session = app.wait(&id, "ended").await;
    assert_eq!((session.incarnation, app.provider.made()), (3, 3));
    assert_eq!(session.end_reason.unwrap().detail, "the bot exited with code 3");
    app.finish().await;
}

#[tokio::test]
async fn one_that_dies_before_it_is_ready_counts_too() {
    let app = TestApp::new().await;
    let (id, _socket, first) = call(&app, "tough").await;
    app.provider.set(|script| script.agent.ready = BotReady::Fails("no model".into()));
    first.exit_bot(1);
    let session = app.wait(&id, "ended").await;
    assert_eq!((code(&session), app.provider.made()), ("bot-not-ready", 3));
    app.provider.set(|script| script.agent.ready = BotReady::AtOnce);

    let (id, _socket, first) = call(&app, "tough").await;
    let refused = StartFault::Provider(Fault::refused("no such image"));
    app.provider.set(|script| script.ensure_fails = Some(refused));
    first.exit_bot(1);
    assert_eq!(code(&app.wait(&id, "ended").await), "start-failed");
    app.finish().await;
}

#[tokio::test]
async fn what_was_long_ago_does_not_count() {
    let app = TestApp::new().await;
    let (id, mut socket, _) = call(&app, "phoenix").await;
    // One within a millisecond, which no machine is quick enough for.
    for incarnation in 1..=4 {
        machine(&app, &id, incarnation).await.1.exit_bot(1);
    }
    let (session, _) = machine(&app, &id, 5).await;
    assert_eq!(session.restarts, 1, "those before are forgotten");
    echo(&mut socket, "as new").await;
    app.finish().await;
}

#[tokio::test]
async fn who_leaves_or_stops_during_a_restart_is_served_at_once() {
    let app = TestApp::new().await;
    for stop in [false, true] {
        let (id, socket, first) = call(&app, "tough").await;
        app.provider.set(|script| script.ensure_held = true);
        first.exit_bot(1);
        app.until(&id, |session| session.incarnation == 2).await;
        let made = app.provider.made();
        let expected = if stop {
            let path = format!("/v1/sessions/{id}");
            app.request(Method::DELETE, &path, &app.private).send().await.unwrap();
            "stopped"
        } else {
            drop(socket);
            "client-left"
        };
        assert_eq!(code(&app.wait(&id, "ended").await), expected);
        assert_eq!(app.provider.made(), made, "no machine was made for nobody");
        app.provider.set(|script| script.ensure_held = false);
    }
    app.finish().await;
}

#[tokio::test]
async fn the_next_machine_waits_until_the_last_one_is_gone() {
    let app = TestApp::new().await;
    let (id, mut socket, first) = call(&app, "tough").await;
    app.provider.set(|script| {
        script.destroy_held = true;
        script.destroy_failures = 2;
    });
    first.exit_bot(1);
    let session = app.until(&id, |session| session.state == SessionState::Starting).await;
    assert_eq!((session.incarnation, app.provider.made()), (1, 1));
    // A sweep leaves it to its driver.
    assert_eq!(callbox_server::sweep::once(&app.plane).await.unwrap(), 0);
    app.provider.release();
    let (_, _) = machine(&app, &id, 2).await;
    echo(&mut socket, "at last").await;
    assert_eq!(app.provider.most_of_one_session(), 1, "one machine at a time");
    drop(socket);
    app.wait(&id, "ended").await;
    app.finish().await;
}

#[tokio::test]
async fn http_for_the_bot_waits_for_the_next_one() {
    let app = TestApp::new().await;
    let (id, _socket, first) = call(&app, "tough").await;
    app.provider.set(|script| script.agent.ready = BotReady::OnNotify);
    first.exit_bot(1);
    let session = app.until(&id, |s| s.incarnation == 2 && s.state == SessionState::Joining).await;
    let request = app.request(Method::GET, &format!("/sessions/{id}/echo"), &app.public);
    let waiting = tokio::spawn(request.send());
    let second = app.provider.agent(&session.machine.unwrap()).unwrap();
    second.wait_for(|seen| !seen.sessions.is_empty()).await;
    second.ready();
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    app.finish().await;
}

#[tokio::test]
async fn whoever_watches_is_told() {
    let app = TestApp::new().await;
    let (id, _socket, first) = call(&app, "tough").await;
    let mut events = app.get(&format!("/v1/sessions/{id}/events")).await.bytes_stream();
    let mut text = String::new();
    first.exit_bot(1);
    let restarting = async {
        loop {
            text.push_str(&String::from_utf8_lossy(&events.next().await.unwrap().unwrap()));
            let event =
                text.split("\n\n").find_map(|e| e.strip_prefix("event: restarting\ndata: "));
            if let Some(Ok(event)) = event.map(serde_json::from_str::<Restarting>) {
                return event;
            }
        }
    };
    let event = timeout(SOON, restarting).await.unwrap();
    assert_eq!((event.incarnation, event.left), (2, 1));
    assert_eq!(event.reason.detail, "the bot exited with code 1");
    machine(&app, &id, 2).await;
    // Who begins to watch now is not told of what is over.
    let mut events = app.get(&format!("/v1/sessions/{id}/events")).await.bytes_stream();
    let first = timeout(SOON, events.next()).await.unwrap().unwrap().unwrap();
    assert!(first.starts_with(b"event: session"), "{first:?}");
    app.request(Method::DELETE, &format!("/v1/sessions/{id}"), &app.private).send().await.unwrap();
    let mut rest = String::new();
    while let Some(Ok(bytes)) = timeout(SOON, events.next()).await.unwrap() {
        rest.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(!rest.contains("event: restarting"), "{rest}");
    app.finish().await;
}

#[tokio::test]
async fn a_fresh_machine_is_measured_for_itself() {
    let usage = |unique_bytes| Some(callbox_core::Usage { unique_bytes, ..Default::default() });
    let app = TestApp::with(Script { usage: usage(9000), ..Script::default() }).await;
    let (id, _socket, first) = call(&app, "tough").await;
    let measured = |bytes| {
        move |session: &Session| {
            session.usage.as_ref().is_some_and(|usage| usage.ready_unique_bytes == Some(bytes))
        }
    };
    app.until(&id, measured(9000)).await;
    app.provider.set(|script| script.usage = usage(500));
    first.exit_bot(1);
    let session = app.until(&id, measured(500)).await;
    assert_eq!(session.usage.unwrap().highest_unique_bytes, 500);
    let lost = app.until(&id, |s| s.state == SessionState::Live).await.machine.unwrap();
    app.provider.set(|script| script.usage = usage(700));
    app.provider.kill(&lost);
    app.until(&id, measured(700)).await;
    app.finish().await;
}

/// The dispatcher dies in each step of a restart, and the next one goes on from the row.
#[tokio::test]
async fn a_dispatcher_that_dies_during_a_restart_is_followed_by_one_that_goes_on() {
    for step in ["destroying", "destroyed", "making", "made", "attending"] {
        let runtime = doomed();
        let app = doomed_app(Script::default(), &runtime).await;
        let (id, _) = app.start(json!({ "bot": "tough" })).await;
        let machine = app.wait(&id, "ready").await.machine.unwrap();
        let agent = app.provider.agent(&machine).unwrap();
        app.provider.set(|script| match step {
            "destroying" => script.destroy_held = true,
            "destroyed" => script.destroy_failures = u32::MAX,
            "making" => script.ensure_held = true,
            "made" => script.start_takes = Duration::from_secs(600),
            _ => script.agent.ready = BotReady::OnNotify,
        });
        agent.exit_bot(1);
        match step {
            "destroying" | "destroyed" => {
                app.until(&id, |s| s.state == SessionState::Starting).await;
                if step == "destroyed" {
                    // It happened, and the answer was lost.
                    app.provider.kill(&machine);
                }
            }
            "attending" => {
                app.until(&id, |s| s.incarnation == 2 && s.state == SessionState::Joining).await;
            }
            _ => drop(app.until(&id, |s| s.incarnation == 2).await),
        }
        // The start that is under way has read it already.
        app.provider.set(|script| script.start_takes = Duration::ZERO);
        let app = crash(app, runtime).await;
        app.provider.set(|script| {
            script.destroy_failures = 0;
            script.agent.ready = BotReady::AtOnce;
        });
        app.provider.release();
        // Answered as soon as the sessions were taken up.
        let session = app.until(&id, |_| true).await;
        if step == "attending" {
            let agent = app.provider.agent(&session.machine.unwrap()).unwrap();
            agent.wait_for(|seen| !seen.sessions.is_empty()).await;
            agent.ready();
        }
        let id_ = SessionId::parse(&id).unwrap();
        let ready = async {
            let handle = app.plane.handle(id_).unwrap();
            handle.until(|session| session.ready && session.incarnation == 2).await
        };
        timeout(SOON, ready).await.unwrap_or_else(|_| panic!("{step}: it does not go on"));
        assert_eq!(app.provider.names().len(), 1, "{step}");
        assert_eq!((app.provider.made(), app.provider.most_of_one_session()), (2, 1), "{step}");
        let delete = app.request(Method::DELETE, &format!("/v1/sessions/{id}"), &app.private);
        delete.send().await.unwrap();
        assert_eq!(code(&app.wait(&id, "ended").await), "stopped", "{step}");
        app.finish().await;
    }
}
