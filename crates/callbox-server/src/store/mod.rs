//! What the dispatcher must not forget: sessions, who bought them, API keys.
//!
//! One rule carries everything: a session is saved with compare-and-set on its version, so two
//! drivers of one session (two replicas, or one that was thought dead) can never both move it.
//! Losing that race is a value, [`Saved::Conflict`], not an error.
//!
//! Only this module knows SQL.

mod row;
mod sqlite;

use async_trait::async_trait;
use callbox_core::{Session, SessionId, StateKind, Time};

pub use sqlite::Sqlite;

/// A session and the version it was read at.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    /// The session.
    pub session: Session,
    /// Goes up by one with every save.
    pub version: i64,
}

/// A session to insert, and what must hold for it.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// The client's `Idempotency-Key`, if it sent one.
    pub start_key: Option<StartKey>,
    /// How many sessions of all bots may live, this one included.
    pub total_cap: u32,
    /// How many sessions of this bot may live, this one included.
    pub bot_cap: u32,
    /// How many sessions may be queued, this one included; matters only if it is.
    pub queue_cap: u32,
}

/// An `Idempotency-Key` and what it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartKey {
    /// Id of the API key that sent it; keys of different senders never meet.
    pub scope: String,
    /// The header's value.
    pub key: String,
    /// SHA-256 of what was asked for, as hex.
    pub body_hash: String,
}

/// What became of an insert.
#[derive(Clone, Debug, PartialEq)]
pub enum Inserted {
    /// It is in.
    Created(Versioned),
    /// The same key bought this one with the same request: nothing was inserted.
    Existing(Versioned),
    /// The same key was used for another request: nothing was inserted.
    KeyReused,
    /// A cap is reached: nothing was inserted.
    AtCapacity {
        /// The bot whose cap it is; none when it is the cap for all.
        bot: Option<String>,
        /// The cap.
        cap: u32,
    },
    /// It would have to wait, and as many wait as may: nothing was inserted.
    QueueFull {
        /// How many may.
        cap: u32,
    },
}

/// What became of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// It is the row now, at this version.
    Saved(i64),
    /// The row has moved on since it was read; nothing was changed.
    Conflict,
}

/// Which sessions to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this bot.
    pub bot: Option<String>,
    /// Only in this state.
    pub state: Option<StateKind>,
    /// Only those that have not ended.
    pub living: bool,
    /// Only those that come after this one in the list.
    pub before: Option<(Time, SessionId)>,
    /// At most so many.
    pub limit: u32,
}

/// An API key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The public part, by which it is found.
    pub id: String,
    /// `public` | `private`.
    pub kind: String,
    /// What its owner calls it.
    pub name: String,
    /// SHA-256 of the secret part.
    pub hash: Vec<u8>,
    /// When it was made.
    pub created_at: Time,
    /// When it stopped working.
    pub revoked_at: Option<Time>,
}

impl KeyRecord {
    /// Whether it was not revoked.
    pub fn works(&self) -> bool {
        self.revoked_at.is_none()
    }
}

/// Who this deployment is. All replicas on one store share it.
#[derive(Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Short random id.
    pub id: String,
    /// What session tokens are signed with.
    pub secret: Vec<u8>,
}

/// A failed call to the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not do it.
    #[error("the store could not {doing}")]
    Database {
        /// What was attempted.
        doing: &'static str,
        /// The database's own words.
        #[source]
        source: sqlx::Error,
    },
    /// The database could not be brought to this version's shape.
    #[error("the store could not be migrated")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A row holds what this version cannot read.
    #[error("session {id} cannot be read from the store: {detail}")]
    BadRow {
        /// Its id.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Where sessions are kept.
#[async_trait]
pub trait Store: Send + Sync {
    /// Inserts a session unless a cap or an earlier use of its start key stands against it.
    /// All in one transaction: two starts at once cannot both take the last place.
    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError>;

    /// The session of this id.
    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError>;

    /// Replaces the row if it still is at version `expected`.
    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError>;

    /// The ids of all sessions that have not ended.
    async fn living(&self) -> Result<Vec<SessionId>, StoreError>;

    /// A page of sessions, newest first.
    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError>;

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
