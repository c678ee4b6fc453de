//! A dispatcher that is drained, and one that is on its way out: no new sessions, and what lives
//! goes on or ends.

use callbox_core::{EndCode, EndReason, EventKind, Session, SessionId, SessionSpec, State};
use callbox_machines::Script;
use callbox_protocol::api::{Drain, EndWarning, ErrorBody, SessionState};
use callbox_server::{
    driver,
    store::{Memory, NewSession},
};
use callbox_transports::Presence;
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Duration;

use crate::{
    app::{SOON, TestApp, code},
    still::{Outside, Still},
};

async fn drain(app: &TestApp, body: Value) -> Drain {
    let answer = app.request(Method::POST, "/v1/drain", &app.private).json(&body).send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

/// A refusal that says when to come again.
async fn refused(answer: Response) -> String {
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let again: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=120).contains(&again), "{again}");
    answer.json::<ErrorBody>().await.unwrap().code
}

async fn ready(app: &TestApp) -> (StatusCode, Value) {
    let answer = app.anonymous(Method::GET, "/readyz").send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// A session whose call has begun; its media is its room's own.
async fn live(app: &TestApp) -> String {
    let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    app.wait(&id, "ready").await;
    app.tell(&id, EventKind::ClientJoined);
    app.until(&id, |session| session.state == SessionState::Live).await;
    id
}

#[tokio::test]
async fn a_drained_dispatcher_takes_nobody_and_lets_calls_end_by_themselves() {
    let app = TestApp::new().await;
    let id = live(&app).await;
    let before: Drain = app.get("/v1/drain").await.json().await.unwrap();
    assert_eq!((before.draining, before.since, before.live), (false, None, 1));

    let drained = drain(&app, json!({})).await;
    assert!(drained.draining && drained.since.is_some() && drained.deadline_at.is_none());
    assert_eq!((drained.live, drained.queued, drained.sessions.len()), (1, 0, 1));
    assert_eq!((&drained.sessions[0].id, drained.sessions[0].state), (&id, SessionState::Live));
    let (status, body) = ready(&app).await;
    assert_eq!((status, &body["why"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("draining")));
    assert_eq!(refused(app.start_raw(json!({ "bot": "parrot" })).await).await, "draining");
    let public = "/v1/public/parrot/start";
    let answer = app.request(Method::POST, public, &app.public).send().await.unwrap();
    assert_eq!(refused(answer).await, "draining");
    // Asked again, it is the same drain.
    assert_eq!(drain(&app, json!({})).await.since, drained.since);

    // All else works.
    assert_eq!(app.until(&id, |_| true).await.state, SessionState::Live);
    app.tell(&id, EventKind::ClientLeft { detail: "a test".into() });
    assert_eq!(code(&app.wait(&id, "ended").await), "client-left");
    let after: Drain = app.get("/v1/drain").await.json().await.unwrap();
    assert_eq!((after.draining, after.live, after.sessions), (true, 0, vec![]));
    app.finish().await;
}

#[tokio::test]
async fn a_start_that_is_repeated_during_a_drain_gets_its_session() {
    let app = TestApp::new().await;
    let keyed = async |key: &str, bot: &str| {
        let request = app.request(Method::POST, "/start", &app.public);
        let request = request.header("idempotency-key", key).json(&json!({ "bot": bot }));
        request.send().await.unwrap()
    };
    let first = keyed("a", "parrot").await;
    drain(&app, json!({})).await;
    let again = keyed("a", "parrot").await;
    assert_eq!(again.status(), StatusCode::OK);
    let id = |answer: &Response| answer.headers()["x-callbox-session-id"].clone();
    assert_eq!(id(&first), id(&again));
    assert_eq!(keyed("a", "small").await.status(), StatusCode::CONFLICT);
    assert_eq!(refused(keyed("b", "parrot").await).await, "draining");
    assert_eq!(app.plane.handles().len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_cancelled_drain_takes_sessions_again_and_its_deadline_ends_nobody() {
    let app = TestApp::new().await;
    let id = live(&app).await;
    drain(&app, json!({ "deadline_ms": 600 })).await;
    let cancel = app.request(Method::DELETE, "/v1/drain", &app.private).send().await.unwrap();
    assert!(!cancel.json::<Drain>().await.unwrap().draining);
    assert_eq!(ready(&app).await.0, StatusCode::OK);
    // A later deadline takes the place of an earlier one, and a cancelled one is none: when a
    // drain's deadline has ended a session, the two before it would have ended this one.
    let (brief, _) = app.start(json!({ "bot": "brief", "transport": "websocket" })).await;
    drain(&app, json!({ "deadline_ms": 700 })).await;
    let drained = drain(&app, json!({ "deadline_ms": 60_000 })).await;
    assert!(drained.deadline_at > drained.since);
    app.tell(&brief, EventKind::ClientJoined);
    assert_eq!(code(&app.wait(&brief, "ended").await), "max-duration", "1.2 s later");
    assert_eq!(app.until(&id, |_| true).await.state, SessionState::Live);
    app.finish().await;
}

#[tokio::test]
async fn the_deadline_of_a_drain_ends_what_still_lives_after_a_warning() {
    let app = TestApp::with_limits(Script { room: Some(1), ..Script::default() }, "").await;
    let id = live(&app).await;
    let agent = app.provider.agent(&app.until(&id, |_| true).await.machine.unwrap()).unwrap();
    let (waits, _) = app.start(json!({ "bot": "parrot" })).await;
    let events = app.get(&format!("/v1/sessions/{id}/events")).await;
    let drained = drain(&app, json!({ "deadline_ms": 800 })).await;
    assert_eq!((drained.live, drained.queued), (2, 1), "who waits was accepted");

    for id in [&id, &waits] {
        assert_eq!(code(&app.wait(id, "ended").await), "drained");
    }
    let warnings = agent.seen().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].reason, "drained");
    assert!(warnings[0].ends_in_ms > 0 && warnings[0].ends_in_ms <= 400, "{warnings:?}");
    let events: Vec<_> = events.bytes_stream().eventsource().map(Result::unwrap).collect().await;
    let told = events.iter().filter(|event| event.event == "warning");
    let told: Vec<EndWarning> =
        told.map(|event| serde_json::from_str(&event.data).unwrap()).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_in_ms > 0.0 && told[0].reason == "drained");
    app.finish().await;
}

#[tokio::test]
async fn only_who_may_all_drains_and_nonsense_is_refused() {
    let app = TestApp::new().await;
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let answer = app.request(method.clone(), "/v1/drain", &app.public).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method}");
    }
    for body in ["{", r#"{"deadline_ms": -1}"#, r#"{"deadline_ms": 99999999999999}"#] {
        let request = app.request(Method::POST, "/v1/drain", &app.private);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(ready(&app).await.0, StatusCode::OK, "nothing was drained");
    app.finish().await;
}

