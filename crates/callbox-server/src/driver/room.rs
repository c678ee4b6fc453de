//! Making a session's room, looking who is in it, ending it.

use std::time::Duration;

use callbox_core::{EventKind, Fault, FaultKind, Session};
use callbox_transports::{Presence, Room};

use tokio::time::timeout;

use crate::outside::{self, ANSWER, in_time};

use super::{
    Duties,
    duties::{FIRST_PAUSE, wait},
};

/// How often it is looked who is in a room. Events of transports that send them come before that.
const LOOK: Duration = Duration::from_secs(2);

impl Duties {
    pub(super) async fn open_room(&self, session: &Session) -> EventKind {
        let Some(transport) = self.transport(session) else {
            let detail = format!("transport {:?} is no longer configured", session.transport);
            return EventKind::RoomFailed { detail };
        };
        let room = Room::of(session);
        let mut pause = FIRST_PAUSE;
        loop {
            let opened = in_time(ANSWER, transport.open(&room));
            match outside::call("room.open", opened).await {
                Ok(()) => return EventKind::RoomOpened,
                Err(Fault { kind: FaultKind::Refused | FaultKind::NotFound, detail }) => {
                    return EventKind::RoomFailed { detail };
                }
                Err(fault) => tracing::warn!(%fault, "the room was not made, trying again"),
            }
            wait(&mut pause).await;
        }
    }

    /// Tells who comes and goes, for as long as the room is there. Told again at every look: a
    /// repeated event is no news, and one that came too early is not lost.
    pub(super) async fn watch_room(&self, session: &Session) -> EventKind {
        let Some(transport) = self.transport(session) else {
            return std::future::pending().await;
        };
        let room = Room::of(session);
        loop {
            match in_time(ANSWER, transport.presence(&room)).await {
                Ok(Some(presence)) => self.tell_presence(presence),
                // It cannot tell, now or ever.
                Ok(None) => return std::future::pending().await,
                Err(Fault { kind: FaultKind::NotFound, detail }) => {
                    return EventKind::RoomFailed { detail };
                }
                Err(fault) => tracing::warn!(%fault, "cannot look who is in the room"),
            }
            // News that came during the look waits for the next one.
            let _ = timeout(LOOK, self.room_news.notified()).await;
        }
    }

    fn tell_presence(&self, Presence { bot, clients }: Presence) {
        if bot {
            let _ = self.inbox.send(EventKind::BotPresent);
        }
        let _ = self.inbox.send(match clients {
            0 => EventKind::RoomEmpty,
            _ => EventKind::ClientJoined,
        });
    }

    pub(super) async fn close_room(&self, session: &Session) -> EventKind {
        if crate::planted::is("room-not-owed") {
            return EventKind::RoomClosed;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match self.transport(session) {
                None => tracing::error!(
                    transport = session.transport,
                    "no such transport is configured; its room stays"
                ),
                Some(transport) => {
                    let closed = in_time(ANSWER, transport.close(session.id));
                    match outside::call("room.close", closed).await {
                        Ok(()) | Err(Fault { kind: FaultKind::NotFound, .. }) => {
                            return EventKind::RoomClosed;
                        }
                        Err(fault) => {
                            tracing::warn!(%fault, "the room was not closed, trying again");
                        }
                    }
                }
            }
            wait(&mut pause).await;
        }
    }
}
