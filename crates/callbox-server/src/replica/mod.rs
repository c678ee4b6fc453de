//! Several dispatchers on one store.
//!
//! ```text
//!   replica A                    the store                    replica B
//!   beat, every 2 s ───────────▶ A lives ◀─────────── silent for 6 s? ── take over
//!   drives 1, 2, 3  ◀── rows ──▶ 1: A, 2: A, 4: B ◀── rows ──▶ drives 4, waits for 2
//!        ▲                                                        │
//!        └── media, logs, the bot's own routes: forwarded ────────┘
//! ```
//!
//! Every row names the replica that drives it. That is a lease: it only saves work. What keeps
//! two drivers of one session from both moving it is the store's compare-and-set.
//!
//! * `beat`: says that we live, takes over from those that do not, and holds still when we may be
//!   thought dead ourselves.
//! * [`watch`]: sees what others did to sessions: those that a request waits for, and ours.
//! * [`forward`]: passes on what only the driving replica can answer.
//!
//! Who we are is kept in the data directory: whoever holds its lock is the same replica as before,
//! so a dispatcher that starts again goes on with its own sessions at once.

mod beat;
pub mod forward;
pub mod watch;

use std::{
    fs, io,
    path::Path,
    sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use callbox_core::Session;
use tokio::{
    sync::{Notify, watch as level},
    time::{Instant, sleep_until},
};

use crate::{
    config::Config,
    plane::Plane,
    random,
    store::{Replica, StoreError},
};
pub use beat::{begin, leave, run};
use watch::Watched;

/// How often a replica says that it lives.
pub const BEAT: Duration = Duration::from_secs(2);
/// A replica that was silent for so long counts as dead. With the beat that it may just have
/// missed and the look of another, its sessions are taken over within ten seconds.
pub const SILENCE: Duration = Duration::from_secs(6);
/// A replica that could not say that it lives for so long holds still: less than [`SILENCE`], so
/// that it does so before anybody goes on with its sessions.
const HOLD: Duration = Duration::from_secs(5);
/// What is added to the time that machines live without a dispatcher: for those that are slow to
/// end, and for a restart in the last moment.
pub const SETTLED: Duration = Duration::from_secs(60);

/// A host whose replica was silent for so long is given up, with the machines that only it could
/// reach. They ended themselves before that, as no dispatcher spoke to them.
pub fn lost_after(config: &Config) -> Duration {
    config.orphan_after + SETTLED
}

/// What this dispatcher knows of itself and of the others.
pub struct Replicas {
    id: String,
    url: OnceLock<String>,
    others: Mutex<Vec<Replica>>,
    /// Whether others may be there whom we have not seen: cut off from the store, nobody sees who
    /// comes.
    can_be_shared: bool,
    /// Whether there ever was another one.
    shared: AtomicBool,
    lease: level::Sender<Lease>,
    /// Told when a row may name us without being driven here.
    stray: Notify,
    watched: Watched,
}

/// Whether nobody can have taken our sessions for want of a sign from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    held: bool,
    since: Instant,
    /// Goes up whenever it is lost or won. Under another number than before, sessions may be in
    /// other hands.
    pub turn: u64,
}

