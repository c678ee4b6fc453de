//! A transport that does what a script says, for tests of everything above it.

use std::{collections::BTreeSet, sync::Mutex};

use async_trait::async_trait;
use callbox_core::{Fault, SessionId};
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::{Join, Listed, Presence, Transport};

/// What the fake does when it is asked.
#[derive(Debug, Default)]
pub struct Script {
    /// `open` fails like this (every time).
    pub open_fails: Option<Fault>,
    /// `open` waits until [`FakeTransport::release`].
    pub open_held: bool,
    /// So many calls of `close` fail before one succeeds.
    pub close_failures: u32,
    /// So many calls of `close` are never answered, and do nothing.
    pub close_silences: u32,
    /// Who is in every room; none: it cannot tell.
    pub presence: Option<Presence>,
    /// Rooms are gone, although nobody closed them.
    pub rooms_vanish: bool,
    /// `list` fails like this.
    pub list_fails: Option<Fault>,
    /// `list` says this, whatever there is.
    pub lists: Option<Vec<Listed>>,
}

/// Rooms in memory. Name: `fake`.
#[derive(Debug, Default)]
pub struct FakeTransport {
    script: Mutex<Script>,
    rooms: Mutex<BTreeSet<SessionId>>,
    released: Notify,
    listed: watch::Sender<usize>,
}

impl FakeTransport {
    /// With a script.
    pub fn new(script: Script) -> FakeTransport {
        FakeTransport { script: Mutex::new(script), ..FakeTransport::default() }
    }

    /// Changes the script for what comes next.
    pub fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script());
    }

    /// Has `list` say this from now on, whatever there is.
    pub fn lists_only(&self, lists: Vec<Listed>) {
        self.script().lists = Some(lists);
    }

    /// The rooms that exist.
    pub fn rooms(&self) -> Vec<SessionId> {
        self.rooms.lock().expect("no panic while held").iter().copied().collect()
    }

    /// Waits until it was asked for its list so often.
    pub async fn was_listed(&self, times: usize) {
        let mut listed = self.listed.subscribe();
        listed.wait_for(|listed| *listed >= times).await.expect("the sender lives in self");
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

    async fn presence(&self, session: SessionId) -> Result<Option<Presence>, Fault> {
        let script = self.script();
        if script.rooms_vanish {
            self.rooms.lock().expect("no panic while held").remove(&session);
            return Err(Fault::not_found("the fake transport was told to lose its rooms"));
        }
        Ok(script.presence)
    }

    fn sees_presence(&self) -> bool {
        self.script().presence.is_some()
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        self.listed.send_modify(|listed| *listed += 1);
        let (fails, lists) = {
            let script = self.script();
            (script.list_fails.clone(), script.lists.clone())
        };
        let rooms = || self.rooms().into_iter().map(Listed::here).collect();
        fails.map_or_else(|| Ok(lists.unwrap_or_else(rooms)), Err)
    }

    async fn close(&self, session: SessionId) -> Result<(), Fault> {
        let silent = {
            let mut script = self.script();
            let silent = script.close_silences > 0;
            script.close_silences = script.close_silences.saturating_sub(1);
            silent
        };
        if silent {
            return std::future::pending().await;
        }
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
