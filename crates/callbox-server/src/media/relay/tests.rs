//! A relay in this process: a client on one side, a machine that is a fake on the other, and
//! dispatchers that come and go.
#![allow(clippy::unwrap_used)]

use callbox_link::fake::{FakeAgent, Script};
use callbox_protocol::agent::Phase;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinHandle,
    time::{Duration, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::super::{client::Close, end::End};
use super::{
    process::relay,
    words::{Order, Standing, Wish, line},
};

const SOON: Duration = Duration::from_secs(20);
const AUDIO: [u8; 4] = [0x12, 0x02, 0x1a, 0x00];

struct Stage {
    dir: TempDir,
    agent: FakeAgent,
    client: WebSocketStream<TcpStream>,
    relay: JoinHandle<()>,
}

impl Stage {
    async fn with(max_held_bytes: usize, alone_ms: u64, restarts: bool) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        let agent = machine(&dir, "media");
        let order = Order {
            session: uuid::Uuid::new_v4().to_string(),
            port: 8080,
            body: Value::Null,
            max_held_bytes,
            alone_ms,
            first: String::new(),
            restarts,
        };
        let socket = UnixListener::bind(dir.path().join("sock")).unwrap();
        let relay = tokio::spawn(relay(order, theirs, socket));
        let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        Stage { dir, agent, client, relay }
    }

    async fn new() -> Stage {
        Stage::with(1000, 60_000, false).await
    }

    /// A call that may go on after its bot's death.
    async fn tenacious() -> Stage {
        Stage::with(1000, 60_000, true).await
    }

    /// Where the bot of this machine is, in the words of a dispatcher that knows of several.
    fn carry_to(&self, incarnation: u32) -> Wish {
        let media = if incarnation == 1 { "media".into() } else { format!("media{incarnation}") };
        Wish::Carry { media: self.dir.path().join(media), incarnation: Some(incarnation) }
    }

    async fn dispatcher(&self) -> Dispatcher {
        let stream = UnixStream::connect(self.dir.path().join("sock")).await.unwrap();
        Dispatcher(BufReader::new(stream))
    }

    fn carry(&self) -> Wish {
        Wish::Carry { media: self.dir.path().join("media"), incarnation: None }
    }

    async fn echo(&mut self, message: Message) {
        self.client.send(message.clone()).await.unwrap();
        assert_eq!(soon(self.client.next()).await.unwrap().unwrap(), message);
    }

    async fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = soon(self.client.next()).await.unwrap().unwrap() {
                let frame = frame.unwrap();
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
        }
    }

    async fn ended(self) {
        // It would wait a moment for the client's own good-bye.
        drop(self.client);
        soon(self.relay).await.unwrap();
    }
}

/// A machine in a session, with its media port.
fn machine(dir: &TempDir, port: &str) -> FakeAgent {
    let agent = FakeAgent::new(Script { phase: Phase::InSession, ..Script::default() });
    let media = UnixListener::bind(dir.path().join(port)).unwrap();
    let served = agent.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = media.accept().await {
            served.serve(Box::new(stream)).await;
        }
    });
    agent
}

struct Dispatcher(BufReader<UnixStream>);

impl Dispatcher {
    async fn says(&mut self, wish: &Wish) {
        self.0.write_all(&line(wish)).await.unwrap();
    }

