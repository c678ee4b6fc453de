//! What nobody claims is removed, and nothing else is.

use std::{sync::Arc, time::Duration};

use callbox_core::{Fault, SessionId, machine_name};
use callbox_machines::{Listed, MachineSpec, Made, Provider as _};
use callbox_protocol::api::Sweep;
use callbox_server::{store::Replica, sweep};
use callbox_transports::Listed as Room;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::app::TestApp;

/// A machine of a session that nobody knows.
async fn stray_machine(app: &TestApp) -> String {
    let name = machine_name(SessionId(uuid::Uuid::new_v4()), 1);
    let bot = Arc::clone(&app.plane.bot("parrot").unwrap().machine);
    let (version, made) = (None, Made::default());
    let spec = MachineSpec { name: name.clone(), incarnation: 1, bot, version, made };
    app.provider.ensure(&spec).await.unwrap();
    name
}

async fn stray_room(app: &TestApp) -> SessionId {
    let session = SessionId(uuid::Uuid::new_v4());
    app.rooms.make(session);
    session
}

/// One whose sweep at the start is over, and the next far away.
async fn app() -> TestApp {
    let app = TestApp::new().await;
    app.rooms.was_listed(1).await;
    app
}

async fn ask(app: &TestApp, method: Method) -> Sweep {
    app.request(method, "/v1/sweep", &app.private).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_dry_run_says_what_a_sweep_removes_and_removes_nothing() {
    let app = app().await;
    let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    let claimed = app.wait(&id, "ready").await.machine.unwrap();
    let (machine, room) = (stray_machine(&app).await, stray_room(&app).await);

    let answer = app.request(Method::GET, "/v1/sweep", &app.public).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "it is the operator's");
    let dry = ask(&app, Method::GET).await;
    let found: Vec<_> =
        dry.found.iter().map(|f| (f.kind.as_str(), f.name.as_str(), f.outcome.as_str())).collect();
    let room_name = room.to_string();
    assert_eq!(found, [("machine", &*machine, "remove"), ("room", &*room_name, "remove")]);
    assert!(dry.dry_run && dry.not_listed.is_empty());
    assert_eq!((app.provider.names().len(), app.rooms.rooms().len()), (2, 2), "all is there");

    let swept = ask(&app, Method::POST).await;
    assert!(swept.found.iter().all(|found| found.outcome == "removed"), "{swept:?}");
    assert_eq!(app.provider.names(), [claimed]);
    assert_eq!(app.rooms.rooms(), [SessionId::parse(&id).unwrap()], "the session's own");
    assert_eq!(ask(&app, Method::GET).await.found, []);
    app.finish().await;
}

#[tokio::test]
async fn what_names_another_deployment_is_never_touched() {
    let app = app().await;
    let (machine, room) = (stray_machine(&app).await, stray_room(&app).await);
    // The same things, with labels: they are in the lists twice.
    let ours = app.plane.store.deployment().await.unwrap().id;
    for (deployment, outcome) in [("somebody-else", "others"), (ours.as_str(), "remove")] {
        let deployment = Some(deployment.to_owned());
        let machine =
            Listed { deployment: deployment.clone(), made_at: None, ..Listed::here(&*machine) };
        let room = Room { session: room, deployment, made_at: None };
        app.provider.lists_only(vec![machine]);
        app.rooms.lists_only(vec![room]);
        let found = ask(&app, Method::GET).await.found;
        let outcomes: Vec<_> = found.iter().map(|found| found.outcome.as_str()).collect();
        assert_eq!(outcomes, [outcome, outcome], "{found:?}");
        if outcome == "others" {
            assert_eq!(sweep::once(&app.plane).await.unwrap(), 0);
            assert_eq!((app.provider.names().len(), app.rooms.rooms().len()), (1, 1));
        }
    }
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 2);
    app.finish().await;
}

#[tokio::test]
async fn what_is_young_is_left_for_a_later_look() {
    let app = app().await;
    let machine = stray_machine(&app).await;
    let now = callbox_server::now();
    let grace = app.plane.config.sweep_grace;
    assert_eq!(grace, Duration::from_secs(30), "the default");
    let made = |made_at| vec![Listed { deployment: None, made_at, ..Listed::here(&*machine) }];
    app.provider.lists_only(made(Some(now)));
    assert_eq!(ask(&app, Method::GET).await.found[0].outcome, "young");
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 0);
    let micros = i64::try_from(grace.as_micros()).unwrap();
    let old = callbox_core::Time::from_micros(now.as_micros() - micros);
    app.provider.lists_only(made(Some(old)));
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 1);
    app.finish().await;
}

