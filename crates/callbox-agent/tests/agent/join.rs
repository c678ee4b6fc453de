//! The agent as a program of an image, which dials a dispatcher of ours.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use callbox_link::{Link, fresh_wake, over_websocket};
use callbox_protocol::agent::{AgentEventKind, CommandReady, Phase};
use callbox_protocol::join::{BOOT_HEADER, Join, Rejoin, link_path};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::house::{command, log_line, next, session, soon, until};

/// Where the agent dials, and the agent.
struct Far {
    listener: TcpListener,
    agent: Child,
    directory: TempDir,
}

/// How the agent came.
#[derive(Debug, Clone, Default)]
struct Came {
    path: String,
    token: String,
    boot: String,
}

impl Far {
    async fn new(orphan_ms: u64) -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("join.json");
        let join = Join {
            url: format!("http://{}", listener.local_addr().unwrap()),
            machine: "cb-1".to_owned(),
            token: "first".to_owned(),
            orphan_ms,
            stop_grace_ms: 1000,
            authorities: None,
        };
        std::fs::write(&file, serde_json::to_vec(&join).unwrap()).unwrap();
        let agent = Command::new(env!("CARGO_BIN_EXE_callbox-agent"))
            .args(["join", "--config"])
            .arg(&file)
            .args([
                "--",
                "sh",
                "-c",
                "echo own words $OF_THE_IMAGE $FROM_PREPARE in $PWD; sleep 300",
            ])
            .env("OF_THE_IMAGE", "of the image")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Far { listener, agent, directory }
    }

    /// The agent's next connection, answered with this status.
    async fn answer(&self, status: u16) -> (Came, Option<Link>) {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        let came = Arc::new(Mutex::new(Came::default()));
        let seen = Arc::clone(&came);
        #[allow(clippy::result_large_err)]
        let look = move |request: &Request, response: Response| {
            let header = |name: &str| {
                let value = request.headers().get(name).map(|value| value.to_str().unwrap());
                value.unwrap_or_default().to_owned()
            };
            *seen.lock().unwrap() = Came {
                path: request.uri().path().to_owned(),
                token: header("authorization"),
                boot: header(BOOT_HEADER),
            };
            match status {
                101 => Ok(response),
                status => {
                    let mut refusal = ErrorResponse::new(Some("no such machine".to_owned()));
                    *refusal.status_mut() = status.try_into().unwrap();
                    Err(refusal)
                }
            }
        };
        let websocket = soon(accept_hdr_async(stream, look)).await;
        let link = match websocket {
            Ok(websocket) => Some(soon(Link::open(over_websocket(websocket))).await.unwrap()),
            Err(_) => None,
        };
        let came = came.lock().unwrap().clone();
        (came, link)
    }

    async fn ended(&mut self) -> Option<i32> {
        until(async || self.agent.try_wait().unwrap()).await.code()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let agent = rustix::process::Pid::from_child(&self.agent);
        if self.agent.try_wait().unwrap().is_none() {
            let _ = rustix::process::kill_process(agent, rustix::process::Signal::TERM);
        }
        let _ = self.agent.wait();
    }
}

/// A bot whose words, place and user are the image's.
fn silent() -> callbox_protocol::agent::Prepare {
    let mut asked = command(&[], CommandReady::Started);
    asked.cwd = String::new();
    asked
}

#[tokio::test]
async fn a_session_outlives_its_dispatchers() {
    let mut far = Far::new(60_000).await;
    let (first, link) = far.answer(101).await;
    assert_eq!((first.path, first.token.as_str()), (link_path("cb-1"), "Bearer first"));
    assert!(!far.directory.path().join("join.json").exists(), "the bot finds no token");
    let link = link.unwrap();
    soon(link.prepare(&silent())).await.unwrap();
    soon(link.rejoin(&Rejoin { token: "second".to_owned(), ..Rejoin::default() })).await.unwrap();
    let awake = soon(link.wake(&fresh_wake("another"))).await.unwrap();
    assert_eq!((awake.unix_ns, awake.names_renewed), (None, None), "its own clock, its own names");
    soon(link.session(&session())).await.unwrap();
    assert_eq!(next(&mut link.events(0)).await, AgentEventKind::Ready);
    let words = log_line(&link, "own words").await;
    let place = far.directory.path().canonicalize().unwrap();
    assert_eq!(words, format!("own words of the image yes in {}", place.display()));

    drop(link);
    // The dispatcher restarts: it is not there, then not ready, then it is.
    assert!(far.answer(503).await.1.is_none());
    let (again, link) = far.answer(101).await;
    assert_eq!((again.token.as_str(), again.boot == first.boot), ("Bearer second", true));
    let link = link.unwrap();
    assert_eq!(soon(link.health()).await.unwrap().phase, Phase::InSession);

    drop(link);
    assert!(far.answer(410).await.1.is_none());
    assert_eq!(far.ended().await, Some(0), "nobody wants it any more");
}

#[tokio::test]
async fn a_machine_of_a_reserve_comes_back_in_short_steps_and_then_as_its_sessions() {
    let mut far = Far::new(60_000).await;
    let link = far.answer(101).await.1.unwrap();
    let token = "waits".to_owned();
    soon(link.rejoin(&Rejoin { token, machine: None, eager: true })).await.unwrap();
    drop(link);
    // One that is never answered holds up none of those after it.
    let (_silent, _) = far.listener.accept().await.unwrap();
    for _ in 0..5 {
        let (waits, none) = far.answer(503).await;
        assert_eq!((waits.path, waits.token.as_str()), (link_path("cb-1"), "Bearer waits"));
        assert!(none.is_none());
    }
    let link = far.answer(101).await.1.unwrap();
    let machine = Some("cb-2".to_owned());
    let taken = Rejoin { token: "taken".to_owned(), machine, eager: false };
    soon(link.rejoin(&taken)).await.unwrap();
    drop(link);
    let mut again = far.answer(503).await.0;
    while again.token != "Bearer taken" {
        // Begun before it was let in, and given up.
        again = far.answer(503).await.0;
    }
    assert_eq!((again.path, again.token.as_str()), (link_path("cb-2"), "Bearer taken"));
    assert!(far.answer(410).await.1.is_none());
    assert_eq!(far.ended().await, Some(0));
}

#[tokio::test]
async fn a_machine_that_reaches_nobody_ends_itself() {
    let mut far = Far::new(300).await;
    assert!(far.answer(503).await.1.is_none());
    assert_eq!(far.ended().await, Some(0));
}

#[tokio::test]
async fn a_machine_that_its_provider_stops_ends_its_bot() {
    let mut far = Far::new(60_000).await;
    let link = far.answer(101).await.1.unwrap();
    soon(link.prepare(&silent())).await.unwrap();
    soon(link.wake(&fresh_wake("x"))).await.unwrap();
    let mut data = session();
    data.env = BTreeMap::new();
    soon(link.session(&data)).await.unwrap();
    let mut events = link.events(0);
    assert_eq!(next(&mut events).await, AgentEventKind::Ready);
    let agent = rustix::process::Pid::from_child(&far.agent);
    rustix::process::kill_process(agent, rustix::process::Signal::TERM).unwrap();
    let AgentEventKind::BotExited { signal, .. } = next(&mut events).await else {
        panic!("the bot's end comes first");
    };
    assert_eq!(signal, Some(15));
    assert_eq!(far.ended().await, Some(0));
}
