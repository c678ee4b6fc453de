//! What a transport is told of one session.

use callbox_core::{Session, SessionId, Time};
use serde_json::Value;

/// One session's room, as its row knows it. Everything in it stays as it is for as long as the
/// session lives, so that a room that is made again is the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// Whose room it is.
    pub session: SessionId,
    /// When the session was accepted: tokens are issued then.
    pub created_at: Time,
    /// When the session is over at the latest: rooms and tokens are good until then.
    pub ends_by: Time,
    /// What [`Transport::check`](crate::Transport::check) made of the request.
    pub options: Value,
}

impl Room {
    /// The room of this session.
    pub fn of(session: &Session) -> Room {
        Room {
            session: session.id,
            created_at: session.moments.accepted,
            ends_by: session.ends_by(),
            options: session.room_options.clone(),
        }
    }
}

/// What [`Transport::plan`](crate::Transport::plan) is made from.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The session's room.
    pub room: &'a Room,
    /// The dispatcher's own address as this client sees it (`ws://host:port`).
    pub base_url: &'a str,
    /// Where the bot listens in its machine.
    pub bot_port: u16,
}

/// What a request asks of its room cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct BadOptions {
    /// Where in the request: `dailyRoomProperties.exp`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl BadOptions {
    /// At this place of the request, for this reason.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> BadOptions {
        BadOptions { key: key.into(), problem: problem.into() }
    }
}
