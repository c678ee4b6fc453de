//! Who lives, and who drives what.

use std::time::Duration;

use callbox_core::SessionId;
use sqlx::{Connection as _, PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{
    super::{Replica, StoreError, Versioned, types::doing, unreadable::Unreadable},
    read::{self, COLUMNS},
};

/// This store's clock, in microseconds since the epoch.
const NOW: &str = "(extract(epoch from clock_timestamp()) * 1000000)::bigint";

/// For how long the last word of a replica is kept: far longer than anybody waits for it.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Held by whoever changes the drivers of several sessions: two at once would wait for each
/// other's rows. The number means nothing; nobody else uses it.
const DRIVERS: i64 = 0x6361_6c6c_0002;

/// For how long a driver may be silent, at this place and elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub silence: Duration,
    pub lost: Duration,
}

/// See [`Store::beat`](super::Store::beat).
pub(super) async fn beat(
    connection: &mut PgConnection,
    replica: &Replica,
) -> Result<(), StoreError> {
    let sql = format!(
        "with forgotten as (delete from replica where beat_at < {NOW} - $4 and id <> $1)
         insert into replica (id, place, url, beat_at) values ($1, $2, $3, {NOW})
         on conflict (id) do update
             set place = excluded.place, url = excluded.url, beat_at = excluded.beat_at"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(&replica.id)
        .bind(&replica.place)
        .bind(&replica.url)
        .bind(micros(KEPT))
        .execute(connection)
        .await
        .map_err(doing("note that this replica lives"))?;
    Ok(())
}

/// See [`Store::replicas`](super::Store::replicas).
pub(super) async fn replicas(
    connection: &mut PgConnection,
    within: Duration,
) -> Result<Vec<Replica>, StoreError> {
    let sql = format!(
        "select id, place, url from replica where beat_at > {NOW} - $1 order by id collate \"C\""
    );
    let rows: Vec<(String, String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(micros(within))
        .fetch_all(connection)
        .await
        .map_err(doing("list the replicas"))?;
    Ok(rows.into_iter().map(|(id, place, url)| Replica { id, place, url }).collect())
}

/// See [`Store::take_over`](super::Store::take_over).
pub(super) async fn take_over(
    connection: &mut PgConnection,
    unreadable: &Unreadable,
    replica: &Replica,
    patience: Patience,
    limit: u32,
) -> Result<Vec<Versioned>, StoreError> {
    let err = doing("take sessions over");
    // Mostly there are none, and nobody need wait for a lock to learn that.
    let mut any = without_driver("session.id", replica, patience);
    any.push(" limit 1");
    if any.build().fetch_optional(&mut *connection).await.map_err(&err)?.is_none() {
        return Ok(Vec::new());
    }
    let mut tx = connection.begin().await.map_err(&err)?;
    lock(&mut tx).await.map_err(&err)?;
    let mut taken: Vec<Versioned> = Vec::new();
    let mut after = None;
    loop {
        // A row that somebody saves at this moment is left for the next look.
        let missing = i64::from(limit) - i64::try_from(taken.len()).unwrap_or(i64::MAX);
        let mut some = without_driver(COLUMNS, replica, patience);
        if let Some((at, id)) = after {
            some.push(" and (created_at, session.id) > (").push_bind::<i64>(at);
            some.push(", ").push_bind::<Uuid>(id).push(")");
        }
        some.push(" order by created_at, session.id limit ").push_bind(missing);
        some.push(" for update of session skip locked");
        let rows = some.build().fetch_all(&mut *tx).await.map_err(&err)?;
        let full = i64::try_from(rows.len()) == Ok(missing);
        after = rows.last().and_then(read::place_in_list).map(|(at, id)| (at.as_micros(), id.0));
        for row in rows {
            // What we cannot read stays with whoever can.
            taken.extend(unreadable.pass_over(read::versioned(row))?);
        }
        if !full || taken.len() >= limit as usize {
            break;
        }
    }
    give(&mut tx, &mut taken, &replica.id).await.map_err(&err)?;
    tx.commit().await.map_err(&err)?;
    Ok(taken)
}

async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let lock = sqlx::query("select pg_advisory_xact_lock($1)").bind(DRIVERS);
    lock.execute(connection).await.map(drop)
}

/// Whom `replica` may take over. A driver that is not known was silent for longer than anything is
/// remembered.
fn without_driver(what: &str, replica: &Replica, patience: Patience) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(format!(
        "select {what} from session left join replica on replica.id = session.replica
         where ended_at is null and session.replica is distinct from "
    ));
    sql.push_bind(replica.id.clone());
    sql.push(" and (session.place in ('', ").push_bind(replica.place.clone());
    sql.push(format!(") and (session.replica is null or coalesce(beat_at, 0) <= {NOW} - "));
    sql.push_bind(micros(patience.silence));
    sql.push(format!(") or coalesce(beat_at, left_at, 0) <= {NOW} - "));
    sql.push_bind(micros(patience.lost)).push(")");
    sql
}

/// Makes `replica` the driver of these, whose rows are locked.
async fn give(
    connection: &mut PgConnection,
    taken: &mut [Versioned],
    replica: &str,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = taken.iter().map(|row| row.session.id.0).collect();
    sqlx::query(
        "update session set replica = $1, left_at = null, version = version + 1 where id = any($2)",
    )
    .bind(replica)
    .bind(ids)
    .execute(connection)
    .await?;
    for row in taken {
        row.version += 1;
        row.replica = Some(replica.to_owned());
    }
    Ok(())
}

/// See [`Store::driven`](super::Store::driven).
pub(super) async fn driven(
    connection: &mut PgConnection,
    replica: &str,
) -> Result<Vec<SessionId>, StoreError> {
    let ids: Vec<(Uuid,)> =
        sqlx::query_as("select id from session where ended_at is null and replica = $1")
            .bind(replica)
            .fetch_all(connection)
            .await
            .map_err(doing("list a replica's sessions"))?;
    Ok(ids.into_iter().map(|(id,)| SessionId(id)).collect())
}

/// See [`Store::retire`](super::Store::retire).
pub(super) async fn retire(connection: &mut PgConnection, replica: &str) -> Result<(), StoreError> {
    let err = doing("retire a replica");
    let mut tx = connection.begin().await.map_err(&err)?;
    lock(&mut tx).await.map_err(&err)?;
    let sql = format!(
        "update session set replica = null, left_at = {NOW}
         where ended_at is null and replica = $1"
    );
    let leave = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(replica);
    leave.execute(&mut *tx).await.map_err(&err)?;
    let gone = sqlx::query("delete from replica where id = $1").bind(replica);
    gone.execute(&mut *tx).await.map_err(&err)?;
    tx.commit().await.map_err(&err)
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}
