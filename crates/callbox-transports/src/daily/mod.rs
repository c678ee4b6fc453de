//! Transport `daily`: client and bot meet in a room at Daily (daily.co).
//!
//! Nothing of a start waits for Daily: the room's name is ours, so its address is known, and tokens
//! are signed here with the API key. The room itself is made beside the machine, private, and ends
//! with the session at the latest, whoever is left to remove it.

mod client;
pub mod limits;
mod name;
mod options;
mod people;
mod webhook;

use std::{collections::HashSet, fmt};

use async_trait::async_trait;
use callbox_core::{Fault, FaultKind, SessionId, Time};
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

pub use self::client::API_URL;
use self::{
    client::{Client, Domain, Page, RoomEntry},
    people::Rooms,
    webhook::Webhooks,
};
use crate::{BadOptions, Join, Listed, Plan, Presence, Room, Seen, Transport, WebhookRefusal, jwt};

/// Rooms that one page of the list has.
const PAGE: usize = 100;

/// What the operator decided, and whose rooms they are.
pub struct DailyConfig {
    /// Opens the API and signs tokens.
    pub api_key: String,
    /// Where the API is.
    pub api_url: String,
    /// `<domain>.daily.co`; asked for when absent.
    pub domain: Option<String>,
    /// Its id, which is in tokens; asked for when absent.
    pub domain_id: Option<String>,
    /// Where rooms' servers are, unless a request says so; none leaves it to Daily.
    pub geo: Option<String>,
    /// What webhooks are signed with, in base64; none takes no webhooks.
    pub webhook_secret: Option<String>,
    /// Whether rooms are removed when their session ends, or left to end by themselves.
    pub delete_rooms: bool,
    /// Whose rooms they are.
    pub deployment: String,
}

/// See the module's documentation.
pub struct Daily {
    client: Client,
    key: String,
    domain: String,
    domain_id: String,
    geo: Option<String>,
    webhooks: Option<Webhooks>,
    delete_rooms: bool,
    deployment: String,
    label: String,
    rooms: Rooms,
}

impl fmt::Debug for Daily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daily").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Daily {
    /// Asks Daily which domain the key is of, unless both parts of the answer are given: without
    /// them no join can be planned.
    ///
    /// # Errors
    /// [`Fault`] of kind `Refused` for a key or a secret that is none; others may pass.
    pub async fn open(http: reqwest::Client, config: DailyConfig) -> Result<Daily, Fault> {
        let webhooks = config.webhook_secret.as_deref().map(Webhooks::new);
        if matches!(webhooks, Some(None)) {
            return Err(Fault::refused("the secret of webhooks is not in base64"));
        }
        let client = Client::new(http, &config.api_url, config.api_key.clone());
        let (domain, domain_id) = match (config.domain, config.domain_id) {
            (Some(name), Some(id)) => (name, id),
            (name, id) => {
                let found: Domain = client.call(Method::GET, "/", None).await?;
                (name.unwrap_or(found.domain_name), id.unwrap_or(found.domain_id))
            }
        };
        Ok(Daily {
            client,
            key: config.api_key,
            domain,
            domain_id,
            geo: config.geo,
            webhooks: webhooks.flatten(),
            delete_rooms: config.delete_rooms,
            label: name::label(&config.deployment),
            deployment: config.deployment,
            rooms: Rooms::default(),
        })
    }

    /// What this session's room is called.
    pub fn room_name(&self, session: SessionId) -> String {
        name::name(&self.label, session)
    }

    /// A token for this room; `more` says whose, and until when.
    fn token(&self, room: &Room, mut more: Map<String, Value>) -> String {
        more.insert("r".into(), json!(self.room_name(room.session)));
        more.insert("d".into(), json!(self.domain_id));
        more.insert("iat".into(), json!(room.created_at.as_secs()));
        jwt::sign(&Value::Object(more), self.key.as_bytes())
    }

    /// All rooms of the domain, ours or not.
    async fn all_rooms(&self) -> Result<Vec<RoomEntry>, Fault> {
        let (mut rooms, mut seen) = (Vec::new(), HashSet::new());
        let mut path = format!("/rooms?limit={PAGE}");
        loop {
            let page: Page = self.client.call(Method::GET, &path, None).await?;
            let length = page.data.len();
            let last = page.data.last().map(|room| room.id.clone());
            rooms.extend(page.data.into_iter().filter(|room| seen.insert(room.id.clone())));
            match last {
                Some(last) if length >= PAGE => {
                    let next = format!("/rooms?limit={PAGE}&starting_after={last}");
                    if next == path {
                        return Err(Fault::unavailable("Daily's list of rooms has no end"));
                    }
                    path = next;
                }
                _ => return Ok(rooms),
            }
        }
    }
}

