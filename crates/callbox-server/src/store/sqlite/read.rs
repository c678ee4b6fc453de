//! Reading sessions.

use callbox_core::{SessionId, Time};
use sqlx::{Row as _, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::super::{
    Filter, StoreError, Versioned,
    list::{Dialect, Pages, page},
    row::{Row, from_row},
    types::doing,
    unreadable::Unreadable,
};

/// What [`versioned`] needs.
const COLUMNS: &str = "session.id as id, version, replica, place, bot, state,
    session.created_at as created_at, deadline_at, ended_at, doc";

const DIALECT: Dialect = Dialect { columns: COLUMNS, id: "", named: true };

/// The session of this id.
pub(super) async fn one(
    connection: impl SqliteExecutor<'_>,
    id: &str,
) -> Result<Option<Versioned>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("select {COLUMNS} from session where id = ?"));
    let row = sqlx::query(sql).bind(id).fetch_optional(connection).await;
    row.map_err(doing("read a session"))?.map(versioned).transpose()
}

/// The ids of all that have not ended.
pub(super) async fn living(pool: &SqlitePool) -> Result<Vec<SessionId>, StoreError> {
    let ids: Vec<(String,)> = sqlx::query_as(
        "select id from session indexed by session_newest_living where ended_at is null",
    )
    .fetch_all(pool)
    .await
    .map_err(doing("list the living sessions"))?;
    Ok(ids.iter().filter_map(|(id,)| SessionId::parse(id)).collect())
}

/// See [`Store::list`](super::Store::list).
pub(super) async fn list(
    pool: &SqlitePool,
    filter: &Filter,
    unreadable: &Unreadable,
) -> Result<Vec<Versioned>, StoreError> {
    let mut pages = Pages::of(filter);
    let mut found = Vec::new();
    loop {
        let mut page = page::<sqlx::Sqlite>(pages.wanted(), &DIALECT);
        let rows = page.build().fetch_all(pool).await.map_err(doing("list sessions"))?;
        let (count, last) = (rows.len(), rows.last().and_then(place_in_list));
        for row in rows {
            found.extend(unreadable.pass_over(versioned(row))?);
        }
        if !pages.goes_on(count, last, &mut found) {
            return Ok(found);
        }
    }
}

fn place_in_list(row: &SqliteRow) -> Option<(Time, SessionId)> {
    let at = row.try_get("created_at").ok()?;
    Some((Time::from_micros(at), SessionId::parse(row.try_get("id").ok()?)?))
}

/// See [`Store::versions`](super::Store::versions).
pub(super) async fn versions(
    pool: &SqlitePool,
    ids: &[SessionId],
) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError> {
    let rows: Vec<(String, i64, Option<String>)> = sqlx::query_as(
        "select id, version, replica from session where id in (select value from json_each(?))",
    )
    .bind(as_json(ids))
    .fetch_all(pool)
    .await
    .map_err(doing("look at versions"))?;
    Ok(rows
        .into_iter()
        .filter_map(|(id, version, replica)| Some((SessionId::parse(&id)?, version, replica)))
        .collect())
}

/// Ids as one argument, of however many.
pub(super) fn as_json(ids: &[SessionId]) -> String {
    let ids: Vec<String> = ids.iter().map(SessionId::to_string).collect();
    serde_json::to_string(&ids).expect("texts serialize")
}

/// A row, read.
pub(super) fn versioned(row: SqliteRow) -> Result<Versioned, StoreError> {
    let err = doing("read a session's columns");
    let id: String = row.try_get("id").map_err(&err)?;
    let columns = Row {
        id: id.clone(),
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
    let session = from_row(columns).map_err(|detail| StoreError::BadRow { id, detail })?;
    Ok(Versioned { session, version, replica })
}
