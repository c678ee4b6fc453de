//! The store in one SQLite file: what a laptop and a single host need.

mod keys;
mod lease;
mod read;
mod start;

use std::{path::Path, str::FromStr, time::Duration};

use async_trait::async_trait;
use callbox_core::{Session, SessionId, Time};
use sqlx::{
    Connection as _, SqliteConnection, SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::broadcast;

use super::{
    Deployment, Filter, Inserted, KeyRecord, NewSession, Replica, Saved, Store, StoreError,
    Versioned,
    types::{HINTS, cannot_migrate, doing},
    unreadable::Unreadable,
};

/// A store in an SQLite file.
#[derive(Clone, Debug)]
pub struct Sqlite {
    /// For reading: readers wait for nobody.
    pool: SqlitePool,
    /// For writing. SQLite lets one write at a time, and whoever finds another at it sleeps and
    /// looks again; with one connection they stand in a line instead.
    writer: SqlitePool,
    changes: broadcast::Sender<SessionId>,
    unreadable: Unreadable,
}

impl Sqlite {
    /// Opens the file, makes it if it is not there, and brings it to this version's shape.
    ///
    /// # Errors
    /// When it cannot be opened, is no database, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Sqlite, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite:")
            .map_err(doing("open its file"))?
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL, NORMAL survives every crash of the process; a power cut may lose the
            // last writes, and takes the machines of this host with it.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let connect = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .after_release(|connection, _| Box::pin(is_usable(connection)))
                .connect_with(options.clone())
        };
        let writer = connect(1).await.map_err(doing("open its file"))?;
        migrate(&writer).await?;
        let pool = connect(4).await.map_err(doing("open its file"))?;
        let (changes, unreadable) = (broadcast::Sender::new(HINTS), Unreadable::default());
        Ok(Sqlite { pool, writer, changes, unreadable })
    }

    /// Says that this session was saved. Nobody may be listening.
    fn tell(&self, id: SessionId) {
        let _ = self.changes.send(id);
    }
}

/// Brings the file to this version's shape.
async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let migrations = sqlx::migrate!("src/store/migrations/sqlite");
    let done = match migrations.run(pool).await {
        // Somebody else (`callbox keys` beside a dispatcher) may have done it at the same time.
        Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..)) => {
            migrations.run(pool).await
        }
        done => done,
    };
    done.map_err(|error| cannot_migrate(error, &migrations))
}

/// Whether a connection can go back to the others. A full disk makes SQLite roll back by itself;
/// sqlx does not hear of that and believes the connection in a transaction from then on.
async fn is_usable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // A rollback may be under way; the answer comes after it.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

#[async_trait]
impl Store for Sqlite {
    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError> {
        let inserted = start::insert(&self.writer, new).await?;
        if let Inserted::Created(row) = &inserted {
            self.tell(row.session.id);
        }
        Ok(inserted)
    }

    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError> {
        let read = read::one(&self.pool, &id.to_string()).await;
        read.inspect_err(|error| self.unreadable.note(error))
    }

    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError> {
        let saved = start::save(&self.writer, session, expected).await?;
        if let Saved::Saved(_) = saved {
            self.tell(session.id);
        }
        Ok(saved)
    }