impl Replicas {
    /// The replica of this data directory, on a store that others can be on, too, or not.
    pub fn of(data_dir: &Path, can_be_shared: bool) -> Replicas {
        let id = identity(&data_dir.join("replica")).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot keep who we are: the next dispatcher here is another one");
            fresh()
        });
        Replicas {
            id,
            url: OnceLock::new(),
            others: Mutex::default(),
            can_be_shared,
            shared: AtomicBool::new(false),
            lease: level::Sender::new(Lease { held: true, since: Instant::now(), turn: 0 }),
            stray: Notify::new(),
            watched: Watched::default(),
        }
    }

    /// Our id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Says where the others reach us.
    pub fn reached_at(&self, url: String) {
        let _ = self.url.set(url);
    }

    /// Us, as the others see us. Our place is our data directory: machines that run in it are
    /// reached by whoever has its lock.
    pub fn me(&self) -> Replica {
        let url = self.url.get().cloned().unwrap_or_default();
        Replica { id: self.id.clone(), place: self.id.clone(), url }
    }

    /// The others that lived when we last looked.
    pub fn others(&self) -> Vec<Replica> {
        self.known().clone()
    }

    /// Another one of this id.
    pub fn other(&self, id: &str) -> Option<Replica> {
        self.known().iter().find(|other| other.id == id).cloned()
    }

    /// Whether another dispatcher was ever seen on our store.
    pub fn shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Whether sessions may be in other hands than ours.
    pub fn may_be_shared(&self) -> bool {
        self.can_be_shared || self.shared()
    }

    /// Whether the session's machine, if it has one, is on our host or can be reached by all.
    pub fn reaches(&self, session: &Session) -> bool {
        session.place.is_empty() || session.place == self.id
    }

    /// Whether the world may be changed for this session now: not while another replica may be
    /// doing so because we seem dead. Nobody else reaches a machine of our host, dead or not.
    pub fn may_act(&self, session: &Session) -> bool {
        self.lease.borrow().held
            || crate::planted::is("no-hold")
            || !self.may_be_shared()
            || !session.place.is_empty()
    }

    /// Changes when [`Replicas::may_act`] may.
    pub fn lease(&self) -> level::Receiver<Lease> {
        self.lease.subscribe()
    }

    /// Whether we have not been able to say that we live for so long that others will give our host
    /// up, with the machines that only we reach. Where nobody else was ever seen nobody will: calls
    /// go on while the database is away.
    pub fn is_given_up_soon(&self, config: &Config) -> bool {
        let lease = *self.lease.borrow();
        self.shared() && !lease.held && lease.since.elapsed() >= config.orphan_after
    }

    /// Resolves when that is so, unless the lease changes before.
    pub async fn given_up_soon(&self, config: &Config) {
        let lease = *self.lease.borrow();
        if lease.held || !self.shared() {
            return std::future::pending().await;
        }
        sleep_until(lease.since + config.orphan_after).await;
    }

    /// How long we have been seen to live without a gap; none while we are not.
    fn held_for(&self) -> Option<Duration> {
        let lease = *self.lease.borrow();
        lease.held.then(|| lease.since.elapsed())
    }

    /// We said that we live, for the first time: whatever was before is another's.
    fn begin_to_hold(&self) {
        self.lease.send_modify(|lease| {
            *lease = Lease { held: true, since: Instant::now(), turn: lease.turn + 1 };
        });
    }

    fn hold(&self, held: bool) {
        self.lease.send_if_modified(|lease| {
            if lease.held == held {
                return false;
            }
            if held && self.may_be_shared() {
                tracing::info!("back at the store");
            } else if self.may_be_shared() {
                tracing::warn!("cut off from the store: others may go on with our sessions");
            }
            *lease = Lease { held, since: Instant::now(), turn: lease.turn + 1 };
            true
        });
    }

    /// A row may name us without being driven here: a call to the store was made, and its answer
    /// got lost.
    pub fn look_for_strays(&self) {
        self.stray.notify_one();
    }

    fn know(&self, others: Vec<Replica>) {
        if !others.is_empty() {
            self.shared.store(true, Ordering::Relaxed);
        }
        *self.known() = others;
    }

    fn known(&self) -> MutexGuard<'_, Vec<Replica>> {
        self.others.lock().expect("no panic while held")
    }
}

/// Sees who else there is.
async fn look_around(plane: &Plane) -> Result<(), StoreError> {
    let mut others = plane.store.replicas(SILENCE).await?;
    others.retain(|other| other.id != plane.replicas.id());
    let replicas = others.len() + 1;
    plane.replicas.know(others);
    plane.transports.values().for_each(|transport| transport.share(replicas));
    plane.providers.values().for_each(|provider| provider.share(replicas));
    Ok(())
}

/// Who the replica of this data directory is, from the file that says so.
fn identity(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Ok(text) if is_id(text.trim()) => return Ok(text.trim().to_owned()),
        // Half written, or not ours: whoever we were, we are somebody new.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = fresh();
    let new = file.with_extension("new");
    fs::write(&new, format!("{id}\n"))?;
    fs::rename(new, file)?;
    Ok(id)
}

fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn fresh() -> String {
    hex::encode(&random::bytes()[..8])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whoever_has_the_data_directory_is_the_same_replica() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Replicas::of(here.path(), false);
        assert!(is_id(first.id()));
        assert_eq!(Replicas::of(here.path(), false).id(), first.id());
        assert_ne!(Replicas::of(there.path(), false).id(), first.id());
        fs::write(here.path().join("replica"), "half").unwrap();
        assert_ne!(Replicas::of(here.path(), false).id(), first.id(), "somebody new");
        assert!(is_id(Replicas::of(&here.path().join("missing"), false).id()), "and kept nowhere");
    }
}
