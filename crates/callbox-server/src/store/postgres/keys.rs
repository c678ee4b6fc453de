//! API keys, and who this deployment is.

use callbox_core::Time;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::super::{Deployment, KeyRecord, StoreError, types::doing};

/// Who this deployment is; drawn by whoever asks first.
pub(super) async fn deployment(connection: &mut PgConnection) -> Result<Deployment, StoreError> {
    let err = doing("read who this deployment is");
    let fresh = uuid::Uuid::new_v4().simple().to_string();
    let secret = crate::random::bytes();
    sqlx::query(
        "insert into deployment (only_row, id, secret) values (1, $1, $2) on conflict do nothing",
    )
    .bind(&fresh[..8])
    .bind(secret.as_slice())
    .execute(&mut *connection)
    .await
    .map_err(&err)?;
    let (id, secret) = sqlx::query_as("select id, secret from deployment")
        .fetch_one(connection)
        .await
        .map_err(&err)?;
    Ok(Deployment { id, secret })
}

pub(super) async fn add(connection: &mut PgConnection, key: &KeyRecord) -> Result<(), StoreError> {
    sqlx::query(
        "insert into api_key (id, kind, name, hash, created_at, revoked_at) 
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&key.id)
    .bind(&key.kind)
    .bind(&key.name)
    .bind(&key.hash)
    .bind(key.created_at.as_micros())
    .bind(key.revoked_at.map(Time::as_micros))
    .execute(connection)
    .await
    .map_err(doing("keep an API key"))?;
    Ok(())
}

pub(super) async fn one(
    connection: &mut PgConnection,
    id: &str,
) -> Result<Option<KeyRecord>, StoreError> {
    let row = sqlx::query(
        "select id, kind, name, hash, created_at, revoked_at from api_key where id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(doing("read an API key"))?;
    row.map(key_record).transpose()
}

pub(super) async fn all(connection: &mut PgConnection) -> Result<Vec<KeyRecord>, StoreError> {
    let rows = sqlx::query(
        "select id, kind, name, hash, created_at, revoked_at from api_key order by created_at",
    )
    .fetch_all(connection)
    .await
    .map_err(doing("list API keys"))?;
    rows.into_iter().map(key_record).collect()
}

pub(super) async fn revoke(
    connection: &mut PgConnection,
    id: &str,
    now: Time,
) -> Result<bool, StoreError> {
    let done =
        sqlx::query("update api_key set revoked_at = $1 where id = $2 and revoked_at is null")
            .bind(now.as_micros())
            .bind(id)
            .execute(connection)
            .await
            .map_err(doing("revoke an API key"))?;
    Ok(done.rows_affected() == 1)
}

fn key_record(row: PgRow) -> Result<KeyRecord, StoreError> {
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
