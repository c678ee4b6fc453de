//! Who is in which room, as far as Daily lets us look.
//!
//! One call tells of all rooms (`GET /presence`), 15 s late and at most every 15 s; another of a
//! single room, as it is. As long as few sessions are there, each room is looked into by itself;
//! with more of them than may be looked into so often, what is known of all is good enough, but
//! for one thing: that somebody left is only believed of a look into that room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use callbox_core::{Fault, FaultKind, SessionId};
use http::Method;
use serde_json::Value;
use tokio::{sync::Mutex as Turns, time::Instant};

use super::{
    client::{Client, Participant, People},
    options::BOT_USER,
};
use crate::Presence;

/// Daily's own words: poll at most so often. What it tells is that old, too.
const EVERY: Duration = Duration::from_secs(15);

const NOBODY: Presence = Presence { bot: false, clients: 0 };

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    known: Mutex<HashMap<SessionId, Known>>,
    /// What was told of all rooms, and when it was asked for.
    all: Turns<Option<(Instant, BTreeMap<String, Presence>)>>,
}

/// What is known of one room.
#[derive(Clone, Copy, Debug)]
struct Known {
    presence: Presence,
    /// As of then.
    at: Instant,
    /// Something was told of it since.
    news: bool,
}

impl Rooms {
    /// Somebody told that this room changed: it is looked into next.
    pub fn has_news(&self, session: SessionId) {
        // One that was never looked into is looked into anyway.
        if let Some(known) = self.known().get_mut(&session) {
            known.news = true;
        }
    }

    /// The session needs its room no more.
    pub fn forget(&self, session: SessionId) {
        self.known().remove(&session);
    }

    /// Who is in the room.
    ///
    /// # Errors
    /// A [`Fault`]; of kind `NotFound` when the room is gone.
    pub async fn look(
        &self,
        client: &Client,
        session: SessionId,
        name: &str,
    ) -> Result<Presence, Fault> {
        let before = self.known().get(&session).copied();
        if before.is_some_and(|known| known.news) || client.may_look() {
            return self.look_into(client, session, name).await;
        }
        let (asked, told) = self.of_all(client, name).await?;
        let at = asked.checked_sub(EVERY).unwrap_or(asked);
        match before {
            Some(known) if known.at >= at => Ok(known.presence),
            Some(known) if told.clients < known.presence.clients => {
                self.look_into(client, session, name).await
            }
            _ => {
                let known = Known { presence: told, at, news: false };
                self.known().insert(session, known);
                Ok(told)
            }
        }
    }

    async fn look_into(
        &self,
        client: &Client,
        session: SessionId,
        name: &str,
    ) -> Result<Presence, Fault> {
        let at = Instant::now();
        // What is told from here on is news again.
        if let Some(known) = self.known().get_mut(&session) {
            known.news = false;
        }
        let path = format!("/rooms/{name}/presence");
        let people: Result<People, _> = client.call(Method::GET, &path, None).await;
        let presence = match people.map_err(Fault::from) {
            Ok(people) => count(&people.data),
            Err(Fault { kind: FaultKind::NotFound, .. }) => {
                // That may be said of a room that nobody entered yet: the room itself knows.
                let room: Result<Value, _> =
                    client.call(Method::GET, &format!("/rooms/{name}"), None).await;
                room.map(|_| NOBODY)?
            }
            // It is looked for again, when there is a turn for looks: what Daily cannot say of many
            // rooms must not take the turns of those that are made.
            Err(fault) => return Err(fault),
        };
        let mut known = self.known();
        let news = known.get(&session).is_some_and(|known| known.news);
        known.insert(session, Known { presence, at, news });
        Ok(presence)
    }

    /// Who is in the room by what was told of all, and when that was asked for.
    async fn of_all(&self, client: &Client, name: &str) -> Result<(Instant, Presence), Fault> {
        let mut all = self.all.lock().await;
        let old = all.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= EVERY);
        if old {
            let asked = Instant::now();
            let told: BTreeMap<String, Vec<Participant>> =
                client.call(Method::GET, "/presence", None).await?;
            let told = told.into_iter().map(|(room, people)| (room, count(&people)));
            *all = Some((asked, told.collect()));
        }
        let (asked, told) = all.as_ref().expect("it was just asked for, or is not old");
        Ok((*asked, told.get(name).copied().unwrap_or(NOBODY)))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SessionId, Known>> {
        self.known.lock().expect("no panic while held")
    }
}

fn count(people: &[Participant]) -> Presence {
    let bots = people.iter().filter(|one| one.user_id.as_deref() == Some(BOT_USER)).count();
    Presence { bot: bots > 0, clients: u32::try_from(people.len() - bots).unwrap_or(u32::MAX) }
}
