//! Rooms and who is in them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Settings, hooks::Hooks, rates::Rates, token, trouble::Trouble};

/// Everything there is.
pub(super) struct World {
    pub settings: Settings,
    pub troubles: Vec<Trouble>,
    pub calls: BTreeMap<String, u64>,
    pub rates: Rates,
    pub hooks: Hooks,
    rooms: BTreeMap<String, Room>,
    /// What `GET /presence` tells, and since when.
    told: Option<(Instant, Value)>,
    made: u64,
}

/// One room.
#[derive(Debug)]
pub(super) struct Room {
    pub id: String,
    number: u64,
    pub privacy: String,
    pub properties: Value,
    created_at: String,
    pub people: Vec<Person>,
}

/// Somebody in a room.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Person {
    /// Of this stay.
    pub id: String,
    /// As the token has it, else that of the stay.
    pub user_id: String,
    /// As the token has it.
    pub user_name: Option<String>,
    /// Whether the token makes it one.
    pub owner: bool,
    /// Unix seconds.
    pub joined_at: f64,
}

impl World {
    pub fn new(settings: &Settings, hooks: Hooks) -> World {
        World {
            settings: settings.clone(),
            troubles: Vec::new(),
            calls: BTreeMap::new(),
            rates: Rates::default(),
            hooks,
            rooms: BTreeMap::new(),
            told: None,
            made: 0,
        }
    }

    /// An id that nothing else has.
    pub fn new_id(&mut self) -> String {
        self.made += 1;
        format!("5a5a5a5a-0000-4000-8000-{:012x}", self.made)
    }

    /// Those that have not expired; who was in one that has is thrown out.
    pub fn rooms(&mut self) -> &mut BTreeMap<String, Room> {
        let now = token::now();
        let expired = |room: &Room| room.properties["exp"].as_f64().is_some_and(|exp| exp <= now);
        let gone: Vec<String> =
            self.rooms.iter().filter(|(_, r)| expired(r)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.remove(&name);
        }
        &mut self.rooms
    }

    /// Makes a room; else the text of the refusal.
    pub fn make(
        &mut self,
        name: String,
        privacy: &str,
        properties: Value,
    ) -> Result<Value, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 128 || !name.chars().all(legal) {
            return Err(format!("invalid room name {name:?}"));
        }
        if !matches!(privacy, "public" | "private") {
            return Err(format!("privacy must be public or private, not {privacy:?}"));
        }
        if properties["exp"].as_f64().is_some_and(|exp| exp <= token::now()) {
            return Err("exp is in the past".into());
        }
        if self.rooms().contains_key(&name) {
            return Err(format!("a room named {name} already exists"));
        }
        let id = self.new_id();
        let created_at = jiff::Timestamp::now().to_string();
        let (privacy, people, number) = (privacy.to_owned(), Vec::new(), self.made);
        let room = Room { id, number, privacy, properties, created_at, people };
        self.rooms.insert(name.clone(), room);
        Ok(self.shown(&name).unwrap_or_default())
    }

    /// A room as its API shows it.
    pub fn shown(&mut self, name: &str) -> Option<Value> {
        let domain = self.settings.domain.clone();
        let room = self.rooms().get(name)?;
        Some(json!({
            "id": room.id, "name": name, "api_created": true, "privacy": room.privacy,
            "url": format!("https://{domain}.daily.co/{name}"),
            "created_at": room.created_at, "config": room.properties,
        }))
    }

    /// A page of the list, the youngest first.
    pub fn page(&mut self, limit: usize, after: Option<&str>) -> Value {
        let mut all: Vec<(u64, String, String)> =
            self.rooms().iter().map(|(name, r)| (r.number, r.id.clone(), name.clone())).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let total = all.len();
        let from =
            after.and_then(|id| all.iter().position(|room| room.1 == id)).map_or(0, |n| n + 1);
        let page: Vec<Value> =
            all[from..].iter().take(limit).filter_map(|(_, _, name)| self.shown(name)).collect();
        json!({ "total_count": total, "data": page })
    }

    /// Removes a room; whoever is in there is thrown out.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(room) = self.rooms.remove(name) else { return false };
        let count = room.people.len();
        for (n, person) in room.people.iter().enumerate() {
            self.left(name, person, n + 1 == count);
        }
        true
    }

    /// Who is in this room, as it is.
    pub fn people_in(&mut self, name: &str) -> Option<Value> {
        let people: Vec<Value> = {
            let room = self.rooms().get(name)?;
            room.people.iter().map(|person| shown_person(name, person)).collect()
        };
        Some(json!({ "total_count": people.len(), "data": people }))
    }

    /// Who is in all rooms, as it was a while ago. Rooms where nobody is are left out.
    pub fn all_people(&mut self) -> Value {
        let stale = self.settings.stale;
        if let Some((since, told)) = &self.told
            && since.elapsed() < stale
        {
            return told.clone();
        }
        let told: BTreeMap<String, Vec<Value>> = self
            .rooms()
            .iter()
            .filter(|(_, room)| !room.people.is_empty())
            .map(|(name, room)| {
                (name.clone(), room.people.iter().map(|p| shown_person(name, p)).collect())
            })
            .collect();
        let told = json!(told);
        self.told = Some((Instant::now(), told.clone()));
        told
    }
}

fn shown_person(room: &str, person: &Person) -> Value {
    json!({
        "room": room, "id": person.id, "userId": person.user_id, "userName": person.user_name,
        "joinTime": person.joined_at, "duration": (token::now() - person.joined_at).max(0.0),
    })
}
