//! How client and bot meet: one trait, a module per transport, one fake.
//!
//! The join information is made by [`Transport::plan`], which asks nobody: names are chosen and
//! tokens are signed here, so that the answer to the client never waits for an outside call.
//! What the outside must make is made by [`Transport::open`], beside the machine's start.

mod fake;
mod token;
mod websocket;

use async_trait::async_trait;
use callbox_core::{Fault, SessionId, Time};
use serde_json::Value;

pub use fake::{FakeTransport, Script};
pub use token::SessionTokens;
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

    /// What both sides of `session` need. Pure: the same question has the same answer, so that a
    /// repeated request is answered like the first. `base_url` is the dispatcher's own address as
    /// this client sees it (`ws://host:port`); `bot_port` is where the bot listens in its machine.
    fn plan(&self, session: SessionId, base_url: &str, bot_port: u16) -> Join;

    /// Makes the room of `session`; one that is there already is the one.
    ///
    /// # Errors
    /// A [`Fault`] whose kind says whether it may have happened.
    async fn open(&self, session: SessionId) -> Result<(), Fault>;

    /// Who is in the room of `session`; none where the transport cannot tell, as where the media
    /// passes through the dispatcher, which then sees the client itself.
    ///
    /// # Errors
    /// [`Fault`] of kind `NotFound` when the room is gone; the caller repeats others.
    async fn presence(&self, _session: SessionId) -> Result<Option<Presence>, Fault> {
        Ok(None)
    }

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
