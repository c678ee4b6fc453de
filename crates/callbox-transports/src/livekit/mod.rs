//! Transport `livekit`: client and bot meet in a room of a LiveKit server.
//!
//! Names are chosen and tokens are signed here. The server would make a room for whoever comes
//! first; ours is made beside the machine's start all the same, because only so does it bear our
//! label and stay as long as the session may last.
//!
//! ```text
//! mod ── the transport      client ── the room service
//! token ── JWTs             webhook ── what the server tells by itself
//! ```

mod client;
mod token;
mod webhook;

use async_trait::async_trait;
use callbox_core::{Fault, FaultKind, SessionId, Time};
use http::{HeaderMap, header::AUTHORIZATION};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Join, Listed, Plan, Presence, Room, Seen, Sight, Transport, WebhookRefusal};
use client::{Client, NewRoom, Participant};
use token::{Claims, Grants, Keys};

/// How rooms of ours begin; the session follows.
const PREFIX: &str = "callbox-";
/// Tokens are good from so long before the session on: clocks differ.
const EARLY_S: i64 = 300;

/// Where the LiveKit server is, and how we are known there.
#[derive(Clone)]
pub struct LivekitServer {
    /// Where clients and bots enter: `wss://…`.
    pub url: String,
    /// Where its room service is; none: at the same address.
    pub api_url: Option<String>,
    /// Key of the project.
    pub api_key: String,
    /// Its secret.
    pub api_secret: String,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Livekit {
    url: String,
    keys: Keys,
    client: Client,
    deployment: String,
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum LivekitError {
    /// The address of a server is none.
    #[error("{url:?} is no address like {like}")]
    Address {
        /// As it was given.
        url: String,
        /// What it should look like.
        like: &'static str,
    },
    /// The key or its secret is missing.
    #[error("the API key or its secret is empty")]
    Keys,
}

/// What a room of ours says of itself. Whoever is in the room can read it.
#[derive(Serialize, Deserialize)]
struct Label {
    callbox: String,
}

impl Livekit {
    /// With this server, for this deployment, asked by `http`, which follows no redirects. Asks
    /// nothing of anybody.
    ///
    /// # Errors
    /// [`LivekitError`] for addresses and keys that cannot be used.
    pub fn new(
        http: reqwest::Client,
        server: LivekitServer,
        deployment: &str,
    ) -> Result<Livekit, LivekitError> {
        let url = address(&server.url, ["ws", "wss"], "wss://livekit.example.com")?;
        let api = server.api_url.unwrap_or_else(|| server.url.replacen("ws", "http", 1));
        let api = address(&api, ["http", "https"], "https://livekit.example.com")?;
        if server.api_key.is_empty() || server.api_secret.is_empty() {
            return Err(LivekitError::Keys);
        }
        let keys = Keys::new(server.api_key, server.api_secret);
        let client = Client::new(http, api, keys.clone());
        let url = url.as_str().trim_end_matches('/').to_owned();
        Ok(Livekit { url, keys, client, deployment: deployment.to_owned() })
    }

    fn token(&self, room: &Room, identity: String, agent: bool) -> String {
        let grants =
            Grants { room_join: true, room: room_name(room.session), agent, ..Grants::default() };
        self.keys.sign(&Claims {
            name: Some(identity.clone()),
            identity: Some(identity),
            not_before: room.created_at.as_secs() - EARLY_S,
            expires: room.ends_by.as_secs(),
            grants,
        })
    }

    fn listed(&self, room: &client::Room) -> Option<Listed> {
        let session = session_of(&room.name)?;
        // What somebody's token made after we had ended the room has no label, and goes by itself
        // when it is left; whose it is nobody can say.
        let label: Label = serde_json::from_str(&room.metadata).ok()?;
        let made_at = match room.creation_time_ms.parse() {
            Ok(ms) if ms > 0 => ms,
            _ => room.creation_time.parse::<i64>().unwrap_or(0).saturating_mul(1000),
        };
        let made_at = Some(Time::from_micros(made_at.saturating_mul(1000)));
        Some(Listed { session, deployment: Some(label.callbox), made_at })
    }
}

fn address(text: &str, schemes: [&str; 2], like: &'static str) -> Result<Url, LivekitError> {
    let wrong = || LivekitError::Address { url: text.to_owned(), like };
    let url = Url::parse(text).map_err(|_| wrong())?;
    // Names and passwords in an address end in logs; a query would be dropped silently.
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if plain && schemes.contains(&url.scheme()) && url.has_host() { Ok(url) } else { Err(wrong()) }
}

fn room_name(session: SessionId) -> String {
    format!("{PREFIX}{}", session.0.simple())
}

/// The session of a room's name; none if it is not one of [`room_name`].
fn session_of(name: &str) -> Option<SessionId> {
    let session = SessionId::parse(name.strip_prefix(PREFIX)?)?;
    // An id can be written in more ways than one.
    (room_name(session) == name).then_some(session)
}

/// What Pipecat's runner calls the two. A second one of the same name takes the place of the
/// first: a client that comes again, a bot's next machine.
fn bot_identity(session: SessionId) -> String {
    format!("Pipecat Agent-{}", &session.0.simple().to_string()[..8])
}

fn client_identity(session: SessionId) -> String {
    format!("User-{}", &session.0.simple().to_string()[..8])
}

/// Those whose media flows. Who only knocks is not in yet.
fn is_in(participant: &Participant) -> bool {
    participant.state == "ACTIVE"
}

/// Recorders and other bots keep nobody company.
fn is_client(participant: &Participant) -> bool {
    !matches!(participant.kind.as_str(), "AGENT" | "EGRESS")
}

#[async_trait]
impl Transport for Livekit {
    fn name(&self) -> &'static str {
        "livekit"
    }

    fn carries_media(&self) -> bool {
        false
    }

    fn plan(&self, plan: &Plan<'_>) -> Join {
        let room = plan.room;
        let session = room.session;
        Join {
            client: json!({
                "url": self.url,
                "token": self.token(room, client_identity(session), false),
                "sessionId": session.to_string(),
            }),
            bot_room_url: self.url.clone(),
            bot_token: self.token(room, bot_identity(session), true),
        }
    }

    async fn open(&self, room: &Room) -> Result<(), Fault> {
        // Whoever is alone, and how long an empty room waits, is the dispatcher's business; the
        // server ends it only when there is no dispatcher any more.
        let longest = room.ends_by.since(room.created_at).as_secs();
        let longest = u32::try_from(longest).unwrap_or(u32::MAX).max(1);
        let label = Label { callbox: self.deployment.clone() };
        let new = NewRoom {
            name: room_name(room.session),
            empty_timeout: longest,
            departure_timeout: longest,
            metadata: serde_json::to_string(&label).expect("a text"),
        };
        self.client.create_room(&new).await
    }

    async fn presence(&self, room: &Room) -> Result<Option<Presence>, Fault> {
        let name = room_name(room.session);
        let there = self.client.list_participants(&name).await?;
        // Of a room that is gone the server says that nobody is in it.
        if there.is_empty() && self.client.list_rooms(&[&name]).await?.is_empty() {
            return Err(Fault::not_found("LiveKit has no such room any more"));
        }
        let ours = bot_identity(room.session);
        let (bots, others): (Vec<_>, Vec<_>) =
            there.iter().filter(|one| is_in(one)).partition(|one| one.identity == ours);
        let clients = others.into_iter().filter(|one| is_client(one)).count();
        Ok(Some(Presence {
            bot: !bots.is_empty(),
            clients: u32::try_from(clients).unwrap_or(u32::MAX),
        }))
    }

    fn sees_presence(&self) -> bool {
        true
    }

    fn webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: Time,
    ) -> Result<Vec<Seen>, WebhookRefusal> {
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.unwrap_or_default();
        let hook = webhook::read(&self.keys, token, body, now.as_secs())?;
        let Some(session) = session_of(&hook.room.name) else { return Ok(Vec::new()) };
        let who = &hook.participant;
        let sight = match hook.event.as_str() {
            "participant_joined" if who.identity == bot_identity(session) => Sight::BotJoined,
            "participant_joined" if is_client(who) => Sight::ClientJoined,
            "participant_left" | "participant_connection_aborted" | "room_finished" => {
                Sight::Changed
            }
            _ => return Ok(Vec::new()),
        };
        Ok(vec![Seen { session, sight }])
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let rooms = self.client.list_rooms(&[]).await?;
        Ok(rooms.iter().filter_map(|room| self.listed(room)).collect())
    }

    async fn close(&self, session: SessionId) -> Result<(), Fault> {
        match self.client.delete_room(&room_name(session)).await {
            Err(Fault { kind: FaultKind::NotFound, .. }) => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests;
