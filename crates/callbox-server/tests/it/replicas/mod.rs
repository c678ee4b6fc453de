//! Two dispatchers on one store: any of them answers, and one goes on where the other died.

mod house;
mod load;
mod proof;
mod proxy;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use callbox_core::{EventKind, Session, SessionId, SessionSpec, State};
use callbox_machines::Script;
use callbox_protocol::api::{Drain, ReplicaList, ReplicaState};
use callbox_server::{replica::SILENCE, store::NewSession};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::app::code;
use house::{Dispatcher, House, TAKEN_OVER};

#[tokio::test]
async fn any_replica_shows_waits_watches_and_ends() {
    let house = House::on_sqlite(Script { ensure_held: true, ..Script::default() }).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    let (id, _) = a.start(json!({ "bot": "parrot" }), None).await;
    let watching = b.get(&format!("/v1/sessions/{id}/events")).await;
    let release = async { house.provider.release() };
    let (session, ()) = tokio::join!(b.wait(&id, "ready"), release);
    assert!(session.moments.ready.is_some());
    assert_eq!(b.end(&id).await, StatusCode::ACCEPTED);
    for dispatcher in [&a, &b] {
        assert_eq!(code(&dispatcher.wait(&id, "ended").await), "stopped");
    }
    let told = watching.text().await.unwrap();
    assert!(told.contains("\"state\":\"ended\""), "events came to their end: {told}");
    house.is_empty().await;
}

