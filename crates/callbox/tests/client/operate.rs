//! `callbox drain` and `callbox rollout`, against the same dispatcher in miniature.

use callbox_protocol::api::{Outcome, SessionState};

use crate::support::binary::{begin, callbox, finish, interrupt};
use crate::support::{Mood, StandIn};

async fn with_a_call() -> StandIn {
    let stand_in = StandIn::new(Mood::Parrot).await;
    stand_in.add(1, "parrot", SessionState::Live);
    stand_in
}

async fn until_draining(stand_in: &StandIn) {
    let mut watch = stand_in.shared.operated.draining.subscribe();
    watch.wait_for(|is| *is).await.unwrap();
}

#[tokio::test]
async fn a_drain_is_followed_until_nobody_is_left() {
    let stand_in = with_a_call().await;
    let child = begin(&stand_in.url, &["drain", "--deadline", "10m"], &[]);
    until_draining(&stand_in).await;
    assert_eq!(*stand_in.shared.operated.deadline_ms.borrow(), Some(600_000));
    let id = stand_in.session(0).id;
    stand_in.shared.end(&id, Outcome::Completed, "client-left", "the client hung up");
    let ran = finish(child).await.expect(0);
    assert_eq!(ran.stdout, "draining: nobody is left\n");
}

#[tokio::test]
async fn who_stops_watching_leaves_the_drain_on_until_it_is_cancelled() {
    let stand_in = with_a_call().await;
    let url = &stand_in.url;
    let mut child = begin(url, &["drain"], &[]);
    // Its line comes when it watches, and so listens to Ctrl-C.
    let mut line = [0];
    tokio::io::AsyncReadExt::read_exact(child.stderr.as_mut().unwrap(), &mut line).await.unwrap();
    interrupt(&child);
    finish(child).await.expect(130).says(&["the drain stays on", "--cancel"]);
    let status = callbox(url, &["drain", "--status"]).await.expect(0);
    assert_eq!(status.stdout, "draining: 1 session is left (0000001a parrot live)\n");
    let json = callbox(url, &["drain", "--detach", "--json"]).await.expect(0).json();
    assert_eq!((&json["draining"], &json["live"]), (&true.into(), &1.into()));

    callbox(url, &["drain", "--cancel"]).await.expect(0);
    let status = callbox(url, &["drain", "--status"]).await.expect(0);
    assert!(status.stdout.starts_with("serving: 1 session is left"), "{status:?}");
}

#[tokio::test]
async fn a_drain_that_is_cancelled_is_no_success_for_who_waits_for_it() {
    let stand_in = with_a_call().await;
    let child = begin(&stand_in.url, &["drain"], &[]);
    until_draining(&stand_in).await;
    callbox(&stand_in.url, &["drain", "--cancel"]).await.expect(0);
    finish(child).await.expect(1).says(&["the drain was cancelled"]);
}

#[tokio::test]
async fn another_dispatcher_that_answers_is_noticed() {
    let stand_in = with_a_call().await;
    let url = &stand_in.url;
    stand_in.shared.operated.replica.send_replace("aaaa".into());
    let child = begin(url, &["drain"], &[]);
    until_draining(&stand_in).await;
    // As a load balancer does that asks somebody else now.
    stand_in.shared.operated.replica.send_replace("bbbb".into());
    stand_in.shared.operated.draining.send_replace(false);
    let ran = finish(child).await.expect(1);
    ran.says(&["dispatcher aaaa was asked", "(bbbb)", "own URL; `callbox replicas`"]);

    // A rollout is there at the third look.
    let mut child = begin(url, &["drain", "--bot", "parrot"], &[]);
    let mut line = [0];
    tokio::io::AsyncReadExt::read_exact(child.stderr.as_mut().unwrap(), &mut line).await.unwrap();
    stand_in.shared.operated.replica.send_replace("cccc".into());
    finish(child).await.expect(1).says(&["dispatcher bbbb was asked", "(cccc)"]);
}

#[tokio::test]
async fn who_waits_goes_on_when_nobody_answers_for_a_moment() {
    let stand_in = with_a_call().await;
    let operated = &stand_in.shared.operated;
    let child = begin(&stand_in.url, &["drain"], &[]);
    until_draining(&stand_in).await;
    operated.silent.send_replace(2);
    operated.silent.subscribe().wait_for(|left| *left == 0).await.unwrap();
    let id = stand_in.session(0).id;
    stand_in.shared.end(&id, Outcome::Completed, "client-left", "the client hung up");
    let ran = finish(child).await.expect(0);
    ran.says(&["503 Service Unavailable with \"no healthy upstream\"; asking again"]);

    operated.silent.send_replace(2);
    let ran = callbox(&stand_in.url, &["drain", "--bot", "parrot"]).await.expect(0);
    ran.says(&["asking again", "left to finish"]);
}

#[tokio::test]
async fn a_rollout_is_followed_until_the_old_version_is_gone() {
    let stand_in = StandIn::new(Mood::Parrot).await;
    let url = &stand_in.url;
    let ran = callbox(url, &["drain", "--bot", "parrot"]).await.expect(0);
    ran.says(&["preparing bbbbbbbbbbbb: booting", "left to finish: 1 call on aaaaaaaaaaaa"]);
    assert_eq!(ran.stdout.lines().count(), 2, "{ran:?}");
    assert!(ran.stdout.contains("bbbbbbbbbbbb  serving"), "{ran:?}");
    let ran = callbox(url, &["drain", "--bot", "broken"]).await.expect(1);
    ran.says(&["all is as it was: no module named parrot"]);
    let begun = callbox(url, &["drain", "--bot", "parrot", "--detach", "--json"]).await;
    assert_eq!(begun.expect(0).json()["versions"][1]["state"], "preparing");

    let table = callbox(url, &["rollout", "status"]).await.expect(0);
    assert!(table.stdout.starts_with("BOT"), "{table:?}");
    let json = callbox(url, &["rollout", "status", "--bot", "parrot", "--json"]).await.expect(0);
    assert_eq!(json.json()["rollouts"][0]["bot"], "parrot");
    callbox(url, &["rollout", "status", "--bot", "parot"]).await.expect(2).says(&["\"parot\""]);
    callbox(url, &["drain", "--bot", "parot"]).await.expect(2).says(&["\"parot\""]);
}

#[tokio::test]
async fn what_does_not_go_together_is_a_usage_error() {
    let url = "http://127.0.0.1:9";
    for arguments in [
        &["drain", "--bot", "parrot", "--deadline", "1m"][..],
        &["drain", "--status", "--cancel"],
        &["drain", "--cancel", "--detach"],
        &["drain", "--deadline", "soon"],
        &["rollout"],
    ] {
        callbox(url, arguments).await.expect(2);
    }
    for command in ["drain", "rollout"] {
        let help = callbox(url, &[command, "--help"]).await.expect(0);
        assert!(help.stdout.contains("Usage: callbox"), "{help:?}");
    }
}
