//! Who comes into rooms, and goes.

use serde_json::json;

use super::{
    token,
    world::{Person, World},
};

impl World {
    /// See [`StandIn::join`](super::StandIn::join).
    pub fn join(&mut self, name: &str, token: &str) -> Result<String, String> {
        let (key, domain) = (self.settings.api_key.clone(), self.settings.domain_id.clone());
        if !self.rooms().contains_key(name) {
            return Err("The meeting you're trying to join does not exist.".into());
        }
        let claims = token::check(&key, &domain, name, token)?;
        let id = self.new_id();
        let text = |claim: &str| claims[claim].as_str().map(str::to_owned);
        let person = Person {
            id: id.clone(),
            user_id: text("ud").unwrap_or_else(|| id.clone()),
            user_name: text("u"),
            owner: claims["o"] == true,
            joined_at: token::now(),
        };
        self.tell("participant.joined", name, Some(&person));
        if let Some(room) = self.rooms().get_mut(name) {
            room.people.push(person);
        }
        Ok(id)
    }

    /// See [`StandIn::leave`](super::StandIn::leave).
    pub fn leave(&mut self, name: &str, id: &str) -> bool {
        let Some(room) = self.rooms().get_mut(name) else { return false };
        let Some(at) = room.people.iter().position(|person| person.id == id) else { return false };
        let person = room.people.remove(at);
        let is_empty = room.people.is_empty();
        self.left(name, &person, is_empty);
        true
    }

    /// Tells that somebody left.
    pub(super) fn left(&mut self, name: &str, person: &Person, is_empty: bool) {
        self.tell("participant.left", name, Some(person));
        if is_empty {
            self.tell("meeting.ended", name, None);
        }
    }

    fn tell(&mut self, kind: &str, room: &str, person: Option<&Person>) {
        let id = self.new_id();
        let payload = match person {
            Some(person) => json!({
                "room": room, "user_id": person.user_id, "user_name": person.user_name,
                "session_id": person.id, "joined_at": person.joined_at, "owner": person.owner,
            }),
            None => json!({ "room": room }),
        };
        let body = json!({
            "version": "1.1.0", "type": kind, "id": id, "payload": payload,
            "event_ts": token::now(),
        });
        self.hooks.send(kind, &body);
    }
}