/// For as long as somebody is listened to.
#[tokio::test]
async fn who_shuts_down_refuses_starts_and_is_not_ready() {
    let app = TestApp::with(Script { destroy_held: true, ..Script::default() }).await;
    let id = live(&app).await;
    let app = app.shut_down();
    let refusing = async {
        while ready(&app).await.0 == StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, refusing).await.unwrap();
    for _ in 0..3 {
        assert_eq!(refused(app.start_raw(json!({ "bot": "parrot" })).await).await, "shutting-down");
        assert_eq!(ready(&app).await.1["why"], "shutting down");
        // All else works.
        app.until(&id, |session| session.state == SessionState::Ending).await;
    }
    app.provider.release();
    app.finish().await;
}

#[tokio::test]
async fn a_shutdown_that_drains_waits_for_calls_and_is_not_cancelled() {
    let app = TestApp::with_limits(Script::default(), "on_shutdown = \"drain\"").await;
    let id = live(&app).await;
    let app = app.shut_down();
    let draining = async {
        while ready(&app).await.0 == StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, draining).await.unwrap();
    assert_eq!(ready(&app).await.1["why"], "shutting down");
    assert_eq!(refused(app.start_raw(json!({ "bot": "parrot" })).await).await, "draining");
    let status: Drain = app.get("/v1/drain").await.json().await.unwrap();
    assert!(status.draining && status.deadline_at.is_some() && status.live == 1, "{status:?}");
    let cancel = app.request(Method::DELETE, "/v1/drain", &app.private).send().await.unwrap();
    assert_eq!(refused(cancel).await, "shutting-down");
    assert_eq!(app.until(&id, |_| true).await.state, SessionState::Live);
    let handle = app.plane.handle(SessionId::parse(&id).unwrap()).unwrap();
    app.tell(&id, EventKind::ClientLeft { detail: "a test".into() });
    let ended = handle.until(|now| matches!(now.state, State::Ended { .. })).await.unwrap();
    assert_eq!(ended.state.why().unwrap().code, EndCode::ClientLeft);
    app.finish().await;
}