    async fn hears(&mut self) -> Standing {
        let mut text = String::new();
        soon(self.0.read_line(&mut text)).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn hears_of(&mut self, what: impl Fn(&Standing) -> bool) -> Standing {
        loop {
            let standing = self.hears().await;
            if what(&standing) {
                return standing;
            }
        }
    }

    async fn closes(&mut self, code: u16, reason: &str) {
        self.says(&Wish::Close(Close { code, reason: reason.into() })).await;
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.expect("this happens soon")
}

#[tokio::test]
async fn the_next_dispatcher_hears_what_the_last_one_missed() {
    let mut stage = Stage::new().await;
    let mut first = stage.dispatcher().await;
    assert_eq!(first.hears().await, Standing::default());
    // Held, and delivered first.
    stage.client.send(Message::text("early")).await.unwrap();
    first.says(&stage.carry()).await;
    assert_eq!(soon(stage.client.next()).await.unwrap().unwrap(), Message::text("early"));
    drop(first);

    stage.echo(Message::binary(AUDIO.to_vec())).await;
    stage.client.close(None).await.unwrap();
    let mut second = stage.dispatcher().await;
    let mut standing = second.hears().await;
    if standing.end.is_none() {
        standing = second.hears().await;
    }
    assert!(standing.audible);
    assert!(matches!(standing.end, Some(End::ClientLeft { .. })), "{standing:?}");
    assert!(!stage.relay.is_finished(), "not gone before somebody says that he knows");
    second.closes(1000, "client-left").await;
    stage.ended().await;
}

#[tokio::test]
async fn a_session_that_ends_closes_with_its_own_words() {
    let mut stage = Stage::new().await;
    let mut dispatcher = stage.dispatcher().await;
    dispatcher.says(&stage.carry()).await;
    stage.echo(Message::text("hello")).await;
    dispatcher.closes(1000, "stopped").await;
    assert_eq!(stage.closed().await, (1000, "stopped".into()));
    stage.ended().await;
}

#[tokio::test]
async fn a_bots_end_is_closed_with_what_the_dispatcher_makes_of_it() {
    let mut stage = Stage::new().await;
    let mut dispatcher = stage.dispatcher().await;
    assert_eq!(dispatcher.hears().await.end, None);
    dispatcher.says(&stage.carry()).await;
    stage.client.send(Message::text("bye")).await.unwrap();
    let end = dispatcher.hears().await.end;
    assert!(matches!(end, Some(End::BotClosed { .. })), "{end:?}");
    dispatcher.closes(1011, "bot-out-of-memory").await;
    assert_eq!(stage.closed().await, (1011, "bot-out-of-memory".into()));
    stage.ended().await;
}

#[tokio::test]
async fn a_bots_end_without_a_dispatcher_is_closed_all_the_same() {
    let mut stage = Stage::new().await;
    let mut dispatcher = stage.dispatcher().await;
    dispatcher.says(&stage.carry()).await;
    stage.echo(Message::text("hello")).await;
    drop(dispatcher);
    stage.client.send(Message::text("bye")).await.unwrap();
    assert_eq!(stage.closed().await, (1000, "bot-finished".into()));
    let mut next = stage.dispatcher().await;
    assert!(next.hears().await.end.is_some());
    next.closes(1000, "bot-finished").await;
    stage.ended().await;
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let mut stage = Stage::new().await;
    let mut dispatcher = stage.dispatcher().await;
    stage.client.send(Message::binary(vec![0; 2000])).await.unwrap();
    let mut end = dispatcher.hears().await.end;
    if end.is_none() {
        end = dispatcher.hears().await.end;
    }
    assert!(matches!(end, Some(End::Overflow { .. })), "{end:?}");
    dispatcher.closes(1009, "client-overflow").await;
    assert_eq!(stage.closed().await, (1009, "client-overflow".into()));
    stage.ended().await;
}

#[tokio::test]
async fn without_a_dispatcher_a_call_ends_in_time() {
    let mut stage = Stage::with(1000, 100, false).await;
    let dispatcher = stage.dispatcher().await;
    drop(dispatcher);
    assert_eq!(stage.closed().await, (1011, "dispatcher-restarted".into()));
    stage.ended().await;
}

#[tokio::test]
async fn another_bot_goes_on_with_the_call_of_one_that_broke() {
    let mut stage = Stage::tenacious().await;
    let mut dispatcher = stage.dispatcher().await;
    dispatcher.says(&stage.carry_to(1)).await;
    stage.echo(Message::text("one")).await;
    stage.agent.kill_bot(9);
    let standing = dispatcher.hears_of(|standing| standing.broke.is_some()).await;
    assert_eq!((standing.broke.unwrap().incarnation, standing.end), (1, None));
    // Nobody hears it any more; and what nobody has heard is not all lost.
    stage.client.send(Message::binary(AUDIO.to_vec())).await.unwrap();
    stage.client.send(Message::text("two")).await.unwrap();
    // Repeated by a dispatcher that does not know yet.
    dispatcher.says(&stage.carry_to(1)).await;
    let second = machine(&stage.dir, "media2");
    dispatcher.says(&stage.carry_to(2)).await;
    assert_eq!(soon(stage.client.next()).await.unwrap().unwrap(), Message::text("two"));
    stage.echo(Message::binary(AUDIO.to_vec())).await;
    assert_eq!((stage.agent.seen().websockets.len(), second.seen().websockets.len()), (1, 1));
    stage.client.send(Message::text("bye")).await.unwrap();
    let standing = dispatcher.hears_of(|standing| standing.end.is_some()).await;
    assert!(matches!(standing.end, Some(End::BotClosed { .. })), "{standing:?}");
    dispatcher.closes(1000, "bot-finished").await;
    assert_eq!(stage.closed().await, (1000, "bot-finished".into()));
    stage.ended().await;
}

#[tokio::test]
async fn the_next_dispatcher_finds_a_call_that_waits_for_its_bot() {
    let mut stage = Stage::tenacious().await;
    let mut first = stage.dispatcher().await;
    first.says(&stage.carry_to(1)).await;
    stage.echo(Message::text("one")).await;
    drop(first);
    stage.agent.kill_bot(9);
    let mut next = stage.dispatcher().await;
    let standing = next.hears_of(|standing| standing.broke.is_some()).await;
    assert_eq!(standing.broke.unwrap().incarnation, 1);
    let _second = machine(&stage.dir, "media2");
    next.says(&stage.carry_to(2)).await;
    stage.echo(Message::text("two")).await;
    next.closes(1000, "stopped").await;
    assert_eq!(stage.closed().await, (1000, "stopped".into()));
    stage.ended().await;
}

#[tokio::test]
async fn a_client_that_leaves_between_two_bots_has_left() {
    let mut stage = Stage::tenacious().await;
    let mut dispatcher = stage.dispatcher().await;
    dispatcher.says(&stage.carry_to(1)).await;
    stage.echo(Message::text("one")).await;
    stage.agent.break_websockets();
    dispatcher.hears_of(|standing| standing.broke.is_some()).await;
    stage.client.close(None).await.unwrap();
    let standing = dispatcher.hears_of(|standing| standing.end.is_some()).await;
    assert!(matches!(standing.end, Some(End::ClientLeft { .. })), "{standing:?}");
    dispatcher.closes(1000, "client-left").await;
    stage.ended().await;
}

#[tokio::test]
async fn a_call_that_nobody_gives_another_bot_ends_in_time() {
    let mut stage = Stage::with(1000, 100, true).await;
    let mut dispatcher = stage.dispatcher().await;
    dispatcher.says(&stage.carry_to(1)).await;
    stage.echo(Message::text("one")).await;
    stage.agent.kill_bot(9);
    dispatcher.hears_of(|standing| standing.broke.is_some()).await;
    drop(dispatcher);
    assert_eq!(stage.closed().await, (1011, "dispatcher-restarted".into()));
    stage.ended().await;
}

#[tokio::test]
async fn a_dispatcher_that_knows_of_one_machine_only_is_told_of_an_end() {
    let mut stage = Stage::tenacious().await;
    let mut older = stage.dispatcher().await;
    older.says(&stage.carry()).await;
    stage.echo(Message::text("one")).await;
    stage.agent.kill_bot(9);
    let standing = older.hears_of(|standing| standing.end.is_some()).await;
    assert!(matches!(standing.end, Some(End::BotBroke { .. })), "{standing:?}");
    older.closes(1011, "bot-failed").await;
    assert_eq!(stage.closed().await, (1011, "bot-failed".into()));
    stage.ended().await;

    // It comes while the call waits for another bot.
    let mut stage = Stage::tenacious().await;
    let mut newer = stage.dispatcher().await;
    newer.says(&stage.carry_to(1)).await;
    stage.echo(Message::text("one")).await;
    stage.agent.kill_bot(9);
    newer.hears_of(|standing| standing.broke.is_some()).await;
    drop(newer);
    let mut older = stage.dispatcher().await;
    older.says(&stage.carry()).await;
    older.hears_of(|standing| standing.end.is_some()).await;
    older.closes(1011, "machine-lost").await;
    assert_eq!(stage.closed().await, (1011, "machine-lost".into()));
    stage.ended().await;
}
