//! Carrying a client's media websocket to the bot and back, frame by frame and in order from the
//! first one.
//!
//! ```text
//!  client ══ws══▶ [ held, bounded ]──▶ once the bot is ready ══ws in a tunnel══▶ bot
//!         ◀══════════════════════════════════════════════════════════════════
//! ```
//!
//! The client is accepted at once, whatever the machine is doing: clients give no second chance.
//! What it sends meanwhile is held and then delivered first. Whoever closes first tells why:
//! client gone, bot finished, or the session ended by other means.
//!
//! A bot that dies need not be the end: if its session gets a fresh machine, the client waits here
//! for its bot, as in the beginning. Audio that comes meanwhile is not kept (`call`).
//!
//! A dispatcher may die, and a call must not notice. So the client's connection is handed to a
//! small process of its own ([`relay`]), which does all of the above and outlives us. Where the
//! provider's machines cannot be reached from another process, we do it here (`here`).

mod bot_socket;
mod call;
mod client;
mod end;
mod frames;
mod held;
mod here;
pub mod relay;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use callbox_core::machine_name;
use tokio::time::Duration;

use crate::{
    config::Bot,
    outside,
    plane::{Handle, Plane},
};
pub use client::Line;

/// How long a bot that said it is ready may take to accept its websocket.
const OPEN: Duration = Duration::from_secs(20);
/// How long the machine's own account of an end is waited for, before a broken connection is it;
/// and how long a good-bye may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The client's seat in a session: there is one.
#[derive(Debug, Default)]
pub struct Seat {
    taken: AtomicBool,
    relayed: AtomicBool,
}

impl Seat {
    /// Whether the call would end with this process.
    pub fn carried_here(&self) -> bool {
        self.taken.load(Ordering::Acquire) && !self.relayed.load(Ordering::Acquire)
    }
}

/// The client's seat, taken.
pub struct Place(Handle);

impl Place {
    /// None when it is taken.
    pub fn take(handle: &Handle) -> Option<Place> {
        (!handle.media.taken.swap(true, Ordering::AcqRel)).then(|| Place(handle.clone()))
    }

    fn set_relayed(&self, relayed: bool) {
        self.0.media.relayed.store(relayed, Ordering::Release);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.set_relayed(false);
        self.0.media.taken.store(false, Ordering::Release);
    }
}

/// Carries the media of one session until somebody ends it.
pub async fn carry(plane: Arc<Plane>, bot: Arc<Bot>, place: Place, line: Line) {
    let session = place.0.session.borrow().clone();
    // It may not have a machine yet; whether its machines have such a port is known all the same.
    let name = machine_name(session.id, session.incarnation.max(1));
    let provider = plane.providers.get(session.provider.as_str());
    let mut line = line;
    if provider.is_some_and(|provider| provider.media_port(&name).is_some()) {
        match outside::call("relay.hand-over", relay::hand_over(&plane, &bot, &session, line)).await
        {
            Ok(relay) => return relay::follow(plane, place, relay, None).await,
            Err(relay::NotHandedOver { error, line: Some(back) }) => {
                tracing::warn!(
                    session.id = %session.id, %error,
                    "no process can be started for this call; it is carried here"
                );
                line = back;
            }
            Err(relay::NotHandedOver { error, line: None }) => {
                // The client is gone with it, and may come again: it never was in.
                tracing::warn!(session.id = %session.id, %error, "a client was lost on the way");
                return;
            }
        }
    }
    here::carry(&place.0, bot.machine.run.port, plane.config.max_held_bytes, line).await;
}
