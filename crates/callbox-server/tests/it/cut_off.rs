//! A dispatcher whose store does not answer.

use std::sync::Arc;

use axum::body::Body;
use callbox_core::State;
use callbox_server::{
    replica, serve,
    store::{Memory, Replica, Store as _},
};
use callbox_transports::Presence;
use http::{Request, StatusCode};
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};
use tower::ServiceExt as _;

use crate::{
    moody::{Mood, Moody},
    still::{Outside, Still},
};

const BOTS: &str = "[bots.here]\n";

#[tokio::test(start_paused = true)]
async fn one_that_is_alone_on_a_store_for_several_holds_still() {
    let store = Moody { shared: true, ..Moody::default() };
    let outside = Outside::new(store.clone());
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    let session = app.until(id, |session| session.ready).await;
    assert!(app.plane.replicas.may_act(&session));
    store.is(Mood::Away);
    // Another one that starts now would be on our store, and would not be seen.
    let holds_still = async {
        let mut lease = app.plane.replicas.lease();
        while app.plane.replicas.may_act(&session) {
            lease.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(6), holds_still).await.expect("before anybody takes it over");
    store.is(Mood::Fine);
    outside.provider.agent(&session.machine_name().unwrap()).unwrap().exit_bot(0);
    assert_eq!(app.end(id).await, "bot-finished");
}

#[tokio::test(start_paused = true)]
async fn one_whose_file_nobody_shares_goes_on() {
    let outside = Outside::new(Memory::default());
    let app = Still::new(&outside, BOTS).await;
    assert!(!app.plane.replicas.may_be_shared());
}

#[tokio::test(start_paused = true)]
async fn that_it_lives_is_said_while_it_takes_up_what_was_left() {
    let store = Moody::default();
    store.is(Mood::Slow);
    let outside = Outside::new(store.clone());
    let plane = Still::plane(&outside, BOTS, vec![Arc::clone(&outside.provider) as _]);
    let beginning = plane.spawn({
        let plane = Arc::clone(&plane);
        async move { serve::begin(&plane).await.is_ok() }
    });
    timeout(Duration::from_secs(60), store.beat_so_often(4)).await.expect("it lives");
    store.is(Mood::Fine);
    assert_eq!(beginning.await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_cannot_be_written_down_is_answered_in_time_and_not_forgotten() {
    let store = Moody::default();
    let outside = Outside::new(store.clone());
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    app.until(id, |session| session.ready).await;
    store.is(Mood::Away);
    let request = Request::delete(format!("/v1/sessions/{id}"))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {}", app.plane.tokens.sign(id)))
        .body(Body::empty())
        .unwrap();
    let answer = timeout(Duration::from_secs(10), app.router.clone().oneshot(request)).await;
    let status = answer.expect("it is answered").unwrap().status();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    store.is(Mood::Fine);
    assert_eq!(app.end(id).await, "stopped");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_back_while_its_driver_goes_is_driven_soon() {
    let store = Moody { shared: true, ..Moody::default() };
    let outside = Outside::new(store.clone());
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    app.until(id, |session| session.ready).await;
    let us = app.plane.replicas.me();
    let them = Replica { id: "them".into(), place: String::new(), url: String::new() };
    let at_once = Duration::ZERO;
    let handle = app.plane.handle(id).unwrap();
    let mut seen = handle.session.clone();
    seen.mark_unchanged();
    store.take_over(&them, at_once, at_once, 10).await.unwrap();
    handle.look();
    // Its driver sees that it is not ours any more, and begins to go.
    seen.changed().await.unwrap();
    store.take_over(&us, at_once, at_once, 10).await.unwrap();
    drop(handle);
    while seen.changed().await.is_ok() {}
    let driven = async {
        while app.plane.handle(id).is_none() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(3), driven).await.expect("nobody drives it");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_drives_is_left_to_the_host_that_its_machine_is_on() {
    let store = Moody { shared: true, ..Moody::default() };
    let outside = Outside::new(store.clone());
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    app.until(id, |session| session.ready).await;
    // While we were cut off, another host went on with it, on a machine of its own, and left.
    let them = Replica { id: "them".into(), place: "there".into(), url: String::new() };
    let at_once = Duration::ZERO;
    let mut taken = store.take_over(&them, at_once, at_once, 10).await.unwrap();
    let mut row = taken.pop().expect("it is theirs now");
    row.session.place = them.place.clone();
    store.save(&row.session, row.version).await.unwrap();
    store.beat(&them).await.unwrap();
    store.retire(&them.id).await.unwrap();
    if let Some(handle) = app.plane.handle(id) {
        handle.look();
    }
    let left = async {
        while app.plane.handle(id).is_some() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(3), left).await.expect("we would make a second machine");
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_host_are_ended_before_others_give_it_up() {
    let store = Moody { shared: true, ..Moody::default() };
    let outside = Outside::new(store.clone());
    outside.provider.set(|script| script.on_this_host = true);
    let them = Replica { id: "them".into(), place: "there".into(), url: String::new() };
    store.beat(&them).await.unwrap();
    let app = Still::new(&outside, BOTS).await;
    let mut machines = Vec::new();
    let ids = [app.start("here").await, app.start("here").await];
    for id in ids {
        machines.push(app.until(id, |session| session.ready).await.machine_name().unwrap());
    }
    store.is(Mood::Away);
    let cut_off = Instant::now();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(outside.provider.names().len(), 2, "calls go on for a while");
    // One of them has an end of its own, which cannot be written down either.
    outside.provider.agent(&machines[1]).unwrap().exit_bot(0);
    let mut seen = app.plane.handle(ids[0]).unwrap().session;
    let ended = async {
        seen.wait_for(|session| matches!(session.state, State::Ended { .. })).await.unwrap();
        while !outside.provider.names().is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    let given_up = cut_off + replica::lost_after(&app.plane.config);
    timeout_at(given_up, ended).await.expect("others give the host up by now");
    store.is(Mood::Fine);
    assert_eq!(app.end(ids[0]).await, "machine-lost");
    assert_eq!(app.end(ids[1]).await, "bot-finished");
    assert_eq!(outside.provider.made(), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_host_that_is_alone_go_on_however_long_its_database_is_away() {
    let store = Moody { shared: true, ..Moody::default() };
    let outside = Outside::new(store.clone());
    outside.provider.set(|script| script.on_this_host = true);
    outside.rooms.set(|script| script.presence = Some(Presence { bot: true, clients: 1 }));
    let app = Still::new(&outside, BOTS).await;
    let id = app.start("here").await;
    let machine =
        app.until(id, |session| session.state == State::Live).await.machine_name().unwrap();
    store.is(Mood::Away);
    sleep(Duration::from_secs(200)).await;
    store.is(Mood::Fine);
    outside.provider.agent(&machine).unwrap().exit_bot(0);
    assert_eq!(app.end(id).await, "bot-finished");
}