#[tokio::test]
async fn replicas_are_listed_with_what_they_drive() {
    let house = House::on_sqlite(Script::default()).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    a.start(json!({ "bot": "parrot", "transport": "fake" }), None).await;
    let list: ReplicaList = b.get("/v1/replicas").await.json().await.unwrap();
    for (dispatcher, sessions, answered) in [(&a, 1, false), (&b, 0, true)] {
        let url = format!("http://{}", dispatcher.address);
        let found = list.replicas.iter().find(|replica| replica.url == url).unwrap();
        let expected = (ReplicaState::Alive, sessions, answered);
        assert_eq!((found.state, found.sessions, found.answered), expected, "{list:?}");
    }
    let stranger = b.request(Method::GET, "/v1/replicas", &house.public).send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_drain_and_its_warnings_are_of_the_dispatcher_that_drives() {
    let house = House::on_sqlite(Script::default()).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    let body = json!({ "bot": "parrot", "transport": "fake" });
    let (id, _) = a.start(body.clone(), None).await;
    a.wait(&id, "ready").await;
    let handle = a.plane().handle(SessionId::parse(&id).unwrap()).unwrap();
    handle.tell(EventKind::ClientJoined);
    handle.until(|session| session.state == State::Live).await.unwrap();
    let (own, _) = b.start(body, None).await;
    let watching = b.get(&format!("/v1/sessions/{id}/events")).await;
    let begin = b.request(Method::POST, "/v1/drain", &house.private);
    let begun = begin.json(&json!({ "deadline_ms": 500 })).send().await.unwrap();
    let begun: Drain = begun.json().await.unwrap();
    assert_eq!((begun.replica.as_str(), begun.live), (b.plane().replicas.id(), 1));
    let other: Drain = a.get("/v1/drain").await.json().await.unwrap();
    assert_eq!((other.replica.as_str(), other.draining), (a.plane().replicas.id(), false));
    // By then the warning would have come, had there been one.
    assert_eq!(code(&b.wait(&own, "ended").await), "drained");
    a.end(&id).await;
    let told = watching.text().await.unwrap();
    assert!(told.contains("\"live\"") && told.contains("\"ended\""), "{told}");
    assert!(!told.contains("event: warning"), "nobody ends this call: {told}");
    house.is_empty().await;
}

#[tokio::test]
async fn the_same_key_at_another_replica_is_the_same_session() {
    let house = House::on_sqlite(Script::default()).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    let body = json!({ "bot": "parrot", "transport": "fake" });
    let first = a.start(body.clone(), Some("k")).await;
    assert_eq!(b.start(body, Some("k")).await, first);
    b.wait(&first.0, "ready").await;
    assert_eq!(house.provider.made(), 1);
}

#[tokio::test]
async fn what_only_the_driving_replica_can_answer_is_passed_on_to_it() {
    let house = House::on_sqlite(Script::default()).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    b.knows(1).await;
    let (id, join) = a.start(json!({ "bot": "parrot" }), None).await;
    // As a load balancer would have it: the client comes to the other one.
    let token = join["token"].as_str().unwrap();
    let url = format!("ws://{}/ws/{id}?token={token}", b.address);
    let (mut socket, _) = connect_async(url).await.unwrap();
    b.wait(&id, "ready").await;
    socket.send(Message::binary(vec![7; 320])).await.unwrap();
    let echoed = async {
        loop {
            if let Some(Ok(Message::Binary(bytes))) = socket.next().await
                && bytes == vec![7; 320]
            {
                return;
            }
        }
    };
    tokio::time::timeout(TAKEN_OVER, echoed).await.expect("the bot echoes");
    let path = format!("/sessions/{id}/echo/x?y=1");
    let echo = b.request(Method::POST, &path, &house.public).body("hello").send().await.unwrap();
    assert_eq!(echo.status(), StatusCode::OK);
    let echo: Value = echo.json().await.unwrap();
    assert_eq!(echo["body"], "hello", "{echo}");
    let logs: Value = b.get(&format!("/v1/sessions/{id}/logs")).await.json().await.unwrap();
    assert!(!logs["logs"].as_array().unwrap().is_empty());
    let following = b.get(&format!("/v1/sessions/{id}/logs?follow=true")).await;
    assert_eq!(b.end(&id).await, StatusCode::ACCEPTED);
    assert!(following.text().await.unwrap().contains("stopped"), "it is followed to the end");
    house.is_empty().await;
}

#[tokio::test]
async fn a_webhook_reaches_the_driver_wherever_it_arrives_and_replicas_share_the_limits() {
    let house = House::on_sqlite(Script::default()).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    b.knows(1).await;
    assert_eq!(house.rooms.shared_by(), 2);
    let (id, _) = a.start(json!({ "bot": "parrot", "transport": "fake" }), None).await;
    a.wait(&id, "ready").await;
    let joined = json!({ "session": id, "sight": "client" });
    for (signature, status) in [("forged", StatusCode::UNAUTHORIZED), ("fake", StatusCode::OK)] {
        let sent = b.request(Method::POST, "/v1/webhooks/fake", "").json(&joined);
        let answer = sent.header("x-fake-signature", signature).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    let handle = a.plane().handle(SessionId::parse(&id).unwrap()).unwrap();
    let live = handle.until(|session| session.state == State::Live);
    tokio::time::timeout(TAKEN_OVER, live).await.expect("the driver hears of it").unwrap();
    a.end(&id).await;
    house.is_empty().await;
}

#[tokio::test]
async fn sessions_of_a_replica_that_died_go_on_under_another() {
    let house = House::on_sqlite(Script::default()).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    b.knows(1).await;
    let (id, _) = a.start(json!({ "bot": "parrot", "transport": "fake" }), None).await;
    let before = a.wait(&id, "ready").await;
    let address = a.address;
    // Asked before the death, of one that does not drive it.
    let (b, waiting) = waiting_at(b, &id);
    let died = Instant::now();
    a.kill().await;
    let gone = b.get(&format!("/sessions/{id}/echo")).await;
    assert_eq!(gone.status(), StatusCode::SERVICE_UNAVAILABLE, "{address} is gone");
    let gone: Value = gone.json().await.unwrap();
    assert_eq!(gone["code"], "replica-unreachable", "{gone}");
    b.drives(&id).await;
    println!("taken over {:.1} s after the death", died.elapsed().as_secs_f64());
    let agent = house.provider.agent(&before.machine.unwrap()).unwrap();
    agent.wait_for(|seen| seen.connections == 2).await;
    agent.exit_bot(0);
    assert_eq!(code(&waiting.await.unwrap()), "bot-finished");
    assert_eq!((house.provider.made(), agent.seen().sessions.len()), (1, 1));
    house.is_empty().await;
}

/// A client that waits for a session's end, at a dispatcher that others go on asking.
fn waiting_at(
    b: Dispatcher,
    id: &str,
) -> (Arc<Dispatcher>, JoinHandle<callbox_protocol::api::Session>) {
    let (b, id) = (Arc::new(b), id.to_owned());
    let asked = Arc::clone(&b);
    (b, tokio::spawn(async move { asked.wait(&id, "ended").await }))
}

#[tokio::test]
async fn a_replica_that_leaves_is_followed_at_once_and_calls_go_on() {
    let mut house = House::on_sqlite(Script::default()).await;
    house.limits.push_str("\non_shutdown = \"leave\"");
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    let (id, _) = a.start(json!({ "bot": "parrot", "transport": "fake" }), None).await;
    a.wait(&id, "ready").await;
    let dir = a.shut_down().await;
    let left = Instant::now();
    b.drives(&id).await;
    assert!(left.elapsed() < SILENCE, "nobody waits for one that said good-bye");
    // And who comes back is the same as before, and has nothing to do.
    let a = house.dispatcher_on(Box::pin(std::future::ready(house.store.clone())), dir).await;
    a.knows(1).await;
    assert!(a.plane().handles().is_empty());
    assert_eq!(a.end(&id).await, StatusCode::ACCEPTED);
    assert_eq!(code(&a.wait(&id, "ended").await), "stopped");
    assert_eq!(house.provider.made(), 1);
    house.is_empty().await;
}

#[tokio::test]
async fn machines_of_a_host_wait_for_its_own_dispatcher() {
    let house = House::on_sqlite(Script { on_this_host: true, ..Script::default() }).await;
    let (a, b) = (house.dispatcher().await, house.dispatcher().await);
    let body = json!({ "bot": "parrot", "transport": "fake" });
    let (bound, _) = a.start(body.clone(), None).await;
    a.wait(&bound, "ready").await;
    house.provider.set(|script| script.on_this_host = false);
    let (free, _) = a.start(body, None).await;
    let dir = a.kill().await;
    // Both were looked at when the one was taken over.
    b.drives(&free).await;
    assert!(b.plane().handle(SessionId::parse(&bound).unwrap()).is_none());
    let a = house.dispatcher_on(Box::pin(std::future::ready(house.store.clone())), dir).await;
    a.drives(&bound).await;
    for id in [&bound, &free] {
        // Its bot's way to it is its own dispatcher's, whoever is asked.
        let echo = b.request(Method::POST, &format!("/sessions/{id}/echo"), &house.public);
        assert_eq!(echo.send().await.unwrap().status(), StatusCode::OK);
        assert_eq!(b.end(id).await, StatusCode::ACCEPTED);
        assert_eq!(code(&b.wait(id, "ended").await), "stopped");
    }
    assert_eq!(house.provider.made(), 2);
    house.is_empty().await;
}

#[tokio::test]
async fn a_session_whose_host_is_gone_for_good_ends() {
    let house = House::on_sqlite(Script::default()).await;
    let id = SessionId(uuid::Uuid::new_v4());
    let spec = SessionSpec {
        id,
        bot: "parrot".into(),
        transport: "fake".into(),
        provider: "fake".into(),
        body: Value::Null,
        room_options: Value::Null,
        base_url: "ws://127.0.0.1:1".into(),
        labels: [].into(),
        version: None,
        place: "a host that was".into(),
        limits: limits(),
        ready_when: callbox_core::ReadyWhen::Bot,
        restarts: callbox_core::Restarts { most: 0, within: Duration::ZERO },
    };
    let session = Session::accepted(spec, callbox_server::now());
    let admitted = EventKind::Admitted;
    let event = callbox_core::Event { at: callbox_server::now(), kind: admitted };
    let Ok(callbox_core::Applied::Changed(session)) = callbox_core::apply(&session, &event) else {
        panic!("a queued session is admitted")
    };
    let (total_cap, bot_cap, queue_cap) = (10, 10, 10);
    let new = NewSession {
        session: *session,
        replica: "was".into(),
        start_key: None,
        total_cap,
        bot_cap,
        queue_cap,
    };
    house.store.insert(&new).await.unwrap();
    let b = house.dispatcher().await;
    let ended = b.wait(&id.to_string(), "ended").await;
    assert_eq!(code(&ended), "machine-lost");
    assert_eq!(house.provider.made(), 0, "its machine is nobody else's business");
    house.is_empty().await;
}

fn limits() -> callbox_core::Limits {
    let long = Duration::from_secs(600);
    callbox_core::Limits {
        queued: long,
        start: long,
        ready: long,
        join: long,
        live: long,
        alone: long,
        warn: Duration::ZERO,
        ending: long,
    }
}
