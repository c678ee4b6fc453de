//! What the store is told, and what it tells.

use std::time::Duration;

use callbox_core::{EndCode, Outcome, Session, SessionId, StateKind, Time};
use sqlx::migrate::{MigrateError, Migrator};

/// How many hints a reader of `Store::changes` may be behind.
pub(super) const HINTS: usize = 1024;

/// A session, the version it was read at, and who drives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    /// The session.
    pub session: Session,
    /// Goes up by one with every save and every take-over.
    pub version: i64,
    /// Id of the replica that drives it; none where it has none.
    pub replica: Option<String>,
}

/// One running dispatcher, as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its own. A dispatcher that starts again in the same data directory has the same.
    pub id: String,
    /// Whose machines it reaches beside those that every replica does; empty for no others.
    pub place: String,
    /// Where the other replicas reach it; empty where they cannot.
    pub url: String,
}

/// A session to insert, and what must hold for it.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The session.
    pub session: Session,
    /// Id of the replica that drives it from the beginning; empty: nobody does yet.
    pub replica: String,
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
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// Only those that end or ended for this reason.
    pub code: Option<EndCode>,
    /// Only those that were accepted then or later.
    pub since: Option<Time>,
    /// Only those that were accepted before.
    pub until: Option<Time>,
    /// Only those with all of these labels: key and value.
    pub labels: Vec<(String, String)>,
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
    /// The database did not do it, or did it and could not say so.
    #[error("the store could not {doing}")]
    Database {
        /// What was attempted.
        doing: &'static str,
        /// The database's own words.
        #[source]
        source: sqlx::Error,
    },
    /// The database said nothing in time. It may have done it.
    #[error("the store said nothing for {} s when it was to {doing}", after.as_secs())]
    Silent {
        /// What was attempted.
        doing: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The database could not be brought to this version's shape.
    #[error("the store could not be migrated")]
    Migrate(#[source] MigrateError),
    /// A newer callbox has been at work on it.
    #[error(
        "the store has version {found} of its tables, and this callbox knows them up to version \
         {known}: a newer callbox has used it; run that one or a newer one"
    )]
    Newer {
        /// What is there.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// A row holds what this version cannot read.
    #[error("session {id} cannot be read from the store: {detail}")]
    BadRow {
        /// Its id.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl StoreError {
    /// The store did not answer; it may have done what was asked.
    pub fn unanswered(doing: &'static str) -> StoreError {
        StoreError::Database { doing, source: sqlx::Error::PoolTimedOut }
    }
}

/// Maps a database error to what was attempted.
pub(super) fn doing(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { doing, source }
}

/// Why a database is not in our shape.
pub(super) fn cannot_migrate(error: MigrateError, ours: &Migrator) -> StoreError {
    let known = ours.iter().map(|migration| migration.version).max().unwrap_or(0);
    match error {
        MigrateError::VersionMissing(found) => StoreError::Newer { found, known },
        error => StoreError::Migrate(error),
    }
}
