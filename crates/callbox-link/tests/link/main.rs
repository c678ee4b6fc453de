//! The link against the fake agent, over carriers in memory.
#![allow(clippy::unwrap_used, missing_docs)]

mod answers;
mod hello;
mod life;
mod tunnels;

use std::time::Duration;

use callbox_link::fake::{FakeAgent, Script};
use callbox_link::{Link, fresh_wake};
use callbox_protocol::agent::{CommandReady, Contract, Prepare, SessionData};
use serde_json::Value;

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("this happens soon")
}

pub async fn open(agent: &FakeAgent) -> Link {
    soon(Link::open(agent.carrier())).await.unwrap()
}

pub async fn awake(script: Script) -> (FakeAgent, Link) {
    let agent = FakeAgent::new(script);
    let link = open(&agent).await;
    soon(link.prepare(&prepare())).await.unwrap();
    soon(link.wake(&fresh_wake("test"))).await.unwrap();
    (agent, link)
}

pub fn prepare() -> Prepare {
    Prepare {
        contract: Contract::Command { ready: CommandReady::Started, warning_signal: None },
        argv: vec!["bot".to_owned()],
        env: Default::default(),
        cwd: "/".to_owned(),
        uid: 1000,
        gid: 1000,
        port: 8080,
        ready_timeout_ms: 1000,
    }
}

pub fn session() -> SessionData {
    SessionData {
        session_id: "s1".to_owned(),
        incarnation: 1,
        bot: "demo".to_owned(),
        transport: "websocket".to_owned(),
        room_url: "ws://127.0.0.1:8080/ws".to_owned(),
        token: String::new(),
        body: Value::Null,
        env: Default::default(),
        longest_life_ms: None,
    }
}
