//! The store in one SQLite file: what a laptop and a single host need.

use std::{path::Path, str::FromStr, time::Duration};

use async_trait::async_trait;
use callbox_core::{Session, SessionId, State, Time};
use sqlx::{
    Connection as _, Row as _, SqliteConnection, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::{
    Deployment, Filter, Inserted, KeyRecord, NewSession, Saved, Store, StoreError, Versioned,
    row::{Row, from_row, to_row},
};

/// A store in an SQLite file.
#[derive(Clone, Debug)]
pub struct Sqlite {
    pool: SqlitePool,
}

/// Maps a database error to what was attempted.
fn doing(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |source| StoreError::Database { doing, source }
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
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .after_release(|connection, _| Box::pin(is_usable(connection)))
            .connect_with(options)
            .await
            .map_err(doing("open its file"))?;
        sqlx::migrate!("src/store/migrations").run(&pool).await.map_err(StoreError::Migrate)?;
        Ok(Sqlite { pool })
    }
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

const COLUMNS: &str = "id, version, bot, state, created_at, deadline_at, ended_at, doc";

#[async_trait]
impl Store for Sqlite {
    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError> {
        let err = doing("insert a session");
        // Immediate: the write lock is taken before anything is read, so nothing read changes.
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(&err)?;
        if let Some(key) = &new.start_key {
            let earlier: Option<(String, String)> = sqlx::query_as(
                "select body_hash, session_id from start_key where scope = ? and key = ?",
            )
            .bind(&key.scope)
            .bind(&key.key)
            .fetch_optional(&mut *tx)
            .await
            .map_err(&err)?;
            if let Some((body_hash, id)) = earlier {
                if body_hash != key.body_hash {
                    return Ok(Inserted::KeyReused);
                }
                let row = sqlx::query(sqlx::AssertSqlSafe(format!(
                    "select {COLUMNS} from session where id = ?"
                )))
                .bind(&id)
                .fetch_one(&mut *tx)
                .await
                .map_err(&err)?;
                return versioned(row).map(Inserted::Existing);
            }
        }
        let (total, of_bot, waiting): (i64, i64, i64) = sqlx::query_as(
            "select count(*), coalesce(sum(bot = ?), 0), coalesce(sum(state = 'queued'), 0)
             from session where ended_at is null",
        )
        .bind(&new.session.bot)
        .fetch_one(&mut *tx)
        .await
        .map_err(&err)?;
        if total >= i64::from(new.total_cap) {
            return Ok(Inserted::AtCapacity { bot: None, cap: new.total_cap });
        }
        if of_bot >= i64::from(new.bot_cap) {
            let bot = Some(new.session.bot.clone());
            return Ok(Inserted::AtCapacity { bot, cap: new.bot_cap });
        }
        if new.session.state == State::Queued && waiting >= i64::from(new.queue_cap) {
            return Ok(Inserted::QueueFull { cap: new.queue_cap });
        }
        let row = to_row(&new.session);
        sqlx::query(
            "insert into session (id, version, bot, state, created_at, deadline_at, ended_at, doc)
             values (?, 1, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&row.id)
        .bind(&row.bot)
        .bind(&row.state)
        .bind(row.created_at)
        .bind(row.deadline_at)
        .bind(row.ended_at)
        .bind(&row.doc)
        .execute(&mut *tx)
        .await
        .map_err(&err)?;
        if let Some(key) = &new.start_key {
            sqlx::query(
                "insert into start_key (scope, key, body_hash, session_id) values (?, ?, ?, ?)",
            )
            .bind(&key.scope)
            .bind(&key.key)
            .bind(&key.body_hash)
            .bind(&row.id)
            .execute(&mut *tx)
            .await
            .map_err(&err)?;
        }
        tx.commit().await.map_err(&err)?;
        Ok(Inserted::Created(Versioned { session: new.session.clone(), version: 1 }))
    }

    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError> {
        let sql = sqlx::AssertSqlSafe(format!("select {COLUMNS} from session where id = ?"));
        let row = sqlx::query(sql)
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(doing("read a session"))?;
        row.map(versioned).transpose()
    }

    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError> {
        let row = to_row(session);
        let done = sqlx::query(
            "update session set version = version + 1, state = ?, deadline_at = ?, ended_at = ?, doc = ?
             where id = ? and version = ?",
        )
        .bind(&row.state)
        .bind(row.deadline_at)
        .bind(row.ended_at)
        .bind(&row.doc)
        .bind(&row.id)
        .bind(expected)
        .execute(&self.pool)
        .await
        .map_err(doing("save a session"))?;
        Ok(if done.rows_affected() == 1 { Saved::Saved(expected + 1) } else { Saved::Conflict })
    }

    async fn living(&self) -> Result<Vec<SessionId>, StoreError> {
        let ids: Vec<(String,)> = sqlx::query_as("select id from session where ended_at is null")
            .fetch_all(&self.pool)
            .await
            .map_err(doing("list the living sessions"))?;
        Ok(ids.iter().filter_map(|(id,)| SessionId::parse(id)).collect())
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError> {
        let Filter { bot, state, living, before, limit } = filter;
        let (before_at, before_id) = match before {
            Some((at, id)) => (at.as_micros(), id.to_string()),
            None => (i64::MAX, String::new()),
        };
        // `not living or ended_at is null` lets one statement serve both; lists are for people.
        let sql = sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from session
             where (created_at, id) < (?1, ?2)
               and (?3 is null or bot = ?3) and (?4 is null or state = ?4)
               and (not ?5 or ended_at is null)
             order by created_at desc, id desc limit ?6"
        ));
        let rows = sqlx::query(sql)
            .bind(before_at)
            .bind(before_id)
            .bind(bot)
            .bind(state.map(|state| state.as_str()))
            .bind(*living)
            .bind(*limit)
            .fetch_all(&self.pool)
            .await
            .map_err(doing("list sessions"))?;
        rows.into_iter().map(versioned).collect()
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        let err = doing("read who this deployment is");
        let fresh = uuid::Uuid::new_v4().simple().to_string();
        let secret = crate::random::bytes();
        sqlx::query("insert or ignore into deployment (only_row, id, secret) values (1, ?, ?)")
            .bind(&fresh[..8])
            .bind(secret.as_slice())
            .execute(&self.pool)
            .await
            .map_err(&err)?;
        let (id, secret) = sqlx::query_as("select id, secret from deployment")
            .fetch_one(&self.pool)
            .await
            .map_err(&err)?;
        Ok(Deployment { id, secret })
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        sqlx::query(
            "insert into api_key (id, kind, name, hash, created_at, revoked_at) values (?, ?, ?, ?, ?, ?)",
        )
        .bind(&key.id)
        .bind(&key.kind)
        .bind(&key.name)
        .bind(&key.hash)
        .bind(key.created_at.as_micros())
        .bind(key.revoked_at.map(Time::as_micros))
        .execute(&self.pool)
        .await
        .map_err(doing("keep an API key"))?;
        Ok(())
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        let row = sqlx::query(
            "select id, kind, name, hash, created_at, revoked_at from api_key where id = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .map_err(doing("read an API key"))?;
        row.map(key_record).transpose()
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let rows = sqlx::query(
            "select id, kind, name, hash, created_at, revoked_at from api_key order by created_at",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(doing("list API keys"))?;
        rows.into_iter().map(key_record).collect()
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool, StoreError> {
        let done =
            sqlx::query("update api_key set revoked_at = ? where id = ? and revoked_at is null")
                .bind(now.as_micros())
                .bind(id)
                .execute(&self.pool)
                .await
                .map_err(doing("revoke an API key"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("select 1").execute(&self.pool).await.map_err(doing("answer"))?;
        Ok(())
    }
}

fn versioned(row: SqliteRow) -> Result<Versioned, StoreError> {
    let err = doing("read a session's columns");
    let id: String = row.try_get("id").map_err(&err)?;
    let columns = Row {
        id: id.clone(),
        bot: row.try_get("bot").map_err(&err)?,
        state: row.try_get("state").map_err(&err)?,
        created_at: row.try_get("created_at").map_err(&err)?,
        deadline_at: row.try_get("deadline_at").map_err(&err)?,
        ended_at: row.try_get("ended_at").map_err(&err)?,
        doc: row.try_get("doc").map_err(&err)?,
    };
    let version = row.try_get("version").map_err(&err)?;
    let session = from_row(columns).map_err(|detail| StoreError::BadRow { id, detail })?;
    Ok(Versioned { session, version })
}

fn key_record(row: SqliteRow) -> Result<KeyRecord, StoreError> {
    let err = doing("read an API key's columns");
    let revoked_at: Option<i64> = row.try_get("revoked_at").map_err(&err)?;
    Ok(KeyRecord {
        id: row.try_get("id").map_err(&err)?,
        kind: row.try_get("kind").map_err(&err)?,
        name: row.try_get("name").map_err(&err)?,
        hash: row.try_get("hash").map_err(&err)?,
        created_at: Time::from_micros(row.try_get("created_at").map_err(&err)?),
        revoked_at: revoked_at.map(Time::from_micros),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_transaction_that_sqlite_ended_by_itself_spoils_no_connection() {
        let dir = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&dir.path().join("callbox.db")).await.unwrap();
        for _ in 0..8 {
            let mut tx = store.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            sqlx::query("rollback").execute(&mut *tx).await.unwrap();
        }
    }
}
