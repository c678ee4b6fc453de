//! The link against the fake agent, over carriers in memory.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use callbox_link::fake::{BotReady, FakeAgent, Script};
use callbox_link::{Carrier, Link, LinkError, fresh_wake};
use callbox_protocol::agent::{
    AgentError, AgentEventKind, CommandReady, Contract, Phase, Prepare, SessionData,
};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("this happens soon")
}

async fn open(agent: &FakeAgent) -> Link {
    soon(Link::open(agent.carrier())).await.unwrap()
}

async fn awake(script: Script) -> (FakeAgent, Link) {
    let agent = FakeAgent::new(script);
    let link = open(&agent).await;
    soon(link.prepare(&prepare())).await.unwrap();
    soon(link.wake(&fresh_wake("test"))).await.unwrap();
    (agent, link)
}

fn prepare() -> Prepare {
    Prepare {
        contract: Contract::Command { ready: CommandReady::Started },
        argv: vec!["bot".to_owned()],
        env: Default::default(),
        cwd: "/".to_owned(),
        uid: 1000,
        gid: 1000,
        port: 8080,
        ready_timeout_ms: 1000,
    }
}

fn session() -> SessionData {
    SessionData {
        session_id: "s1".to_owned(),
        incarnation: 1,
        bot: "demo".to_owned(),
        transport: "websocket".to_owned(),
        room_url: "ws://127.0.0.1:8080/ws".to_owned(),
        token: String::new(),
        body: Value::Null,
        env: Default::default(),
    }
}

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
    link.stop(Duration::from_secs(3)).await.unwrap();
    soon(link.closed()).await;
    let seen = agent.seen();
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
async fn pump(
    mut host: tokio::io::DuplexStream,
    mut far: tokio::io::DuplexStream,
) -> tokio::io::DuplexStream {
    let _ = tokio::io::copy_bidirectional(&mut far, &mut NoShutdown(&mut host)).await;
    host
}

struct NoShutdown<'a>(&'a mut tokio::io::DuplexStream);

mod no_shutdown {
    use super::NoShutdown;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    impl AsyncRead for NoShutdown<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut *self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for NoShutdown<'_> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut *self.0).poll_write(cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut *self.0).poll_flush(cx)
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            // Reports the end, so that the copy of the other direction ends too.
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
    }
}

