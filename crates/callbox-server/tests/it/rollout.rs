//! Another version of a bot: who gets it, and when nothing is left of the one before.

use std::sync::Arc;

use callbox_core::{EventKind, Fault};
use callbox_machines::{FakeProvider, Script, StartFault};
use callbox_protocol::api::{ErrorBody, Rollout, RolloutList, RolloutState, Session, SessionState};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::runtime::{Builder, Handle};

use crate::app::{SOON, TestApp};

fn version(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn serving(text: &str) -> Script {
    Script { version: version(text), ..Script::default() }
}

async fn roll(app: &TestApp, bot: &str) -> Rollout {
    let path = format!("/v1/bots/{bot}/rollout");
    let answer = app.request(Method::POST, &path, &app.private).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    answer.json().await.unwrap()
}

/// The bot's versions as soon as `what` holds for them.
async fn until(app: &TestApp, bot: &str, what: impl Fn(&Rollout) -> bool) -> Rollout {
    let mut last = None;
    let polling = async {
        loop {
            let list: RolloutList =
                app.get(&format!("/v1/rollouts?bot={bot}")).await.json().await.unwrap();
            let [rollout] = list.rollouts.try_into().unwrap();
            if what(&rollout) {
                return rollout;
            }
            last = Some(rollout);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(SOON, polling).await {
        Ok(rollout) => rollout,
        Err(_) => panic!("it did not happen; last seen: {last:#?}"),
    }
}

/// What is shown: version, state, sessions that live.
fn shown(rollout: &Rollout) -> Vec<(&str, RolloutState, u32)> {
    let versions = rollout.versions.iter();
    versions.map(|one| (one.version.as_deref().unwrap_or(""), one.state, one.live)).collect()
}

fn serves(word: &'static str) -> impl Fn(&Rollout) -> bool {
    move |rollout| {
        let current = &rollout.versions[0];
        current.version.as_deref() == Some(word)
            && current.state == RolloutState::Serving
            && rollout.versions.iter().all(|one| one.state != RolloutState::Preparing)
    }
}

/// A call of this bot that has begun.
async fn call(app: &TestApp, bot: &str) -> Session {
    let (id, _) = app.start(json!({ "bot": bot, "transport": "fake" })).await;
    app.wait(&id, "ready").await;
    app.tell(&id, EventKind::ClientJoined);
    app.until(&id, |session| session.state == SessionState::Live).await
}

async fn hang_up(app: &TestApp, session: &Session) {
    app.tell(&session.id, EventKind::ClientLeft { detail: "a test".into() });
    app.wait(&session.id, "ended").await;
}

fn made_of(app: &TestApp, session: &Session) -> Option<String> {
    app.provider.version_of(session.machine.as_ref().unwrap())
}

#[tokio::test]
async fn new_sessions_get_the_new_version_once_it_is_prepared_and_old_ones_keep_theirs() {
    let app = TestApp::with(serving("one")).await;
    let first = call(&app, "parrot").await;
    assert_eq!((first.version.clone(), made_of(&app, &first)), (version("one"), version("one")));

    app.provider.set(|script| {
        script.version = version("two");
        script.prepare_held = true;
    });
    let second = call(&app, "parrot").await;
    assert_eq!(second.version, version("one"), "an image that was built anew changes nothing");

    let asked = roll(&app, "parrot").await;
    assert_eq!(asked.versions.len(), 2);
    let preparing = |rollout: &Rollout| rollout.versions[1].version == version("two");
    let rollout = until(&app, "parrot", preparing).await;
    assert_eq!(
        shown(&rollout),
        [("one", RolloutState::Serving, 2), ("two", RolloutState::Preparing, 0)]
    );
    assert!(rollout.versions[1].stage.is_some() && rollout.versions[0].current);
    let third = call(&app, "parrot").await;
    assert_eq!(third.version, version("one"), "what is being prepared is not served");
    assert_eq!(app.provider.tended("parrot"), [version("one")]);

    app.provider.release();
    let rollout = until(&app, "parrot", serves("two")).await;
    assert_eq!(
        shown(&rollout),
        [("two", RolloutState::Serving, 0), ("one", RolloutState::Finishing, 3)]
    );
    assert_eq!(app.provider.tended("parrot"), [version("two")], "its reserve is given up");
    let fourth = call(&app, "parrot").await;
    assert_eq!((fourth.version.clone(), made_of(&app, &fourth)), (version("two"), version("two")));

    assert_eq!(app.provider.retired(), []);
    for session in [&first, &second, &third] {
        hang_up(&app, session).await;
    }
    let rollout = until(&app, "parrot", |rollout| rollout.versions.len() == 1).await;
    assert_eq!(shown(&rollout), [("two", RolloutState::Serving, 1)]);
    assert_eq!(app.provider.retired(), [version("one")]);
    app.finish().await;
}

#[tokio::test]
async fn a_session_whose_bot_dies_gets_a_machine_of_its_own_version_again() {
    let app = TestApp::with(serving("one")).await;
    let session = call(&app, "tough").await;
    app.provider.set(|script| script.version = version("two"));
    roll(&app, "tough").await;
    until(&app, "tough", serves("two")).await;

    app.provider.agent(session.machine.as_ref().unwrap()).unwrap().exit_bot(1);
    let again =
        app.until(&session.id, |now| now.incarnation == 2 && now.state == SessionState::Live).await;
    assert_eq!((again.version.clone(), made_of(&app, &again)), (version("one"), version("one")));
    hang_up(&app, &again).await;
    until(&app, "tough", |rollout| rollout.versions.len() == 1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_version_that_cannot_be_prepared_leaves_all_as_it_was_and_says_why() {
    let broken = |detail: &str| Some(StartFault::Bot { detail: detail.into(), log_tail: vec![] });
    let app = TestApp::with(serving("one")).await;
    let session = call(&app, "parrot").await;
    type Breaks = fn(&mut Script, Option<StartFault>);
    let breaks: [(&str, Breaks); 2] = [
        ("no such module", |script, fault| script.prepare_fails = fault),
        ("its clone does not wake", |script, fault| script.fill_fails = fault),
    ];
    app.provider.set(|script| script.version = version("two"));
    for (why, set) in breaks {
        app.provider.set(|script| set(script, broken(why)));
        roll(&app, "parrot").await;
        let failed = |rollout: &Rollout| {
            let last = rollout.versions.last().unwrap();
            last.state == RolloutState::Failed && last.why.as_deref() == Some(why)
        };
        let rollout = until(&app, "parrot", failed).await;
        assert_eq!(
            shown(&rollout),
            [("one", RolloutState::Serving, 1), ("two", RolloutState::Failed, 0)]
        );
        assert_eq!(app.provider.tended("parrot"), [version("one")]);
        app.provider.set(|script| set(script, None));
    }
    // And when not even the image can be found.
    app.provider.set(|script| script.version_fails = Some(Fault::refused("there is no image")));
    roll(&app, "parrot").await;
    let failed =
        |rollout: &Rollout| rollout.versions.len() == 2 && rollout.versions[1].why.is_some();
    let rollout = until(&app, "parrot", failed).await;
    assert_eq!(rollout.versions[1].why.as_deref(), Some("there is no image"));
    let another = call(&app, "parrot").await;
    assert_eq!(another.version, version("one"));

    // Made good, it is served, and the failure forgotten.
    app.provider.set(|script| script.version_fails = None);
    roll(&app, "parrot").await;
    until(&app, "parrot", serves("two")).await;
    hang_up(&app, &session).await;
    hang_up(&app, &another).await;
    until(&app, "parrot", |rollout| rollout.versions.len() == 1).await;
    app.finish().await;
}

#[tokio::test]
async fn what_is_served_already_stays_and_what_comes_back_is_old_no_more() {
    let app = TestApp::with(serving("one")).await;
    roll(&app, "parrot").await;
    let rollout = until(&app, "parrot", serves("one")).await;
    assert_eq!(rollout.versions.len(), 1);

    let session = call(&app, "parrot").await;
    for word in ["two", "one"] {
        app.provider.set(|script| script.version = version(word));
        roll(&app, "parrot").await;
        until(&app, "parrot", serves(word)).await;
    }
    // Nobody ever had the other one.
    let rollout = until(&app, "parrot", |rollout| rollout.versions.len() == 1).await;
    assert_eq!(shown(&rollout), [("one", RolloutState::Serving, 1)]);
    assert_eq!(app.provider.retired(), [version("two")]);
    hang_up(&app, &session).await;
    app.finish().await;
}

/// Whoever is accepted while versions change has one of them, and it is there.
#[tokio::test]
async fn starts_during_a_switch_have_the_one_version_or_the_other() {
    let app = TestApp::with(serving("0")).await;
    let mut ids = Vec::new();
    for round in 1..=5 {
        app.provider.set(|script| script.version = Some(round.to_string()));
        roll(&app, "parrot").await;
        let start = || app.start(json!({ "bot": "parrot", "transport": "fake" }));
        for (id, _) in futures::future::join_all((0..3).map(|_| start())).await {
            ids.push(id);
        }
    }
    until(&app, "parrot", serves("5")).await;
    let mut versions = std::collections::BTreeSet::new();
    for id in &ids {
        let session = app.wait(id, "ready").await;
        assert_eq!(made_of(&app, &session), session.version);
        assert!(!app.provider.retired().contains(&session.version), "{session:?}");
        versions.insert(session.version);
    }
    assert!(versions.len() > 1, "{versions:?}");
    for id in &ids {
        app.tell(id, EventKind::ClientLeft { detail: "a test".into() });
    }
    until(&app, "parrot", |rollout| rollout.versions.len() == 1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_dispatcher_that_starts_serves_what_is_there_and_finishes_what_was() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let provider = Arc::new(FakeProvider::new(serving("one")));
    let app = TestApp::on(dir, provider, runtime.handle()).await;
    let session = call(&app, "parrot").await;
    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();

    provider.set(|script| script.version = version("two"));
    let app = TestApp::on(dir, provider, &Handle::current()).await;
    let rollout = until(&app, "parrot", serves("two")).await;
    assert_eq!(
        shown(&rollout),
        [("two", RolloutState::Serving, 0), ("one", RolloutState::Finishing, 1)]
    );
    let is = app.until(&session.id, |_| true).await;
    assert_eq!((is.version, is.state), (version("one"), SessionState::Live));
    hang_up(&app, &session).await;
    until(&app, "parrot", |rollout| rollout.versions.len() == 1).await;
    assert_eq!(app.provider.retired(), [version("one")]);
    app.finish().await;
}

#[tokio::test]
async fn only_who_may_all_rolls_out_and_only_bots_that_there_are() {
    let app = TestApp::new().await;
    for (method, path) in [(Method::GET, "/v1/rollouts"), (Method::POST, "/v1/bots/parrot/rollout")]
    {
        let answer = app.request(method, path, &app.public).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
    }
    for (method, path) in
        [(Method::GET, "/v1/rollouts?bot=parot"), (Method::POST, "/v1/bots/parot/rollout")]
    {
        let answer = app.request(method, path, &app.private).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.json::<ErrorBody>().await.unwrap().code, "unknown-bot");
    }
    let all: RolloutList = app.get("/v1/rollouts").await.json().await.unwrap();
    assert_eq!(all.rollouts.len(), app.plane.config.bots.len());
    // Without versions there is nothing to roll out.
    roll(&app, "parrot").await;
    let failed = |rollout: &Rollout| rollout.versions.last().unwrap().state == RolloutState::Failed;
    let rollout = until(&app, "parrot", failed).await;
    assert!(rollout.versions[1].why.as_ref().unwrap().contains("no versions"), "{rollout:?}");
    app.finish().await;
}
