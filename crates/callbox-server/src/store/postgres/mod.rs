//! The store in PostgreSQL: what several dispatchers share.
//!
//! A database that is away, or cut off so that nothing comes back, gives an error within seconds,
//! never a call that hangs: see `connection`.

mod connection;
mod hints;
mod keys;
mod lease;
mod read;
mod start;

use std::time::Duration;

use async_trait::async_trait;
use callbox_core::{Session, SessionId, Time};
use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::sync::broadcast;

use super::{
    Deployment, Filter, Inserted, KeyRecord, NewSession, Replica, Saved, Store, StoreError,
    Versioned,
    types::{cannot_migrate, doing},
    unreadable::Unreadable,
};
use connection::{Broke, PATIENCE, lend, within};
use hints::Hints;

/// How long bringing the tables to our shape may take: indices over many rows do.
const MIGRATION: Duration = Duration::from_secs(3600);

/// How many calls are made at once, beside the word that we live.
const CONNECTIONS: u32 = 10;

/// A store in a PostgreSQL database.
#[derive(Clone, Debug)]
pub struct Postgres {
    pool: PgPool,
    /// For saying that we live, which waits for nobody's saves: who says it late is taken over.
    life: PgPool,
    broke: Broke,
    hints: Hints,
    unreadable: Unreadable,
}

/// Does something with a connection, or gives up in time.
macro_rules! ask {
    ($store:expr, $doing:expr, $connection:ident => $work:expr) => {
        ask!($store, pool, $doing, $connection => $work)
    };
    ($store:expr, $pool:ident, $doing:expr, $connection:ident => $work:expr) => {
        within(PATIENCE, $doing, async {
            let mut $connection = lend(&$store.$pool, $doing).await?;
            let done = $work.await;
            $connection.give_back();
            done
        })
        .await
        .inspect_err(|error| {
            $store.broke.by(error);
        })
    };
}

/// The same for what only reads: when the connection turns out to be broken, as after a restart of
/// the database, it is asked again with another one.
macro_rules! look {
    ($store:expr, $doing:expr, $connection:ident => $work:expr) => {
        match ask!($store, $doing, $connection => $work) {
            Err(error) if $store.broke.by(&error) => ask!($store, $doing, $connection => $work),
            done => done,
        }
    };
}

impl Postgres {
    /// Connects, and brings the database to this version's shape: one replica at a time, the
    /// others wait.
    ///
    /// # Errors
    /// When it cannot be reached, does not let us in, or was used by a newer version.
    pub async fn open(options: PgConnectOptions) -> Result<Postgres, StoreError> {
        let options = options.application_name("callbox");
        migrate(&options).await?;
        let hints = Hints::begin(&options);
        let broke = Broke::default();
        let pool = connection::pool(options.clone(), CONNECTIONS, broke.clone());
        let life = connection::pool(options, 1, broke.clone());
        Ok(Postgres { pool, life, broke, hints, unreadable: Unreadable::default() })
    }
}

async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
    const DOING: &str = "be reached";
    // A connection that cannot be made says why; a pool only says that it waited.
    within(PATIENCE, DOING, async {
        let connection = PgConnection::connect_with(options).await.map_err(doing(DOING))?;
        connection.close().await.map_err(doing(DOING))
    })
    .await?;
    let pool = connection::patient(options.clone());
    let migrations = sqlx::migrate!("src/store/migrations/postgres");
    let done = within(MIGRATION, "be migrated", async {
        migrations.run(&pool).await.map_err(|error| cannot_migrate(error, &migrations))
    })
    .await;
    pool.close().await;
    done
}

#[async_trait]
impl Store for Postgres {
    fn can_be_shared(&self) -> bool {
        true
    }

    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError> {
        let inserted = ask!(self, "insert a session", c => start::insert(&mut c, new))?;
        if let Inserted::Created(row) = &inserted {
            self.hints.tell(row.session.id);
        }
        Ok(inserted)
    }

    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError> {
        let read = look!(self, "read a session", c => read::one(&mut c, id));
        read.inspect_err(|error| self.unreadable.note(error))
    }

    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError> {
        let saved = ask!(self, "save a session", c => start::save(&mut c, session, expected))?;
        if let Saved::Saved(_) = saved {
            self.hints.tell(session.id);
        }
        Ok(saved)
    }

    async fn living(&self) -> Result<Vec<SessionId>, StoreError> {
        look!(self, "list the living sessions", c => read::living(&mut c))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError> {
        look!(self, "list sessions", c => read::list(&mut c, filter, &self.unreadable))
    }

    async fn beat(&self, replica: &Replica) -> Result<(), StoreError> {
        ask!(self, life, "note that this replica lives", c => lease::beat(&mut c, replica))
    }

    async fn replicas(&self, within_span: Duration) -> Result<Vec<Replica>, StoreError> {
        look!(self, "list the replicas", c => lease::replicas(&mut c, within_span))
    }

    async fn take_over(
        &self,
        replica: &Replica,
        silence: Duration,
        lost: Duration,
        limit: u32,
    ) -> Result<Vec<Versioned>, StoreError> {
        let patience = lease::Patience { silence, lost };
        let taken = ask!(self, "take sessions over", c => {
            lease::take_over(&mut c, &self.unreadable, replica, patience, limit)
        })?;
        for row in &taken {
            self.hints.tell(row.session.id);
        }
        Ok(taken)
    }

    async fn driven(&self, replica: &str) -> Result<Vec<SessionId>, StoreError> {
        look!(self, "list a replica's sessions", c => lease::driven(&mut c, replica))
    }

    async fn retire(&self, replica: &str) -> Result<(), StoreError> {
        ask!(self, "retire a replica", c => lease::retire(&mut c, replica))
    }

    fn changes(&self) -> broadcast::Receiver<SessionId> {
        self.hints.listen()
    }

    async fn versions(
        &self,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError> {
        look!(self, "look at versions", c => read::versions(&mut c, ids))
    }

    async fn prune(&self, before: Time, limit: u32) -> Result<Vec<SessionId>, StoreError> {
        ask!(self, "remove old sessions", c => start::prune(&mut c, before, limit))
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        look!(self, "read who this deployment is", c => keys::deployment(&mut c))
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        ask!(self, "keep an API key", c => keys::add(&mut c, key))
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        look!(self, "read an API key", c => keys::one(&mut c, id))
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        look!(self, "list API keys", c => keys::all(&mut c))
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool, StoreError> {
        ask!(self, "revoke an API key", c => keys::revoke(&mut c, id, now))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        look!(self, "answer", c => async { c.ping().await.map_err(doing("answer")) })
    }
}
