//! A transport that does what a script says, for tests of everything above it.

use std::{collections::BTreeSet, sync::Mutex};

use async_trait::async_trait;
use callbox_core::{Fault, SessionId};
use serde_json::json;
use tokio::sync::Notify;

use crate::{Join, Transport};

/// What the fake does when it is asked.
#[derive(Debug, Default)]
pub struct Script {
    /// `open` fails like this (every time).
    pub open_fails: Option<Fault>,
    /// `open` waits until [`FakeTransport::release`].
    pub open_held: bool,
    /// So many calls of `close` fail before one succeeds.
    pub close_failures: u32,
}

/// Rooms in memory. Name: `fake`.
#[derive(Debug, Default)]
pub struct FakeTransport {
    script: Mutex<Script>,
    rooms: Mutex<BTreeSet<SessionId>>,
    released: Notify,
}

impl FakeTransport {
    /// With a script.
    pub fn new(script: Script) -> FakeTransport {
        FakeTransport { script: Mutex::new(script), ..FakeTransport::default() }
    }

    /// The rooms that exist.
    pub fn rooms(&self) -> Vec<SessionId> {
        self.rooms.lock().expect("no panic while held").iter().copied().collect()
    }

    /// Lets a held `open` go on.
    pub fn release(&self) {
        self.released.notify_one();
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().expect("no panic while held")
    }
}

#[async_trait]
impl Transport for FakeTransport {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn carries_media(&self) -> bool {
        false
    }

    fn plan(&self, session: SessionId, _base_url: &str, _bot_port: u16) -> Join {
        Join {
            client: json!({ "room": format!("fake-{session}"), "sessionId": session.to_string() }),
            bot_room_url: format!("fake:{session}"),
            bot_token: "bot-token".into(),
        }
    }

    async fn open(&self, session: SessionId) -> Result<(), Fault> {
        let held = self.script().open_held;
        if held {
            self.released.notified().await;
        }
        if let Some(fault) = self.script().open_fails.clone() {
            return Err(fault);
        }
        self.rooms.lock().expect("no panic while held").insert(session);
        Ok(())
    }

    async fn close(&self, session: SessionId) -> Result<(), Fault> {
        {
            let mut script = self.script();
            if script.close_failures > 0 {
                script.close_failures -= 1;
                return Err(Fault::unavailable("the fake transport was told to fail"));
            }
        }
        self.rooms.lock().expect("no panic while held").remove(&session);
        Ok(())
    }
}
