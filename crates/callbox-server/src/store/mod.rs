//! What the dispatcher must not forget: sessions, who bought them, who drives them, API keys.
//!
//! One rule carries everything: a session is saved with compare-and-set on its version, so two
//! drivers of one session (two replicas, or one that was thought dead) can never both move it.
//! Losing that race is a value, [`Saved::Conflict`], not an error. That a session has one driver
//! ([`Store::take_over`]) only saves work; compare-and-set keeps it right.
//!
//! Only this module knows SQL.

mod address;
mod caps;
mod list;
mod living;
mod memory;
mod postgres;
mod row;
mod sqlite;
mod types;
mod unreadable;

use std::time::Duration;

use async_trait::async_trait;
use callbox_core::{Session, SessionId, Time};
use tokio::sync::broadcast;

pub use address::Address;
pub(crate) use address::shown;
pub use living::each_living;
pub use memory::Memory;
pub use postgres::Postgres;
pub use sqlite::Sqlite;
pub use types::{
    Deployment, Filter, Inserted, KeyRecord, NewSession, Replica, Saved, StartKey, StoreError,
    Versioned,
};

/// Where sessions are kept.
///
/// Every call may fail with [`StoreError`], and a call that failed may have been done all the
/// same: what was written is looked for before it is written again.
#[async_trait]
pub trait Store: Send + Sync {
    /// Whether dispatchers of other processes can be on it, too.
    fn can_be_shared(&self) -> bool {
        false
    }

    /// Inserts a session unless a cap or an earlier use of its start key stands against it.
    /// All in one transaction: two starts at once cannot both take the last place.
    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError>;

    /// The session of this id.
    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError>;

    /// Replaces the row if it still is at version `expected`. Who drives it stays as it is.
    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError>;

    /// The ids of all sessions that have not ended, also of those that cannot be read.
    async fn living(&self) -> Result<Vec<SessionId>, StoreError>;

    /// A page of sessions, newest first. What cannot be read is reported and passed over.
    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError>;

    /// Says that `replica` lives. By the store's own clock, so that replicas' clocks do not
    /// matter. Before its first session: a driver that never said so counts as silent.
    async fn beat(&self, replica: &Replica) -> Result<(), StoreError>;

    /// Replicas that said so within `within`.
    async fn replicas(&self, within: Duration) -> Result<Vec<Replica>, StoreError>;

    /// Makes `replica` the driver of living sessions that have no driver, or whose driver was
    /// silent for `silence`: at most `limit`, oldest first. Of other places only those that were
    /// without a driver for `lost`. Each such row's version goes up, so the old driver's next
    /// save conflicts. What cannot be read is reported and left to those who can read it.
    async fn take_over(
        &self,
        replica: &Replica,
        silence: Duration,
        lost: Duration,
        limit: u32,
    ) -> Result<Vec<Versioned>, StoreError>;

    /// The living sessions that have this replica as their driver. One of them that it does not
    /// drive was given to it by a call whose answer got lost, so it has to take it up.
    async fn driven(&self, replica: &str) -> Result<Vec<SessionId>, StoreError>;

    /// The replica leaves: its sessions have no driver from now on, and it does not live any more.
    async fn retire(&self, replica: &str) -> Result<(), StoreError>;

    /// Hints about sessions that were saved, by whomever. Some may be lost; `Lagged` means look
    /// at all.
    fn changes(&self) -> broadcast::Receiver<SessionId>;

    /// Version and driver of those of these sessions that exist, for polling.
    async fn versions(
        &self,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError>;

    /// Removes at most `limit` sessions that ended before `before`, oldest first, with their
    /// start keys; returns their ids so that logs can go too. None where another replica is at it.
    async fn prune(&self, before: Time, limit: u32) -> Result<Vec<SessionId>, StoreError>;

    /// This deployment's identity, made at the first call.
    async fn deployment(&self) -> Result<Deployment, StoreError>;

    /// Keeps a new API key.
    async fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError>;

    /// The API key of this id, revoked or not.
    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError>;

    /// All API keys, oldest first.
    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError>;

    /// Makes a key stop working. False if there is no such key that works.
    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool, StoreError>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
