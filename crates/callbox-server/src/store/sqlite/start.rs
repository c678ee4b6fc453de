//! A session comes in, and moves on.

use callbox_core::Session;
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::{
    super::{
        Inserted, NewSession, Saved, StartKey, StoreError, Versioned,
        caps::{Living, in_the_way},
        row::to_row,
        types::doing,
    },
    read,
};

const DOING: &str = "insert a session";

const BOUGHT: &str = "select body_hash, session_id from start_key where scope = ? and key = ?";

const COUNT: &str = "
    select coalesce(sum(total), 0), coalesce(sum(iif(bot = ?, total, 0)), 0),
        coalesce(sum(queued), 0)
    from living";

const INSERT: &str = "
    insert into session (id, version, replica, place, bot, state, created_at, deadline_at, ended_at,
                         end_code, outcome, doc)
    values (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

const SAVE: &str = "
    update session set version = version + 1, place = ?, state = ?, deadline_at = ?, ended_at = ?,
        end_code = ?, outcome = ?, doc = ?
    where id = ? and version = ?";

/// What a start and a save ask for, for a look at how that is found.
#[cfg(test)]
pub(super) const ASKED: [&str; 4] = [BOUGHT, COUNT, INSERT, SAVE];

/// See [`Store::insert`](super::Store::insert).
pub(super) async fn insert(pool: &SqlitePool, new: &NewSession) -> Result<Inserted, StoreError> {
    let err = doing(DOING);
    // Immediate: the write lock is taken before anything is read, so nothing read changes.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(&err)?;
    if let Some(key) = &new.start_key
        && let Some(earlier) = bought(&mut tx, key).await?
    {
        return Ok(earlier);
    }
    let living = sqlx::query_as(COUNT).bind(&new.session.bot).fetch_one(&mut *tx).await;
    let (total, of_bot, queued) = living.map_err(&err)?;
    if let Some(refusal) = in_the_way(new, Living { total, of_bot, queued }) {
        return Ok(refusal);
    }
    let row = to_row(&new.session);
    let replica = Some(&new.replica).filter(|id| !id.is_empty());
    sqlx::query(INSERT)
        .bind(&row.id)
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
        .execute(&mut *tx)
        .await
        .map_err(&err)?;
    for (key, value) in &new.session.labels {
        let label = "insert into label (session_id, key, value, created_at) values (?, ?, ?, ?)";
        let label = sqlx::query(label).bind(&row.id).bind(key).bind(value).bind(row.created_at);
        label.execute(&mut *tx).await.map_err(&err)?;
    }
    if let Some(StartKey { scope, key, body_hash }) = &new.start_key {
        let keep = "insert into start_key (scope, key, body_hash, session_id) values (?, ?, ?, ?)";
        let keep = sqlx::query(keep).bind(scope).bind(key).bind(body_hash).bind(&row.id);
        keep.execute(&mut *tx).await.map_err(&err)?;
    }
    tx.commit().await.map_err(&err)?;
    let (session, replica) = (new.session.clone(), replica.cloned());
    Ok(Inserted::Created(Versioned { session, version: 1, replica }))
}

/// What this key bought before, if anything.
async fn bought(
    tx: &mut Transaction<'_, Sqlite>,
    key: &StartKey,
) -> Result<Option<Inserted>, StoreError> {
    let earlier: Option<(String, String)> = sqlx::query_as(BOUGHT)
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
    Ok(read::one(&mut **tx, &id).await?.map(Inserted::Existing))
}

/// See [`Store::save`](super::Store::save).
pub(super) async fn save(
    pool: &SqlitePool,
    session: &Session,
    expected: i64,
) -> Result<Saved, StoreError> {
    let row = to_row(session);
    let done = sqlx::query(SAVE)
        .bind(&row.place)
        .bind(&row.state)
        .bind(row.deadline_at)
        .bind(row.ended_at)
        .bind(row.end_code)
        .bind(row.outcome)
        .bind(&row.doc)
        .bind(&row.id)
        .bind(expected)
        .execute(pool)
        .await
        .map_err(doing("save a session"))?;
    Ok(if done.rows_affected() == 1 { Saved::Saved(expected + 1) } else { Saved::Conflict })
}