#[tokio::test]
async fn what_another_replica_has_in_reserve_or_a_row_has_by_its_id_is_left() {
    let app = app().await;
    app.provider.set(|script| script.calls_machines = Some("fly/".into()));
    let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    let known = app.wait(&id, "ready").await.machine_id.expect("its provider's id");
    let machine = stray_machine(&app).await;
    let theirs =
        Replica { id: "00000000000000aa".into(), place: String::new(), url: String::new() };
    let kept = |keeper: &str| Listed { keeper: Some(keeper.into()), ..Listed::here(&*machine) };
    let sweeps = async |listed: Listed| {
        app.provider.lists_only(vec![listed]);
        sweep::once(&app.plane).await.unwrap()
    };
    let taken = Listed { id: Some(known), ..kept("00000000000000bb") };
    assert_eq!(sweeps(taken).await, 0, "a living session's row has it");
    app.plane.store.beat(&theirs).await.unwrap();
    assert_eq!(sweeps(kept(&theirs.id)).await, 0, "its replica lives");
    assert_eq!(sweeps(kept(app.plane.replicas.id())).await, 1, "we do not know it");
    let machine = stray_machine(&app).await;
    let gone = Listed { keeper: Some("00000000000000bb".into()), ..Listed::here(&*machine) };
    assert_eq!(sweeps(gone).await, 1, "nobody has it");
    app.finish().await;
}

#[tokio::test]
async fn a_stale_list_costs_nobody_anything() {
    let app = app().await;
    let (id, _) = app.start(json!({ "bot": "tough", "transport": "fake" })).await;
    let first = app.wait(&id, "ready").await.machine.unwrap();
    app.provider.agent(&first).unwrap().exit_bot(1);
    let session = app.until(&id, |session| session.incarnation == 2).await;
    let second = session.machine.unwrap();
    app.until(&id, |session| session.start.is_some()).await;
    // Still named: the machine before, and one of a session that is long gone. Missing: the present
    // one.
    let gone = machine_name(SessionId(uuid::Uuid::new_v4()), 3);
    app.provider.lists_only(vec![Listed::here(first), Listed::here(gone)]);
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 2, "destroying again is harmless");
    assert_eq!(app.provider.names(), [second]);
    app.finish().await;
}

#[tokio::test]
async fn who_does_not_list_is_passed_over() {
    let app = app().await;
    let (machine, _) = (stray_machine(&app).await, stray_room(&app).await);
    app.provider.set(|script| script.list_fails = Some(Fault::unavailable("busy")));
    let swept = ask(&app, Method::POST).await;
    assert_eq!(swept.not_listed.len(), 1);
    assert_eq!(
        (swept.not_listed[0].provider.as_str(), swept.not_listed[0].detail.as_str()),
        ("fake", "busy")
    );
    let kinds: Vec<_> = swept.found.iter().map(|found| found.kind.as_str()).collect();
    assert_eq!(kinds, ["room"], "the others are swept all the same");
    assert_eq!(app.provider.names(), [machine]);
    app.provider.set(|script| script.list_fails = None);
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 1);
    app.finish().await;
}

#[tokio::test]
async fn one_that_cannot_be_removed_is_said_and_removed_later() {
    let app = app().await;
    stray_machine(&app).await;
    app.provider.set(|script| script.destroy_failures = 1);
    let swept = ask(&app, Method::POST).await;
    assert_eq!(swept.found[0].outcome, "failed");
    assert!(swept.found[0].detail.contains("told to fail"), "{swept:?}");
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 1);
    app.finish().await;
}

#[tokio::test]
async fn rooms_that_are_to_be_closed_are_their_drivers() {
    let app = app().await;
    let (id, _) = app.start(json!({ "bot": "parrot", "transport": "fake" })).await;
    app.wait(&id, "ready").await;
    app.rooms.set(|script| script.close_failures = 1);
    app.request(Method::DELETE, &format!("/v1/sessions/{id}"), &app.private).send().await.unwrap();
    let end = app.until(&id, |session| session.end_reason.is_some()).await;
    if end.moments.ended.is_none() {
        assert_eq!(ask(&app, Method::GET).await.found, [], "it owes it still");
    }
    app.wait(&id, "ended").await;
    app.finish().await;
}
