use std::time::Duration;

use callbox_link::fake::{BotReady, FakeAgent, Script};
use callbox_link::{Link, LinkError, fresh_wake};
use callbox_protocol::agent::{AgentEventKind, Phase, Warning};
use futures::StreamExt;
use tokio::io::{DuplexStream, copy, split};

use crate::{awake, open, prepare, session, soon};

#[tokio::test]
async fn a_machine_is_used_from_boot_to_stop() {
    let agent = FakeAgent::new(Script::default());
    let link = open(&agent).await;
    assert_eq!(link.health().await.unwrap().phase, Phase::Booted);
    link.prepare(&prepare()).await.unwrap();
    let frozen = soon(link.freeze()).await.unwrap();
    assert_eq!(frozen.listening, ["127.0.0.1:8080"]);
    soon(link.closed()).await;
    assert!(matches!(link.health().await, Err(LinkError::Closed)));

    let link = open(&agent).await;
    let mut events = link.events(0);
    link.wake(&fresh_wake("a")).await.unwrap();
    link.session(&session()).await.unwrap();
    assert_eq!(soon(events.next()).await.unwrap().unwrap().kind, AgentEventKind::Ready);
    agent.log("line one");
    let line = soon(link.logs(0).next()).await.unwrap().unwrap();
    assert_eq!((line.seq, line.text.as_str()), (1, "line one"));
    let warning = Warning { ends_in_ms: 500, reason: "live-timeout".to_owned() };
    link.warn(&warning).await.unwrap();
    link.stop(Duration::from_secs(3)).await.unwrap();
    soon(link.closed()).await;
    let seen = agent.seen();
    assert_eq!(seen.warnings, [warning]);
    assert_eq!(seen.stops, [Duration::from_secs(3)]);
    assert_eq!((seen.connections, seen.freezes), (2, 1));
}

#[tokio::test]
async fn the_same_carrier_serves_again_after_a_freeze() {
    let agent = FakeAgent::new(Script::default());
    let (host, machine) = tokio::io::duplex(1024);
    let serving = tokio::spawn({
        let agent = agent.clone();
        async move { agent.serve(Box::new(machine)).await }
    });
    // The host's end stays open as a serial port does, whatever becomes of its connections.
    let (near, far) = tokio::io::duplex(1024);
    let port = tokio::spawn(pump(host, far));
    let link = soon(Link::open(Box::new(near))).await.unwrap();
    link.prepare(&prepare()).await.unwrap();
    link.freeze().await.unwrap();
    drop(link);
    let host = soon(port).await.unwrap();
    let link = soon(Link::open(Box::new(host))).await.unwrap();
    assert_eq!(soon(link.health()).await.unwrap().phase, Phase::Frozen);
    drop(link);
    soon(serving).await.unwrap();
}

/// Copies until `far` ends, then gives `host` back.
async fn pump(host: DuplexStream, far: DuplexStream) -> DuplexStream {
    let (mut from_host, mut to_host) = split(host);
    let (mut from_far, mut to_far) = split(far);
    tokio::select! {
        _ = copy(&mut from_far, &mut to_host) => {}
        _ = copy(&mut from_host, &mut to_far) => {}
    }
    from_host.unsplit(to_host)
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_call_is_closed() {
    let agent = FakeAgent::new(Script { cut_in: Some("prepare"), ..Script::default() });
    let link = open(&agent).await;
    let mut events = link.events(0);
    let mut tunnels_fail = Box::pin(link.closed());
    assert!(futures::poll!(&mut tunnels_fail).is_pending());
    let error = soon(link.prepare(&prepare())).await.unwrap_err();
    assert!(matches!(error, LinkError::Closed), "{error}");
    soon(tunnels_fail).await;
    assert!(matches!(soon(events.next()).await, Some(Err(LinkError::Closed))));
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn events_go_on_over_a_new_connection() {
    let (agent, link) = awake(Script::default()).await;
    link.session(&session()).await.unwrap();
    let mut events = link.events(0);
    assert_eq!(soon(events.next()).await.unwrap().unwrap().seq, 1);
    agent.cut();
    assert!(soon(events.next()).await.unwrap().is_err());
    agent.exit_bot(3);
    let link = open(&agent).await;
    let event = soon(link.events(1).next()).await.unwrap().unwrap();
    assert_eq!(event.seq, 2);
    let exited = AgentEventKind::BotExited { code: Some(3), signal: None, out_of_memory: false };
    assert_eq!(event.kind, exited);
}

#[tokio::test]
async fn readiness_comes_when_the_script_says_so() {
    let (agent, link) = awake(Script { ready: BotReady::OnNotify, ..Script::default() }).await;
    link.session(&session()).await.unwrap();
    let mut events = link.events(0);
    let mut next = events.next();
    assert!(futures::poll!(&mut next).is_pending());
    agent.ready();
    agent.ready();
    assert_eq!(soon(next).await.unwrap().unwrap().kind, AgentEventKind::Ready);
    agent.kill_bot_out_of_memory();
    let event = soon(events.next()).await.unwrap().unwrap();
    assert!(matches!(event.kind, AgentEventKind::BotExited { out_of_memory: true, .. }));
}

#[tokio::test]
async fn the_connection_ends_with_its_last_handle() {
    let (agent, link) = awake(Script::default()).await;
    let tunnel = link.tunnel(8080).await.unwrap();
    let watch = link.clone();
    let closed = tokio::spawn(async move { watch.closed().await });
    drop(link);
    drop(tunnel);
    closed.abort();
    // The carrier is only really gone when the machine's side sees its end.
    let (host, machine) = tokio::io::duplex(1024);
    let serving = tokio::spawn({
        let agent = agent.clone();
        async move { agent.serve(Box::new(machine)).await }
    });
    let link = soon(Link::open(Box::new(host))).await.unwrap();
    soon(link.health()).await.unwrap();
    drop(link);
    soon(serving).await.unwrap();
}
