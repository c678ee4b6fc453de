//! Who finds no room waits, in order, or is told when to come back.

use std::{collections::BTreeSet, time::Duration};

use callbox_machines::{FakeProvider, Script};
use callbox_protocol::api::{Info, Session, SessionState};
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};

use crate::app::{TestApp, code};

fn id(answer: &Response) -> String {
    answer.headers()["x-callbox-session-id"].to_str().unwrap().to_owned()
}

fn position(answer: &Response) -> Option<u32> {
    answer.headers().get("x-callbox-queue-position")?.to_str().ok()?.parse().ok()
}

async fn start(app: &TestApp) -> Response {
    app.start_raw(json!({ "bot": "parrot" })).await
}

async fn show(app: &TestApp, id: &str) -> Session {
    app.until(id, |_| true).await
}

async fn stop(app: &TestApp, id: &str) {
    let path = format!("/v1/sessions/{id}");
    app.request(Method::DELETE, &path, &app.private).send().await.unwrap();
}

/// Room for `room`, so many at a time, and starts that wait until they are released.
fn held(room: Option<usize>, max_starting: Option<usize>) -> Script {
    Script { room, max_starting, ensure_held: true, ..Script::default() }
}

#[tokio::test]
async fn of_a_burst_each_is_admitted_queued_with_its_position_or_refused() {
    let config = "max_sessions = 40\nmax_queued = 15\n";
    let script = Script {
        max_starting: Some(2),
        start_takes: Duration::from_millis(20),
        ensure_held: true,
        ..Script::default()
    };
    let app = TestApp::with_limits(script, config).await;
    let answers = futures::future::join_all((0..20).map(|_| start(&app))).await;
    let (mut admitted, mut positions, mut refused, mut ids) = (0, BTreeSet::new(), 0, Vec::new());
    for answer in &answers {
        match (answer.status(), position(answer)) {
            (StatusCode::OK, None) => admitted += 1,
            (StatusCode::OK, Some(position)) => {
                positions.insert(position);
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                let seconds = answer.headers()["retry-after"].to_str().unwrap();
                assert!(seconds.parse::<u64>().unwrap() >= 1);
                refused += 1;
            }
            other => panic!("neither admitted, queued nor refused: {other:?}"),
        }
        if answer.status().is_success() {
            ids.push(id(answer));
        }
    }
    assert_eq!((admitted, refused, ids.len()), (2, 3, 17));
    assert_eq!(positions, (1..=15).collect::<BTreeSet<u32>>(), "all are told where they stand");
    let info: Info = app.get("/v1/info").await.json().await.unwrap();
    assert_eq!(info.queued, 15);

    app.provider.release();
    for id in &ids {
        let session = app.wait(id, "ready").await;
        assert_eq!(session.end_reason, None, "nobody fails");
        assert!(session.stages_ms.admitted <= session.stages_ms.started);
    }
    assert_eq!(app.provider.made(), 17);
    assert!(app.provider.most_starting() <= 2, "{} at once", app.provider.most_starting());
    app.finish().await;
}

#[tokio::test]
async fn nobody_overtakes_and_positions_are_seen_to_shrink() {
    let app = TestApp::with(held(Some(1), None)).await;
    let (first, _) = app.start(json!({ "bot": "parrot" })).await;
    let mut queued = Vec::new();
    for expected in 1..=4 {
        let answer = start(&app).await;
        assert_eq!(position(&answer), Some(expected));
        queued.push(id(&answer));
    }
    let session = show(&app, &queued[3]).await;
    assert_eq!((session.state, session.queue.unwrap().position), (SessionState::Queued, 4));
    let events = app.get(&format!("/v1/sessions/{}/events", queued[3])).await;
    app.provider.release();
    app.wait(&first, "ready").await;

    // Who ends while it waits is out of it.
    stop(&app, &queued[1]).await;
    assert_eq!(code(&app.wait(&queued[1], "ended").await), "stopped");
    let place = |position| {
        move |session: &Session| {
            session.queue.as_ref().is_some_and(|place| place.position == position)
        }
    };
    app.until(&queued[3], place(3)).await;

    let mut before = first;
    for next in [&queued[0], &queued[2], &queued[3]] {
        let waiting = show(&app, next).await;
        let place = waiting.queue.unwrap();
        assert_eq!((waiting.state, place.position), (SessionState::Queued, 1));
        // Known as soon as the queue has moved once.
        assert_eq!(place.wait_ms.is_some(), next != &queued[0], "{place:?}");
        stop(&app, &before).await;
        app.wait(next, "ready").await;
        before = next.clone();
    }
    assert_eq!(app.provider.made(), 4);
    stop(&app, &before).await;
    let sessions = events.bytes_stream().eventsource().map(|event| event.unwrap().data);
    let mut positions: Vec<u32> = sessions
        .filter_map(async |data| {
            serde_json::from_str::<Session>(&data).unwrap().queue.map(|place| place.position)
        })
        .collect()
        .await;
    positions.dedup();
    assert!(positions.is_sorted_by(|a, b| a >= b), "{positions:?}");
    assert_eq!((positions.first(), positions.last()), (Some(&4), Some(&1)));
    app.finish().await;
}

#[tokio::test]
async fn a_wait_has_its_deadline() {
    let app = TestApp::with(held(Some(1), None)).await;
    let (first, _) = app.start(json!({ "bot": "parrot" })).await;
    let (late, _) = app.start(json!({ "bot": "hasty" })).await;
    let session = app.wait(&late, "ended").await;
    assert_eq!((code(&session), &session.moments.admitted), ("queue-timeout", &None));
    assert_eq!(session.machine, None, "nothing was asked of anybody");
    stop(&app, &first).await;
    app.finish().await;
}