    async fn living(&self) -> Result<Vec<SessionId>, StoreError> {
        read::living(&self.pool).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError> {
        read::list(&self.pool, filter, &self.unreadable).await
    }

    async fn beat(&self, replica: &Replica) -> Result<(), StoreError> {
        lease::beat(&self.writer, replica).await
    }

    async fn replicas(&self, within: Duration) -> Result<Vec<Replica>, StoreError> {
        lease::replicas(&self.pool, within).await
    }

    async fn take_over(
        &self,
        replica: &Replica,
        silence: Duration,
        lost: Duration,
        limit: u32,
    ) -> Result<Vec<Versioned>, StoreError> {
        let (pool, writer) = (&self.pool, &self.writer);
        let taken = lease::take_over(pool, writer, &self.unreadable, replica, silence, lost, limit);
        let taken = taken.await?;
        for row in &taken {
            self.tell(row.session.id);
        }
        Ok(taken)
    }

    async fn driven(&self, replica: &str) -> Result<Vec<SessionId>, StoreError> {
        lease::driven(&self.pool, replica).await
    }

    async fn retire(&self, replica: &str) -> Result<(), StoreError> {
        lease::retire(&self.writer, replica).await
    }

    fn changes(&self) -> broadcast::Receiver<SessionId> {
        self.changes.subscribe()
    }

    async fn versions(
        &self,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError> {
        read::versions(&self.pool, ids).await
    }

    async fn prune(&self, before: Time, limit: u32) -> Result<Vec<SessionId>, StoreError> {
        let ids: Vec<(String,)> = sqlx::query_as(
            "delete from session where id in (
                 select id from session where ended_at < ? order by ended_at limit ?)
             returning id",
        )
        .bind(before.as_micros())
        .bind(limit)
        .fetch_all(&self.writer)
        .await
        .map_err(doing("remove old sessions"))?;
        Ok(ids.iter().filter_map(|(id,)| SessionId::parse(id)).collect())
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        keys::deployment(&self.writer).await
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        keys::add(&self.writer, key).await
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        keys::one(&self.pool, id).await
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        keys::all(&self.pool).await
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool, StoreError> {
        keys::revoke(&self.writer, id, now).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1").execute(&self.pool).await.map_err(doing("answer"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sqlx::{Executor as _, Row as _};

    use super::*;

    /// A start and a save must not become slower with every session that ever ended.
    #[tokio::test]
    async fn a_start_and_a_save_look_at_no_row_but_their_own_and_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("callbox.db")).await.unwrap();
        for sql in start::ASKED {
            let plan = format!("explain query plan {sql}");
            let steps = store.pool.fetch_all(sqlx::AssertSqlSafe(plan)).await.unwrap();
            for step in steps {
                let step: String = step.get("detail");
                let by = ["(id=?)", "(session_id=?)", "(scope=? AND key=?)"];
                // One row a bot.
                let of_the_living = step == "SCAN living";
                let found = step.starts_with("SEARCH") && by.iter().any(|by| step.contains(by));
                assert!(found || of_the_living, "{step:?} in {sql}");
            }
        }
    }

    /// A full disk, as SQLite sees it: no further page.
    #[tokio::test]
    async fn a_full_disk_loses_nothing_that_was_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("callbox.db")).await.unwrap();
        let pages = async |most: u32| {
            let pragma = format!("pragma max_page_count = {most}");
            store.writer.execute(sqlx::AssertSqlSafe(pragma)).await.unwrap();
        };
        pages(1).await;
        let mut kept = Vec::new();
        let key = |n: usize| KeyRecord {
            id: n.to_string(),
            kind: "public".into(),
            name: "x".repeat(1000),
            hash: vec![0; 32],
            created_at: Time::from_micros(0),
            revoked_at: None,
        };
        let full = loop {
            match store.add_key(&key(kept.len())).await {
                Ok(()) => kept.push(key(kept.len())),
                Err(error) => break error,
            }
            assert!(kept.len() < 1000, "it never becomes full");
        };
        assert!(std::error::Error::source(&full).unwrap().to_string().contains("full"), "{full:?}");
        store.add_key(&key(kept.len())).await.expect_err("still full");
        pages(u32::MAX - 1).await;
        store.add_key(&key(kept.len())).await.expect("there is room again");
        kept.push(key(kept.len()));
        assert_eq!(store.keys().await.unwrap().len(), kept.len());
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_ended_by_itself_spoils_no_connection() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("callbox.db")).await.unwrap();
        for _ in 0..8 {
            let mut tx = store.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
            sqlx::query("rollback").execute(&mut *tx).await.unwrap();
        }
    }
}
