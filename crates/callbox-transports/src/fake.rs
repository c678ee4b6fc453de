//! A transport that does what a script says, for tests of everything above it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use callbox_core::{Fault, SessionId, Time};
use http::HeaderMap;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};

use crate::{
    BadOptions, Join, Listed, Plan, Presence, Room, Seen, Sight, Transport, WebhookRefusal,
};

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
    rooms: Mutex<BTreeMap<SessionId, Value>>,
    released: Notify,
    listed: watch::Sender<usize>,
    shared_by: AtomicUsize,
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

    /// A room of this session is there, whoever made it.
    pub fn make(&self, session: SessionId) {
        self.rooms.lock().expect("no panic while held").insert(session, Value::Null);
    }

    /// The rooms that exist.
    pub fn rooms(&self) -> Vec<SessionId> {
        self.rooms.lock().expect("no panic while held").keys().copied().collect()
    }

    /// What was asked of this session's room, if it exists.
    pub fn options(&self, session: SessionId) -> Option<Value> {
        self.rooms.lock().expect("no panic while held").get(&session).cloned()
    }

    /// So many dispatchers were said to share it last.
    pub fn shared_by(&self) -> usize {
        self.shared_by.load(Ordering::Relaxed)
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

    fn check(&self, request: &Map<String, Value>) -> Result<Value, BadOptions> {
        match request.get("fakeRoomProperties") {
            Some(Value::String(refused)) => Err(BadOptions::new("fakeRoomProperties", refused)),
            properties => Ok(properties.cloned().unwrap_or_default()),
        }
    }

    fn plan(&self, plan: &Plan<'_>) -> Join {
        let session = plan.room.session;
        Join {
            client: json!({ "room": format!("fake-{session}"), "sessionId": session.to_string() }),
            bot_room_url: format!("fake:{session}"),
            bot_token: "bot-token".into(),
        }
    }

    async fn open(&self, room: &Room) -> Result<(), Fault> {
        let held = self.script().open_held;
        if held {
            self.released.notified().await;
        }
        if let Some(fault) = self.script().open_fails.clone() {
            return Err(fault);
        }
        self.rooms.lock().expect("no panic while held").insert(room.session, room.options.clone());
        Ok(())
    }

    async fn presence(&self, room: &Room) -> Result<Option<Presence>, Fault> {
        let script = self.script();
        if script.rooms_vanish {
            self.rooms.lock().expect("no panic while held").remove(&room.session);
            return Err(Fault::not_found("the fake transport was told to lose its rooms"));
        }
        Ok(script.presence)
    }

    /// Signed with a header that says so: `{"session": "…", "sight": "client" | "bot" | "changed"}`.
    fn webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        _now: Time,
    ) -> Result<Vec<Seen>, WebhookRefusal> {
        if headers.get("x-fake-signature").is_none_or(|signature| signature != "fake") {
            return Err(WebhookRefusal::Unsigned("the fake's signature is \"fake\""));
        }
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| WebhookRefusal::Unreadable(error.to_string()))?;
        let session = body["session"].as_str().and_then(SessionId::parse);
        let sight = match body["sight"].as_str() {
            Some("bot") => Sight::BotJoined,
            Some("client") => Sight::ClientJoined,
            _ => Sight::Changed,
        };
        Ok(session.map(|session| Seen { session, sight }).into_iter().collect())
    }

    fn share(&self, replicas: usize) {
        self.shared_by.store(replicas, Ordering::Relaxed);
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