#[tokio::test]
async fn a_shutdown_that_drains_ends_what_lives_at_its_deadline_or_an_earlier_one() {
    let limits = |seconds: f64| format!("on_shutdown = \"drain\"\nshutdown_deadline_s = {seconds}");
    for (shutdown, earlier) in [(0.6, None), (600.0, Some(700))] {
        let app = TestApp::with_limits(Script::default(), &limits(shutdown)).await;
        let id = live(&app).await;
        let agent = app.provider.agent(&app.until(&id, |_| true).await.machine.unwrap()).unwrap();
        let handle = app.plane.handle(SessionId::parse(&id).unwrap()).unwrap();
        if let Some(deadline) = earlier {
            drain(&app, json!({ "deadline_ms": deadline })).await;
        }
        app.shut_down().finish().await;
        let ended = handle.session.borrow().clone();
        assert_eq!(ended.state.why().unwrap().code, EndCode::Drained, "{shutdown} {earlier:?}");
        let warnings = agent.seen().warnings;
        assert_eq!(warnings.len(), 1, "{shutdown} {earlier:?} {warnings:?}");
        assert_eq!(warnings[0].reason, "drained");
    }
}

/// Its request came before the signal, its row after it.
#[tokio::test]
async fn a_start_that_is_accepted_during_a_shutdown_is_ended_or_left_like_the_others() {
    for (on_shutdown, code) in [("end", Some(EndCode::DispatcherShutdown)), ("leave", None)] {
        let limits = format!("on_shutdown = {on_shutdown:?}");
        let app = TestApp::with_limits(Script::default(), &limits).await;
        let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
        app.plane.close();
        let first = app.plane.handle(SessionId::parse(&id).unwrap()).unwrap();
        let late = SessionId::parse("6f9619ff-8b86-4d01-b42d-00cf4fc964f1").unwrap();
        let spec = like(&first.session.borrow(), late);
        let new = NewSession {
            session: Session::accepted(spec, app.plane.clock.now()),
            start_key: None,
            replica: String::new(),
            total_cap: 16,
            bot_cap: 16,
            queue_cap: 16,
        };
        driver::accept(&app.plane, new).await.unwrap();
        let handle = app.plane.handle(late).unwrap();
        let settled = |now: &Session| now.moments.ready.is_some() || now.state.why().is_some();
        let settled = handle.until(settled).await.unwrap();
        assert_eq!(settled.state.why().map(|why| why.code), code, "{on_shutdown}");
        let why = EndReason::new(EndCode::Stopped, "a test");
        handle.tell(EventKind::EndRequested(why.clone()));
        first.tell(EventKind::EndRequested(why));
        for handle in [handle, first] {
            handle.until(|now| matches!(now.state, State::Ended { .. })).await;
        }
        app.finish().await;
    }
}

/// What a client asks for that wants the same as another one.
fn like(session: &Session, id: SessionId) -> SessionSpec {
    let Session {
        bot,
        transport,
        provider,
        body,
        base_url,
        labels,
        version,
        place,
        room_options,
        ..
    } = session.clone();
    let Session { limits, ready_when, restarts, .. } = session.clone();
    SessionSpec {
        id,
        bot,
        transport,
        provider,
        body,
        room_options,
        base_url,
        labels,
        version,
        place,
        limits,
        ready_when,
        restarts,
    }
}

#[tokio::test(start_paused = true)]
async fn a_fresh_machine_is_warned_of_a_drain_too() {
    let outside = Outside::new(Memory::default());
    outside.rooms.set(|script| script.presence = Some(Presence { bot: true, clients: 1 }));
    let bots = "[bots.tough]\nrestarts = { most = 2 }\ntimeouts = { warn_s = 30 }\n";
    let app = Still::new(&outside, bots).await;
    let id = app.start("tough").await;
    let live = async |incarnation| {
        let on =
            |session: &Session| session.state == State::Live && session.incarnation == incarnation;
        let machine = app.until(id, on).await.machine_name().unwrap();
        outside.provider.agent(&machine).unwrap()
    };
    let first = live(1).await;
    callbox_server::drain::begin(&app.plane, Some(Duration::from_secs(16)));
    first.wait_for(|seen| seen.warnings.len() == 1).await;
    first.exit_bot(1);
    let second = live(2).await;
    second.wait_for(|seen| seen.warnings.len() == 1).await;
    assert_eq!(app.end(id).await, "drained");
}
