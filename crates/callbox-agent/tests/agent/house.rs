//! An agent that serves a unix socket, in a directory of its own.

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callbox_link::{Link, fresh_wake};
use callbox_protocol::agent::{
    AgentEvent, AgentEventKind, CommandReady, Contract, Prepare, Reseed, SessionData,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;

pub struct House {
    pub directory: TempDir,
    agent: Child,
}

impl House {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = Command::new(env!("CARGO_BIN_EXE_callbox-agent"))
            .arg("--serve-unix")
            .arg(directory.path().join("agent"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { directory, agent }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn socket(&self) -> UnixStream {
        self.connect("agent").await
    }

    pub async fn media(&self) -> UnixStream {
        self.connect("agent.media").await
    }

    async fn connect(&self, name: &str) -> UnixStream {
        let path = self.path(name);
        until(async || UnixStream::connect(&path).await.ok()).await
    }

    pub async fn link(&self) -> Link {
        soon(Link::open(Box::new(self.socket().await))).await.unwrap()
    }

    /// A link to a machine that was prepared and woken.
    pub async fn awake(&self, asked: &Prepare) -> Link {
        let link = self.link().await;
        soon(link.prepare(asked)).await.unwrap();
        soon(link.wake(&fresh_wake("test"))).await.unwrap();
        link
    }

    /// Whether the agent's process has ended, which is how a machine ends outside of one.
    pub async fn ended(&mut self) {
        until(async || self.agent.try_wait().unwrap()).await;
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Takes its bot along.
        let agent = rustix::process::Pid::from_child(&self.agent);
        let _ = rustix::process::kill_process(agent, rustix::process::Signal::TERM);
        let _ = self.agent.wait();
    }
}

/// Waits for a level, not for a time.
pub async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("this happens soon")
}

pub async fn next(
    events: &mut BoxStream<'static, Result<AgentEvent, callbox_link::LinkError>>,
) -> AgentEventKind {
    soon(events.next()).await.unwrap().unwrap().kind
}

/// Waits for a line of the log that has `part` in it.
pub async fn log_line(link: &Link, part: &str) -> String {
    let mut logs = link.logs(0);
    soon(async {
        loop {
            let line = logs.next().await.unwrap().unwrap();
            if line.text.contains(part) {
                return line.text;
            }
        }
    })
    .await
}

pub fn command(argv: &[&str], ready: CommandReady) -> Prepare {
    prepare(argv, Contract::Command { ready, warning_signal: None })
}

pub fn http(argv: &[&str], port: u16) -> Prepare {
    let mut asked = prepare(argv, Contract::Http { reseed: Reseed::Hook });
    asked.port = port;
    asked
}

fn prepare(argv: &[&str], contract: Contract) -> Prepare {
    Prepare {
        contract,
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: [("FROM_PREPARE".to_owned(), "yes".to_owned())].into(),
        cwd: "/".to_owned(),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        port: 9,
        ready_timeout_ms: 20_000,
    }
}

pub fn session() -> SessionData {
    SessionData {
        session_id: "s-1".to_owned(),
        incarnation: 1,
        bot: "demo".to_owned(),
        transport: "websocket".to_owned(),
        room_url: "ws://127.0.0.1/ws".to_owned(),
        token: "t0ken".to_owned(),
        body: serde_json::json!({"a": [1, "ä"]}),
        env: [("API_KEY".to_owned(), "s3cret".to_owned())].into(),
        longest_life_ms: None,
    }
}

pub fn no_body() -> Value {
    Value::Null
}
