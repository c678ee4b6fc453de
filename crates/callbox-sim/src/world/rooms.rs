//! Rooms, and the transport that makes them, as one dispatcher sees it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use callbox_core::{Fault, FaultKind, SessionId};
use callbox_transports::{Join, Listed, Plan, Presence, Room as Described, Transport};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    World,
    facts::Cause,
    front::Life,
    provider::{Fate, NAME},
};

/// One room.
#[derive(Clone, Debug)]
pub struct Room {
    /// No two rooms ever have the same.
    pub serial: u64,
    /// How many clients are in.
    pub clients: u32,
    /// Since when.
    pub since: Instant,
    /// The transport said that it refuses to make it, or nobody waited any more to hear of it.
    pub behind_our_back: bool,
    /// Since when no living session has owned it.
    pub unowned_since: Option<Instant>,
}

/// See the module's documentation.
pub struct SimTransport(pub Arc<Life>);

impl World {
    fn open_room(self: &Arc<Self>, id: SessionId, behind_our_back: bool, waited_for: bool) {
        if waited_for {
            self.room_must_be_wanted(id);
        }
        let age = self.age();
        let vanishes = self.happens(self.weather.room_lost);
        let mut inner = self.inner();
        if let Some(room) = inner.rooms.get_mut(&id) {
            room.behind_our_back &= behind_our_back;
            return inner.note(age, "room.adopted", || id.to_string());
        }
        let serial = inner.dice.number(1, u64::MAX - 1);
        let since = Instant::now();
        let room = Room { serial, clients: 0, since, behind_our_back, unowned_since: None };
        inner.rooms.insert(id, room);
        inner.note(age, "room.made", || id.to_string());
        let after = vanishes.then(|| inner.dice.between(500, 60_000));
        drop(inner);
        self.tell();
        if let Some(after) = after {
            let world = Arc::clone(self);
            tokio::spawn(async move {
                sleep(after).await;
                world.lose_room(id, serial);
            });
        }
    }

    /// No room is made for a session that is over, or is not written down.
    fn room_must_be_wanted(&self, id: SessionId) {
        let row = self.inner().rows.get(&id).cloned();
        if row.is_none_or(|row| row.moments.ended.is_some()) {
            self.violation("a room made without need", id.to_string());
        }
    }

    fn lose_room(&self, id: SessionId, serial: u64) {
        let age = self.age();
        let mut inner = self.inner();
        if inner.rooms.get(&id).is_some_and(|room| room.serial == serial) {
            inner.rooms.remove(&id);
            inner.facts(id).did(Cause::RoomRefused);
            inner.facts(id).did(Cause::Left);
            inner.note(age, "room.lost", || id.to_string());
        }
    }

    fn close_room(&self, id: SessionId) {
        let age = self.age();
        let mut inner = self.inner();
        let was = inner.rooms.remove(&id).is_some();
        let what = if was { "room.closed" } else { "room.closed-nothing" };
        inner.note(age, what, || id.to_string());
    }

    /// A client enters, if there is a room.
    pub fn enter(&self, id: SessionId) -> bool {
        let age = self.age();
        let mut inner = self.inner();
        let Some(room) = inner.rooms.get_mut(&id) else { return false };
        room.clients += 1;
        inner.note(age, "client.entered", || id.to_string());
        true
    }

    /// A client leaves.
    pub fn leave(&self, id: SessionId) {
        let age = self.age();
        let mut inner = self.inner();
        if let Some(room) = inner.rooms.get_mut(&id) {
            room.clients = room.clients.saturating_sub(1);
        }
        inner.facts(id).did(Cause::Left);
        inner.note(age, "client.left", || id.to_string());
    }

    fn presence(&self, id: SessionId) -> Result<Option<Presence>, Fault> {
        let inner = self.inner();
        let room = inner.rooms.get(&id).ok_or_else(|| Fault::not_found("no such room"))?;
        let bot = |machine: &super::machines::Machine| machine.session == id && machine.told();
        let bot = inner.machines.values().any(bot);
        Ok(Some(Presence { bot, clients: room.clients }))
    }

    fn listed_rooms(&self) -> Vec<Listed> {
        let inner = self.inner();
        let stale = if inner.calm { Duration::ZERO } else { self.weather.stale };
        let seen = inner.rooms.iter().filter(|(_, room)| room.since.elapsed() >= stale);
        // A list that is always true need not tell ages.
        let listed = seen.map(|(id, room)| Listed {
            session: *id,
            deployment: Some("memory".into()),
            made_at: (!stale.is_zero()).then(|| self.at(room.since)),
        });
        listed.collect()
    }
}

#[async_trait]
impl Transport for SimTransport {
    fn name(&self) -> &'static str {
        NAME
    }

    fn carries_media(&self) -> bool {
        false
    }

    fn plan(&self, plan: &Plan<'_>) -> Join {
        let session = plan.room.session;
        Join {
            client: json!({ "room": session.to_string() }),
            bot_room_url: format!("sim:{session}"),
            bot_token: "token".into(),
        }
    }

    async fn open(&self, room: &Described) -> Result<(), Fault> {
        let session = room.session;
        let world = Arc::clone(&self.0.world);
        let call = self.0.call_vendor("open-room", 80.0, move |waited_for| async move {
            let fate = world.fate_of_order("open-room");
            let refused = |fault: &Fault| fault.kind == FaultKind::Refused;
            if let Fate::Fails(fault) | Fate::Happens(fault) = &fate
                && refused(fault)
            {
                world.inner().facts(session).did(Cause::RoomRefused);
            }
            match fate {
                Fate::Fails(fault) => Err(fault),
                Fate::Happens(fault) => {
                    world.open_room(session, refused(&fault) || !waited_for, waited_for);
                    Err(fault)
                }
                Fate::Works => {
                    world.open_room(session, !waited_for, waited_for);
                    Ok(())
                }
            }
        });
        call.await
    }

    async fn presence(&self, room: &Described) -> Result<Option<Presence>, Fault> {
        let session = room.session;
        let world = Arc::clone(&self.0.world);
        let call = self.0.call_vendor("presence", 30.0, move |_| async move {
            match world.fate("presence") {
                Fate::Works => world.presence(session),
                Fate::Fails(fault) | Fate::Happens(fault) => Err(fault),
            }
        });
        call.await
    }

    fn sees_presence(&self) -> bool {
        true
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let world = Arc::clone(&self.0.world);
        let call = self.0.call_vendor("list-rooms", 80.0, move |_| async move {
            match world.fate("list-rooms") {
                Fate::Works => Ok(world.listed_rooms()),
                Fate::Fails(fault) | Fate::Happens(fault) => Err(fault),
            }
        });
        call.await
    }

    async fn close(&self, session: SessionId) -> Result<(), Fault> {
        let world = Arc::clone(&self.0.world);
        let call = self.0.call_vendor("close-room", 60.0, move |_| async move {
            match world.fate("close-room") {
                Fate::Fails(fault) => Err(fault),
                Fate::Happens(fault) => {
                    world.close_room(session);
                    Err(fault)
                }
                Fate::Works => {
                    world.close_room(session);
                    Ok(())
                }
            }
        });
        call.await
    }
}
