//! A session comes in, moves on, and is forgotten in the end.

use callbox_core::{Session, SessionId, Time};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::{
    super::{
        Inserted, NewSession, Saved, StartKey, StoreError, Versioned,
        caps::{Living, in_the_way},
        row::{Row, to_row},
        types::doing,
    },
    read,
};

const DOING: &str = "insert a session";

/// Held while the living are counted and one is added, so that caps hold for all replicas
/// together. The number means nothing; nobody else uses it.
const STARTS: i64 = 0x6361_6c6c_0001;

/// Held while old sessions are removed; just as meaningless.
const PRUNING: i64 = 0x6361_6c6c_0003;

/// See [`Store::insert`](super::Store::insert).
pub(super) async fn insert(
    connection: &mut PgConnection,
    new: &NewSession,
) -> Result<Inserted, StoreError> {
    let err = doing(DOING);
    let mut tx = connection.begin().await.map_err(&err)?;
    // In a statement of its own: what the next one sees is from after it.
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(STARTS)
        .execute(&mut *tx)
        .await
        .map_err(&err)?;
    if let Some(key) = &new.start_key
        && let Some(earlier) = bought(&mut tx, key).await?
    {
        return Ok(earlier);
    }
    // The sums of many are a wider number than their parts.
    let (total, of_bot, queued) = sqlx::query_as(
        "select coalesce(sum(total), 0)::bigint,
             coalesce(sum(total) filter (where bot = $1), 0)::bigint,
             coalesce(sum(queued), 0)::bigint
         from living",
    )
    .bind(&new.session.bot)
    .fetch_one(&mut *tx)
    .await
    .map_err(&err)?;
    if let Some(refusal) = in_the_way(new, Living { total, of_bot, queued }) {
        return Ok(refusal);
    }
    let replica = Some(&new.replica).filter(|id| !id.is_empty());
    add(&mut tx, new, &to_row(&new.session), replica).await.map_err(&err)?;
    tx.commit().await.map_err(&err)?;
    let (session, replica) = (new.session.clone(), replica.cloned());
    Ok(Inserted::Created(Versioned { session, version: 1, replica }))
}

/// What this key bought before, if anything.
async fn bought(
    tx: &mut Transaction<'_, Postgres>,
    key: &StartKey,
) -> Result<Option<Inserted>, StoreError> {
    let earlier: Option<(String, Uuid)> =
        sqlx::query_as("select body_hash, session_id from start_key where scope = $1 and key = $2")
            .bind(&key.scope)
            .bind(&key.key)
            .fetch_optional(&mut **tx)
            .await
            .map_err(doing(DOING))?;
    let Some((body_hash, id)) = earlier else { return Ok(None) };
    if body_hash != key.body_hash {
        return Ok(Some(Inserted::KeyReused));
    }
    // A key goes with its session, so the session is there.
    Ok(read::one(tx, SessionId(id)).await?.map(Inserted::Existing))
}

/// Session, labels and start key in one statement, so one way there and back.
async fn add(
    tx: &mut Transaction<'_, Postgres>,
    new: &NewSession,
    row: &Row,
    replica: Option<&String>,
) -> Result<(), sqlx::Error> {
    let (keys, values): (Vec<&String>, Vec<&String>) = new.session.labels.iter().unzip();
    let start_key = new.start_key.as_ref();
    sqlx::query(
        "with session_added as (
             insert into session (id, version, replica, place, bot, state, created_at, deadline_at,
                                  ended_at, end_code, outcome, doc)
             values ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ), labels_added as (
             insert into label (session_id, key, value, created_at)
             select $1, key, value, $6 from unnest($12::text[], $13::text[]) as given (key, value)
         )
         insert into start_key (scope, key, body_hash, session_id)
         select $14, $15, $16, $1 where $14 is not null",
    )
    .bind(new.session.id.0)
    .bind(replica)
    .bind(&row.place)
    .bind(&row.bot)
    .bind(&row.state)
    .bind(row.created_at)
    .bind(row.deadline_at)
    .bind(row.ended_at)
    .bind(row.end_code)
    .bind(row.outcome)
    .bind(&row.doc)
    .bind(keys)
    .bind(values)
    .bind(start_key.map(|key| &key.scope))
    .bind(start_key.map(|key| &key.key))
    .bind(start_key.map(|key| &key.body_hash))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// See [`Store::save`](super::Store::save).
pub(super) async fn save(
    connection: &mut PgConnection,
    session: &Session,
    expected: i64,
) -> Result<Saved, StoreError> {
    let row = to_row(session);
    let done = sqlx::query(
        "update session set version = version + 1, place = $3, state = $4, deadline_at = $5,
             ended_at = $6, end_code = $7, outcome = $8, doc = $9
         where id = $1 and version = $2",
    )
    .bind(session.id.0)
    .bind(expected)
    .bind(&row.place)
    .bind(&row.state)
    .bind(row.deadline_at)
    .bind(row.ended_at)
    .bind(row.end_code)
    .bind(row.outcome)
    .bind(&row.doc)
    .execute(connection)
    .await
    .map_err(doing("save a session"))?;
    Ok(if done.rows_affected() == 1 { Saved::Saved(expected + 1) } else { Saved::Conflict })
}

/// See [`Store::prune`](super::Store::prune). One replica does it, the others have nothing to do.
pub(super) async fn prune(
    connection: &mut PgConnection,
    before: Time,
    limit: u32,
) -> Result<Vec<SessionId>, StoreError> {
    let err = doing("remove old sessions");
    let mut tx = connection.begin().await.map_err(&err)?;
    let lock = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)").bind(PRUNING);
    let alone: bool = lock.fetch_one(&mut *tx).await.map_err(&err)?;
    if !alone {
        return Ok(Vec::new());
    }
    let ids: Vec<(Uuid,)> = sqlx::query_as(
        "delete from session where id in (
             select id from session where ended_at < $1 order by ended_at limit $2)
         returning id",
    )
    .bind(before.as_micros())
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await
    .map_err(&err)?;
    tx.commit().await.map_err(&err)?;
    Ok(ids.into_iter().map(|(id,)| SessionId(id)).collect())
}
