//! Reading sessions.

use callbox_core::{SessionId, Time};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::super::{
    Filter, StoreError, Versioned,
    list::{Dialect, Pages, page},
    row::{Row, from_row},
    types::doing,
    unreadable::Unreadable,
};

/// What [`versioned`] needs.
pub(super) const COLUMNS: &str = "session.id as id, version, session.replica as replica,
    session.place as place, bot, state, session.created_at as created_at, deadline_at, ended_at,
    doc";

const DIALECT: Dialect = Dialect { columns: COLUMNS, id: "::uuid", named: false };

/// The session of this id.
pub(super) async fn one(
    connection: &mut PgConnection,
    id: SessionId,
) -> Result<Option<Versioned>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("select {COLUMNS} from session where id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(connection).await;
    row.map_err(doing("read a session"))?.map(versioned).transpose()
}

/// The ids of all that have not ended.
pub(super) async fn living(connection: &mut PgConnection) -> Result<Vec<SessionId>, StoreError> {
    let ids: Vec<(Uuid,)> = sqlx::query_as("select id from session where ended_at is null")
        .fetch_all(connection)
        .await
        .map_err(doing("list the living sessions"))?;
    Ok(ids.into_iter().map(|(id,)| SessionId(id)).collect())
}

/// See [`Store::list`](super::Store::list).
pub(super) async fn list(
    connection: &mut PgConnection,
    filter: &Filter,
    unreadable: &Unreadable,
) -> Result<Vec<Versioned>, StoreError> {
    let mut pages = Pages::of(filter);
    let mut found = Vec::new();
    loop {
        let mut page = page::<sqlx::Postgres>(pages.wanted(), &DIALECT);
        let rows = page.build().fetch_all(&mut *connection).await;
        let rows = rows.map_err(doing("list sessions"))?;
        let (count, last) = (rows.len(), rows.last().and_then(place_in_list));
        for row in rows {
            found.extend(unreadable.pass_over(versioned(row))?);
        }
        if !pages.goes_on(count, last, &mut found) {
            return Ok(found);
        }
    }
}

pub(super) fn place_in_list(row: &PgRow) -> Option<(Time, SessionId)> {
    let at = row.try_get("created_at").ok()?;
    Some((Time::from_micros(at), SessionId(row.try_get("id").ok()?)))
}

/// See [`Store::versions`](super::Store::versions).
pub(super) async fn versions(
    connection: &mut PgConnection,
    ids: &[SessionId],
) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows: Vec<(Uuid, i64, Option<String>)> =
        sqlx::query_as("select id, version, replica from session where id = any($1)")
            .bind(ids)
            .fetch_all(connection)
            .await
            .map_err(doing("look at versions"))?;
    Ok(rows.into_iter().map(|(id, version, replica)| (SessionId(id), version, replica)).collect())
}

/// A row, read.
pub(super) fn versioned(row: PgRow) -> Result<Versioned, StoreError> {
    let err = doing("read a session's columns");
    let id: Uuid = row.try_get("id").map_err(&err)?;
    let columns = Row {
        id: id.to_string(),
        place: row.try_get("place").map_err(&err)?,
        bot: row.try_get("bot").map_err(&err)?,
        state: row.try_get("state").map_err(&err)?,
        created_at: row.try_get("created_at").map_err(&err)?,
        deadline_at: row.try_get("deadline_at").map_err(&err)?,
        ended_at: row.try_get("ended_at").map_err(&err)?,
        end_code: None,
        outcome: None,
        doc: row.try_get("doc").map_err(&err)?,
    };
    let version = row.try_get("version").map_err(&err)?;
    let replica = row.try_get("replica").map_err(&err)?;
    let bad = |detail| StoreError::BadRow { id: id.to_string(), detail };
    Ok(Versioned { session: from_row(columns).map_err(bad)?, version, replica })
}