#[tokio::test]
async fn the_queue_is_in_the_rows_and_survives_a_crash() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let provider = Arc::new(FakeProvider::new(held(Some(1), None)));
    let app = TestApp::on(dir, provider, runtime.handle()).await;
    let (first, _) = app.start(json!({ "bot": "parrot" })).await;
    let mut queued = Vec::new();
    for _ in 0..3 {
        queued.push(app.start(json!({ "bot": "parrot" })).await.0);
    }
    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    provider.set(|script| script.ensure_held = false);

    let app = TestApp::on(dir, provider, &Handle::current()).await;
    app.wait(&first, "ready").await;
    for (index, id) in queued.iter().enumerate() {
        let session = show(&app, id).await;
        assert_eq!(session.state, SessionState::Queued, "there is room for one");
        assert_eq!(session.queue.unwrap().position as usize, index + 1);
    }
    let answer = start(&app).await;
    assert_eq!(position(&answer), Some(4), "who comes later stands behind them");
    stop(&app, &first).await;
    app.wait(&queued[0], "ready").await;
    assert_eq!(show(&app, &queued[1]).await.queue.unwrap().position, 1);
    app.finish().await;
}

#[tokio::test]
async fn a_machine_in_reserve_is_no_start_and_is_given_up_for_room() {
    // Two in reserve, room for three, one start at a time, and that one does not come to an end.
    let app = TestApp::with(Script { reserve: 2, ..held(Some(3), Some(1)) }).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = start(&app).await;
        assert_eq!(position(&answer), None);
        ids.push(id(&answer));
    }
    assert_eq!(position(&start(&app).await), Some(1), "the host is full");
    app.provider.release();
    let mut from = Vec::new();
    for id in &ids {
        from.push(app.wait(id, "started").await.start.unwrap());
    }
    from.sort();
    assert_eq!(from, ["fake", "reserve", "reserve"]);
    app.finish().await;

    // A reserve that nobody of its kind wants gives way, whether there is a queue or not.
    for limits in ["", "max_queued = 0\n"] {
        let script = Script { room: Some(1), reserve_for_others: 1, ..Script::default() };
        let app = TestApp::with_limits(script, limits).await;
        assert_eq!(others_in_reserve(&app).await, 1);
        let (id, _) = app.start(json!({ "bot": "parrot" })).await;
        assert_eq!(app.wait(&id, "started").await.start.as_deref(), Some("fake"));
        assert_eq!(others_in_reserve(&app).await, 0);
        app.finish().await;
    }
}

async fn others_in_reserve(app: &TestApp) -> u32 {
    let info: Info = app.get("/v1/info").await.json().await.unwrap();
    info.reserves.get("others").map_or(0, |level| level.ready)
}

#[tokio::test]
async fn who_waits_for_a_limit_costs_no_reserve_and_comes_in_when_there_is_a_turn() {
    let script = Script { reserve_for_others: 2, too_fast: true, ..Script::default() };
    let app = TestApp::with(script).await;
    let answer = start(&app).await;
    let id = id(&answer);
    assert_eq!(position(&answer), Some(1));
    assert_eq!(show(&app, &id).await.state, SessionState::Queued);
    assert_eq!(others_in_reserve(&app).await, 2, "what is given up would not help");
    app.provider.set(|script| script.too_fast = false);
    app.wait(&id, "ready").await;
    assert_eq!(others_in_reserve(&app).await, 2);
    app.finish().await;
}

#[tokio::test]
async fn who_is_refused_or_repeats_costs_nobody_a_reserve() {
    let app = TestApp::with(Script { reserve_for_others: 1, ..held(Some(2), None) }).await;
    let start = async || {
        let request = app.request(Method::POST, "/start", &app.public);
        let request = request.header("Idempotency-Key", "k").json(&json!({ "bot": "small" }));
        request.send().await.unwrap()
    };
    let first = start().await;
    assert_eq!((first.status(), position(&first)), (StatusCode::OK, None));
    assert_eq!(id(&start().await), id(&first), "the host is full, and this one is known");
    let refused = app.start_raw(json!({ "bot": "small" })).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "its cap is reached");
    assert_eq!(others_in_reserve(&app).await, 1);
    app.finish().await;
}

#[tokio::test]
async fn what_can_never_fit_fails_at_once_and_says_why() {
    let app = TestApp::with(Script { room: Some(0), ..Script::default() }).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    let session = app.wait(&id, "ended").await;
    assert_eq!(code(&session), "start-failed");
    assert!(session.end_reason.unwrap().detail.contains("0 of 0 places"));
    app.finish().await;
}

#[tokio::test]
async fn the_same_key_gets_its_session_also_when_the_queue_is_full() {
    let app = TestApp::with_limits(held(Some(1), None), "max_queued = 1\n").await;
    app.start(json!({ "bot": "parrot" })).await;
    let keyed = async || {
        let request = app.request(Method::POST, "/start", &app.public);
        let request = request.header("Idempotency-Key", "k").json(&json!({ "bot": "parrot" }));
        request.send().await.unwrap()
    };
    let first = keyed().await;
    assert_eq!(position(&first), Some(1));
    let refused = start(&app).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "5", "nothing is known of the pace yet");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], "429");
    let again = keyed().await;
    assert_eq!((id(&again), position(&again)), (id(&first), Some(1)));
    app.finish().await;
}

#[tokio::test]
async fn caps_hold_for_those_that_wait() {
    let app = TestApp::with(held(Some(1), None)).await;
    app.start(json!({ "bot": "parrot" })).await;
    assert_eq!(position(&app.start_raw(json!({ "bot": "small" })).await), Some(1));
    let refused = app.start_raw(json!({ "bot": "small" })).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "its one session waits");
    app.finish().await;
}