#[tokio::test]
async fn rubbish_before_the_answer_is_skipped() {
    let mut rubbish = b"\xff\x00CALLBOX/1 OK \nCALLBOX/1 OK 00\n".to_vec();
    rubbish.extend_from_slice(b"CALLBOX/1 OK 00000000000000000000000000000000\n");
    rubbish.extend(std::iter::repeat_n(b'x', 100_000));
    let agent = FakeAgent::new(Script { rubbish, ..Script::default() });
    let link = open(&agent).await;
    soon(link.health()).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_boots_slowly_answers_all_hellos_and_the_latest_counts() {
    let agent =
        FakeAgent::new(Script { boot_delay: Duration::from_millis(1200), ..Script::default() });
    let link = open(&agent).await;
    soon(link.health()).await.unwrap();
    assert_eq!(agent.seen().connections, 1);
}

#[tokio::test]
async fn a_late_answer_to_an_earlier_hello_is_not_taken() {
    let (host, mut machine) = tokio::io::duplex(64 * 1024);
    let opening = tokio::spawn(Link::open(Box::new(host) as Carrier));
    // Swallows the first hello, and answers it only when the second one is there.
    let first = soon(read_hello(&mut machine)).await;
    let second = soon(read_hello(&mut machine)).await;
    assert_ne!(first, second);
    let late = format!("CALLBOX/1 OK {first}\n");
    machine.write_all(late.as_bytes()).await.unwrap();
    let latest = format!("CALLBOX/1 OK {second}\n");
    machine.write_all(latest.as_bytes()).await.unwrap();
    // HTTP/2 starts after the second answer, and after nothing else.
    let mut preface = [0; 14];
    soon(machine.read_exact(&mut preface)).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0");
    drop(machine);
    // The agent never sent its settings: the link opens, and is closed.
    if let Ok(link) = soon(opening).await.unwrap() {
        soon(link.closed()).await;
    }
}

async fn read_hello(machine: &mut tokio::io::DuplexStream) -> String {
    let mut line = Vec::new();
    loop {
        match machine.read_u8().await.unwrap() {
            b'\n' if line.is_empty() => {}
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    let line = String::from_utf8(line).unwrap();
    line.strip_prefix("CALLBOX/1 ").unwrap().to_owned()
}

#[tokio::test]
async fn a_carrier_that_ends_before_the_answer_is_an_error() {
    let (host, machine) = tokio::io::duplex(64);
    drop(machine);
    let error = soon(Link::open(Box::new(host))).await.unwrap_err();
    assert!(matches!(error, LinkError::Hello(_)), "{error}");
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
async fn over_long_and_unreadable_lines_are_errors() {
    let (agent, link) = awake(Script::default()).await;
    agent.log("fine");
    agent.raw_log(b"\n\n{\"seq\":");
    agent.raw_log(b"nonsense}\n");
    let mut logs = link.logs(0);
    assert_eq!(soon(logs.next()).await.unwrap().unwrap().text, "fine");
    let error = soon(logs.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::Protocol { .. }), "{error}");
    assert!(soon(logs.next()).await.is_none());

    let (agent, link) = awake(Script::default()).await;
    agent.raw_log(&vec![b'x'; 3 * 1024 * 1024]);
    let error = soon(link.logs(0).next()).await.unwrap().unwrap_err();
    assert!(matches!(error, LinkError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn unreadable_and_endless_answers_are_errors() {
    type Expected = fn(&LinkError) -> bool;
    let answers: [(Vec<u8>, Expected); 3] = [
        (b"{\"phase\":".to_vec(), |e| matches!(e, LinkError::Protocol { .. })),
        (b"\xff\xfe".to_vec(), |e| matches!(e, LinkError::Protocol { .. })),
        (vec![b' '; 2 * 1024 * 1024], |e| matches!(e, LinkError::TooLarge { .. })),
    ];
    for (answer, expected) in answers {
        let agent =
            FakeAgent::new(Script { raw_answer: Some(("health", answer)), ..Script::default() });
        let link = open(&agent).await;
        let error = soon(link.health()).await.unwrap_err();
        assert!(expected(&error), "{error}");
    }
}

#[tokio::test]
async fn the_agents_own_words_come_through() {
    let error = AgentError {
        code: "bot-exited".to_owned(),
        message: "it ended with code 1".to_owned(),
        log_tail: vec!["ImportError".to_owned()],
    };
    let agent = FakeAgent::new(Script { refuse_prepare: Some(error), ..Script::default() });
    let link = open(&agent).await;
    let error = soon(link.prepare(&prepare())).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("bot-exited"));
    assert_eq!(error.log_tail(), ["ImportError"]);
    assert!(error.to_string().contains("it ended with code 1"), "{error}");
}

#[tokio::test]
async fn a_wake_is_only_good_when_everything_is() {
    let scripts = [
        Script { generation_id: Some("0".repeat(32)), ..Script::default() },
        Script { kernel_reseeded: false, ..Script::default() },
        Script { clock_set: false, ..Script::default() },
        Script { bot_reseeded: Some(false), ..Script::default() },
    ];
    for script in scripts {
        let agent = FakeAgent::new(script);
        let link = open(&agent).await;
        link.prepare(&prepare()).await.unwrap();
        let error = soon(link.wake(&fresh_wake("x"))).await.unwrap_err();
        assert!(matches!(error, LinkError::NotReseeded { .. }), "{error}");
    }
    let no_bot = Script { bot_reseeded: None, ..Script::default() };
    awake(no_bot).await;
}

#[tokio::test]
async fn a_fresh_wake_is_fresh_and_secret() {
    let (one, two) = (fresh_wake("x"), fresh_wake("x"));
    assert_ne!(one.generation_id, two.generation_id);
    assert_ne!(one.entropy, two.entropy);
    assert_eq!((one.generation_id.len(), one.entropy.len()), (32, 128));
    assert!(!format!("{one:?}").contains(&one.entropy));
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
async fn a_tunnel_needs_an_awake_machine_and_a_listening_port() {
    let agent = FakeAgent::new(Script::default());
    let link = open(&agent).await;
    let error = soon(link.tunnel(8080)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("wrong-phase"));
    let error = soon(link.wake(&fresh_wake("x"))).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("wrong-phase"));
    link.prepare(&prepare()).await.unwrap();
    link.wake(&fresh_wake("x")).await.unwrap();
    let error = soon(link.tunnel(9)).await.unwrap_err();
    assert_eq!(error.agent_code(), Some("not-found"));
    soon(link.tunnel(8080)).await.unwrap();
}

#[tokio::test]
async fn http_goes_through_a_tunnel() {
    let (_agent, link) = awake(Script::default()).await;
    let mut tunnel = link.tunnel(8080).await.unwrap();
    let request = "PUT /echo/a?b=c HTTP/1.1\r\nhost: bot\r\nx-try: 1\r\n\
                   connection: close\r\ncontent-length: 4\r\n\r\nbody";
    tunnel.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(tunnel.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!(told["method"], "PUT");
    assert_eq!(told["path"], "/echo/a?b=c");
    assert_eq!(told["headers"]["x-try"], "1");
    assert_eq!(told["body"], "body");
}

#[tokio::test]
async fn a_websocket_greets_echoes_and_says_bye() {
    let (agent, link) =
        awake(Script { greeting: vec![vec![1, 2], vec![3]], ..Script::default() }).await;
    let tunnel = link.tunnel(8080).await.unwrap();
    let url = "ws://bot/ws?body=e30=";
    let (mut socket, _) = soon(tokio_tungstenite::client_async(url, tunnel)).await.unwrap();
    for greeting in [vec![1u8, 2], vec![3]] {
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::binary(greeting));
    }
    for number in 0..50u8 {
        socket.send(Message::binary(vec![number; 640])).await.unwrap();
    }
    for number in 0..50u8 {
        let frame = soon(socket.next()).await.unwrap().unwrap();
        assert_eq!(frame, Message::binary(vec![number; 640]));
    }
    socket.send(Message::text("bye")).await.unwrap();
    assert!(matches!(soon(socket.next()).await.unwrap().unwrap(), Message::Close(_)));
    assert!(soon(socket.next()).await.is_none());
    drop(socket);
    let seen = agent.wait_for(|seen| seen.bot_exited).await;
    assert_eq!(seen.websockets, ["/ws?body=e30="]);
    assert_eq!(seen.websockets_closed, 1);
}

#[tokio::test]
async fn ten_megabytes_go_through_a_tunnel_in_order() {
    let (_agent, link) = awake(Script::default()).await;
    let tunnel = link.tunnel(8080).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async("ws://bot/ws", tunnel).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    const FRAMES: u32 = 160;
    let frame = |n: u32| Message::binary(n.to_le_bytes().repeat(16 * 1024));
    let sending = async {
        for number in 0..FRAMES {
            sink.send(frame(number)).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..FRAMES {
            assert!(stream.next().await.unwrap().unwrap() == frame(number), "frame {number}");
        }
    };
    soon(async { tokio::join!(sending, receiving) }).await;
}

#[tokio::test]
async fn many_tunnels_work_side_by_side_and_one_stalled_one_stops_nobody() {
    let (agent, link) = awake(Script::default()).await;
    // Nobody reads this one: its window fills up, the others' must not.
    let stalled = link.tunnel(8080).await.unwrap();
    let (mut stalled, _) = tokio_tungstenite::client_async("ws://bot/ws", stalled).await.unwrap();
    let flood = tokio::spawn(async move {
        loop {
            if stalled.send(Message::binary(vec![0; 65536])).await.is_err() {
                return;
            }
        }
    });
    let talks = (0..64u32).map(|number| {
        let link = link.clone();
        async move {
            let tunnel = link.tunnel(8080).await.unwrap();
            let (mut socket, _) =
                tokio_tungstenite::client_async("ws://bot/ws", tunnel).await.unwrap();
            for round in 0..10u32 {
                let said = json!([number, round]).to_string();
                socket.send(Message::text(said.clone())).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(said));
            }
            socket
        }
    });
    let sockets = soon(futures::future::join_all(talks)).await;
    assert_eq!(sockets.len(), 64);
    assert_eq!(agent.seen().tunnels, 65);
    flood.abort();
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
