//! Who lives, and who drives what.

use std::time::Duration;

use callbox_core::SessionId;
use sqlx::{SqliteExecutor, SqlitePool};

use super::{
    super::{Replica, StoreError, Versioned, types::doing, unreadable::Unreadable},
    read,
};

/// This store's clock, in microseconds since the epoch.
const NOW: &str = "cast(unixepoch('subsec') * 1000000 as integer)";

/// For how long the last word of a replica is kept: far longer than anybody waits for it.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// See [`Store::beat`](super::Store::beat).
pub(super) async fn beat(pool: &SqlitePool, replica: &Replica) -> Result<(), StoreError> {
    let err = doing("note that this replica lives");
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(&err)?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "insert into replica (id, place, url, beat_at) values (?, ?, ?, {NOW})
         on conflict (id) do update set place = excluded.place, url = excluded.url, beat_at = {NOW}"
    )))
    .bind(&replica.id)
    .bind(&replica.place)
    .bind(&replica.url)
    .execute(&mut *tx)
    .await
    .map_err(&err)?;
    let forget = format!("delete from replica where beat_at < {NOW} - ?");
    let forget = sqlx::query(sqlx::AssertSqlSafe(forget)).bind(micros(KEPT));
    forget.execute(&mut *tx).await.map_err(&err)?;
    tx.commit().await.map_err(&err)
}

/// See [`Store::replicas`](super::Store::replicas).
pub(super) async fn replicas(
    pool: &SqlitePool,
    within: Duration,
) -> Result<Vec<Replica>, StoreError> {
    let sql = format!("select id, place, url from replica where beat_at > {NOW} - ? order by id");
    let rows: Vec<(String, String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(micros(within))
        .fetch_all(pool)
        .await
        .map_err(doing("list the replicas"))?;
    Ok(rows.into_iter().map(|(id, place, url)| Replica { id, place, url }).collect())
}

/// See [`Store::take_over`](super::Store::take_over).
pub(super) async fn take_over(
    pool: &SqlitePool,
    writer: &SqlitePool,
    unreadable: &Unreadable,
    replica: &Replica,
    silence: Duration,
    lost: Duration,
    limit: u32,
) -> Result<Vec<Versioned>, StoreError> {
    let err = doing("take sessions over");
    // Mostly there are none, and nobody need wait for the write lock to learn that.
    if without_driver(pool, replica, silence, lost).await.map_err(&err)?.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(&err)?;
    let mut taken = Vec::new();
    for (id,) in without_driver(&mut *tx, replica, silence, lost).await.map_err(&err)? {
        if taken.len() >= limit as usize {
            break;
        }
        // What we cannot read stays with whoever can.
        let row = read::one(&mut *tx, &id).await.transpose();
        let Some(row) = row.map(|row| unreadable.pass_over(row)).transpose()?.flatten() else {
            continue;
        };
        sqlx::query(
            "update session set replica = ?, left_at = null, version = version + 1 where id = ?",
        )
        .bind(&replica.id)
        .bind(&id)
        .execute(&mut *tx)
        .await
        .map_err(&err)?;
        let (version, replica) = (row.version + 1, Some(replica.id.clone()));
        taken.push(Versioned { session: row.session, version, replica });
    }
    tx.commit().await.map_err(&err)?;
    Ok(taken)
}

/// Whom `replica` may take over, oldest first. A driver that is not known was silent for longer
/// than anything is remembered.
async fn without_driver(
    connection: impl SqliteExecutor<'_>,
    replica: &Replica,
    silence: Duration,
    lost: Duration,
) -> Result<Vec<(String,)>, sqlx::Error> {
    let sql = format!(
        "select session.id from session indexed by session_driver
         left join replica on replica.id = session.replica
         where ended_at is null and session.replica is not ?1
           and (session.place in ('', ?2)
                and (session.replica is null or coalesce(beat_at, 0) <= {NOW} - ?3)
                or coalesce(beat_at, left_at, 0) <= {NOW} - ?4)
         order by created_at, session.id"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(&replica.id)
        .bind(&replica.place)
        .bind(micros(silence))
        .bind(micros(lost))
        .fetch_all(connection)
        .await
}

/// See [`Store::driven`](super::Store::driven).
pub(super) async fn driven(pool: &SqlitePool, replica: &str) -> Result<Vec<SessionId>, StoreError> {
    let ids: Vec<(String,)> = sqlx::query_as(
        "select id from session indexed by session_driver where ended_at is null and replica = ?",
    )
    .bind(replica)
    .fetch_all(pool)
    .await
    .map_err(doing("list a replica's sessions"))?;
    Ok(ids.iter().filter_map(|(id,)| SessionId::parse(id)).collect())
}

/// See [`Store::retire`](super::Store::retire).
pub(super) async fn retire(pool: &SqlitePool, replica: &str) -> Result<(), StoreError> {
    let err = doing("retire a replica");
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(&err)?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "update session indexed by session_driver set replica = null, left_at = {NOW}
         where ended_at is null and replica = ?"
    )))
    .bind(replica)
    .execute(&mut *tx)
    .await
    .map_err(&err)?;
    let gone = sqlx::query("delete from replica where id = ?").bind(replica);
    gone.execute(&mut *tx).await.map_err(&err)?;
    tx.commit().await.map_err(&err)
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
