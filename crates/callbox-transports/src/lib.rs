//! How client and bot meet: one trait, a module per transport, one fake.
//!
//! The join information is made by [`Transport::plan`], which asks nobody: names are chosen and
//! tokens are signed here, so that the answer to the client never waits for an outside call.
//! What the outside must make is made by [`Transport::open`], beside the machine's start.

pub mod daily;
mod fake;
mod jwt;
mod livekit;
mod room;
mod token;
mod webhook;
mod webrtc;
mod websocket;

use async_trait::async_trait;
use callbox_core::{Fault, SessionId, Time};
use http::HeaderMap;
use serde_json::{Map, Value};

pub use daily::{Daily, DailyConfig};
pub use fake::{FakeTransport, Script};
pub use livekit::{Livekit, LivekitError, LivekitServer};
pub use room::{BadOptions, Plan, Room};
pub use token::SessionTokens;
pub use webhook::{Seen, Sight, WebhookRefusal};
pub use webrtc::Webrtc;
pub use websocket::Websocket;

/// What both sides need to enter the room of one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// The answer to the client, word for word what its SDK expects. Holds the client's token.
    pub client: Value,
    /// Where the bot enters.
    pub bot_room_url: String,
    /// The bot's own key to the room; empty where none is needed.
    pub bot_token: String,
}

/// Who is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The bot is.
    pub bot: bool,
    /// So many others are.
    pub clients: u32,
}

/// A room, as its transport lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The session that it was made for.
    pub session: SessionId,
    /// The deployment that its label names; none where the list can hold no other's.
    pub deployment: Option<String>,
    /// When it was made; none where the list is always true, so that its age does not matter.
    pub made_at: Option<Time>,
}

impl Listed {
    /// In a list that is always true and holds nothing of other deployments.
    pub fn here(session: SessionId) -> Listed {
        Listed { session, deployment: None, made_at: None }
    }
}

/// A way for client and bot to meet.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Its name in requests and in the configuration.
    fn name(&self) -> &'static str;

    /// Whether the media passes through the dispatcher, which then sees the client come and go.
    fn carries_media(&self) -> bool;

    /// What this request asks of its room, as it is kept with the session and comes back in
    /// [`Room::options`]. `request` is the whole body of a start; what is not this transport's
    /// stays out. Null where nothing is asked.
    ///
    /// # Errors
    /// [`BadOptions`] for what could not be made: the client hears of it, and nothing is started.
    fn check(&self, _request: &Map<String, Value>) -> Result<Value, BadOptions> {
        Ok(Value::Null)
    }

    /// What both sides of a session need. Pure: the same question has the same answer, so that a
    /// repeated request is answered like the first, and a bot's second machine like its first.
    fn plan(&self, plan: &Plan<'_>) -> Join;

    /// Makes the room of a session; one that is there already is the one.
    ///
    /// # Errors
    /// A [`Fault`] whose kind says whether it may have happened.
    async fn open(&self, room: &Room) -> Result<(), Fault>;

    /// Who is in the room; none where the transport cannot tell, as where the media passes through
    /// the dispatcher, which then sees the client itself. Asked every two seconds for each session:
    /// a transport whose vendor would not bear that answers from what it heard last.
    ///
    /// # Errors
    /// [`Fault`] of kind `NotFound` when the room is gone; the caller repeats others.
    async fn presence(&self, _room: &Room) -> Result<Option<Presence>, Fault> {
        Ok(None)
    }

    /// Reads what the vendor sent to `POST /v1/webhooks/{name}`: anybody may send there, so it
    /// is believed only with the vendor's signature. `now` is the dispatcher's time, for those that
    /// are too old to be fresh. What was seen goes to the sessions' drivers; that nothing comes is
    /// no trouble, as [`Transport::presence`] is asked all the same.
    ///
    /// # Errors
    /// [`WebhookRefusal`], which decides what the vendor hears.
    fn webhook(
        &self,
        _headers: &HeaderMap,
        _body: &[u8],
        _now: Time,
    ) -> Result<Vec<Seen>, WebhookRefusal> {
        Err(WebhookRefusal::NoWebhooks)
    }

    /// The driver of this session heard that its room changed: what was known of it is old.
    fn heard_of(&self, _session: SessionId) {}

    /// So many dispatchers share the vendor's limits from now on, this one among them.
    fn share(&self, _replicas: usize) {}

    /// Whether [`Transport::presence`] can tell.
    fn sees_presence(&self) -> bool {
        false
    }

    /// All rooms that callbox made here, whatever their state: those of other deployments too where
    /// it cannot ask for its own alone.
    ///
    /// # Errors
    /// A [`Fault`]; an incomplete list is never returned as complete.
    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        Ok(Vec::new())
    }

    /// Ends the room of `session`; one that is gone or never was is success.
    ///
    /// # Errors
    /// A [`Fault`]; the caller repeats until it succeeds.
    async fn close(&self, session: SessionId) -> Result<(), Fault>;
}
