//! What the fake machines take, which live in the dispatcher that is measured: one alone is a
//! fake agent, the link to it, and the two streams that its driver listens to.

use std::collections::BTreeMap;
use std::sync::Arc;

use callbox_machines::{
    BotMachine, BotRun, FakeProvider, MachineSpec, Made, Network, Provider as _, ReserveSize,
    Script, StartFrom,
};
use callbox_protocol::agent::{Contract, Reseed, SessionData};
use futures::StreamExt as _;

use super::footprint::own_rss;

/// Enough that what one takes stands out from what the process does besides.
const SOME: u32 = 2000;

/// Bytes that one takes, as measured in this process.
pub async fn alone() -> Result<u64, String> {
    let provider = FakeProvider::new(Script::default());
    let bot = Arc::new(bot());
    let before = own_rss();
    let mut held = Vec::new();
    for n in 0..SOME {
        let name = format!("cb-{n:032}-1");
        let bot = Arc::clone(&bot);
        let spec = MachineSpec {
            name: name.clone(),
            incarnation: 1,
            bot,
            version: None,
            made: Made::default(),
        };
        let started = provider.ensure(&spec).await.map_err(|fault| fault.to_string())?;
        started.link.session(&session(&name)).await.map_err(|error| error.to_string())?;
        let mut events = started.link.events(0);
        let mut logs = started.link.logs(0);
        // Said to be ready, and then listened to as its driver does.
        events.next().await.ok_or("a fake machine ended by itself")?.map_err(|e| e.to_string())?;
        let _ = futures::poll!(logs.next());
        held.push((started, events, logs));
    }
    tokio::task::yield_now().await;
    Ok(own_rss().saturating_sub(before) / u64::from(SOME))
}

fn bot() -> BotMachine {
    BotMachine {
        bot: "load".into(),
        image: String::new(),
        memory_mib: 1,
        vcpus: 1,
        disk_mib: 1,
        network: Network::None,
        start: StartFrom::Clone,
        cloud: callbox_machines::Cloud::default(),
        reserve: ReserveSize::NONE,
        run: BotRun {
            contract: Contract::Http { reseed: Reseed::Hook },
            argv: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            port: 8080,
            ready_timeout_ms: 1000,
        },
    }
}

fn session(name: &str) -> SessionData {
    SessionData {
        session_id: name.into(),
        incarnation: 1,
        bot: "load".into(),
        transport: "websocket".into(),
        room_url: "ws://127.0.0.1:8080/ws".into(),
        token: String::new(),
        body: serde_json::Value::Null,
        env: BTreeMap::new(),
        longest_life_ms: None,
    }
}