#[async_trait]
impl Transport for Daily {
    fn name(&self) -> &'static str {
        "daily"
    }

    fn carries_media(&self) -> bool {
        false
    }

    fn check(&self, request: &Map<String, Value>) -> Result<Value, BadOptions> {
        options::check(request)
    }

    fn plan(&self, Plan { room, .. }: &Plan<'_>) -> Join {
        let url = format!("https://{}.daily.co/{}", self.domain, self.room_name(room.session));
        let exp = room.ends_by.as_secs();
        let bot = json!({ "exp": exp, "o": true, "ud": options::BOT_USER });
        let bot = bot.as_object().cloned().unwrap_or_default();
        // Not an owner, who could throw the bot out and record: not unless the request says so.
        let client = options::claims(&room.options, exp);
        Join {
            client: json!({
                "dailyRoom": url,
                "dailyToken": self.token(room, client),
                "sessionId": room.session.to_string(),
            }),
            bot_token: self.token(room, bot),
            bot_room_url: url,
        }
    }

    async fn open(&self, room: &Room) -> Result<(), Fault> {
        let name = self.room_name(room.session);
        let properties = options::room(&room.options, room.ends_by.as_secs(), self.geo.as_deref());
        let body = json!({ "name": name, "privacy": "private", "properties": properties });
        let made: Result<Value, _> = self.client.call(Method::POST, "/rooms", Some(&body)).await;
        match made {
            Ok(_) => Ok(()),
            // Made by an earlier attempt whose answer got lost: names are used once.
            Err(error) if error.is_taken => {
                let path = format!("/rooms/{name}");
                let there: Result<Value, _> = self.client.call(Method::GET, &path, None).await;
                there.map(drop).map_err(|error| match error.fault {
                    // It went between the two.
                    Fault { kind: FaultKind::NotFound, detail } => Fault::unavailable(detail),
                    fault => fault,
                })
            }
            Err(error) => Err(error.fault),
        }
    }

    async fn presence(&self, room: &Room) -> Result<Option<Presence>, Fault> {
        let name = self.room_name(room.session);
        self.rooms.look(&self.client, room.session, &name).await.map(Some)
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
        let webhooks = self.webhooks.as_ref().ok_or(WebhookRefusal::NoWebhooks)?;
        let Some((room, sight)) = webhooks.read(headers, body, now)? else { return Ok(Vec::new()) };
        // Webhooks come for all rooms of the domain.
        let ours = name::of_name(&room).filter(|(label, _)| *label == self.label);
        let Some((_, session)) = ours else { return Ok(Vec::new()) };
        Ok(vec![Seen { session, sight }])
    }

    fn heard_of(&self, session: SessionId) {
        self.rooms.has_news(session);
    }

    fn share(&self, replicas: usize) {
        self.client.share(replicas);
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        if !self.delete_rooms {
            return Ok(Vec::new());
        }
        let rooms = self.all_rooms().await?;
        let ours = rooms.iter().filter_map(|room| name::of_name(&room.name));
        let listed = ours.map(|(label, session)| Listed {
            session,
            deployment: Some(match label == self.label {
                true => self.deployment.clone(),
                false => label.to_owned(),
            }),
            made_at: None,
        });
        Ok(listed.collect())
    }

    async fn close(&self, session: SessionId) -> Result<(), Fault> {
        self.rooms.forget(session);
        if !self.delete_rooms {
            return Ok(());
        }
        match self.client.delete(&self.room_name(session)).await {
            Ok(_) => Ok(()),
            Err(error) if error.fault.kind == FaultKind::NotFound => Ok(()),
            Err(error) => Err(error.fault),
        }
    }
}
