//! The list of sessions, as a statement: newest first, by whatever it is filtered.
//!
//! Every page is read along an index in the order of the list, so that it costs what it shows and
//! what lies between, however many sessions there are. Which index that is, is decided here;
//! PostgreSQL decides so by itself, and SQLite has to be told, as it keeps no statistics.

use callbox_core::{Outcome, SessionId, StateKind, Time};
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::{Filter, Versioned, row::outcome_text};

/// How a database wants its statements.
pub(super) struct Dialect {
    /// What a statement selects of `session`.
    pub columns: &'static str,
    /// Makes an id of a text.
    pub id: &'static str,
    /// Whether indices are named.
    pub named: bool,
}

/// A page that `filter` asks for.
pub(super) fn page<DB>(filter: &Filter, dialect: &Dialect) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'a> Encode<'a, DB> + Type<DB>,
    &'static str: for<'a> Encode<'a, DB> + Type<DB>,
    i64: for<'a> Encode<'a, DB> + Type<DB>,
{
    let living = filter.living || filter.state.is_some_and(|state| state != StateKind::Ended);
    let mut sql = QueryBuilder::new(format!("select {} ", dialect.columns));
    let mut labels = filter.labels.iter();
    let order = match labels.next() {
        Some((key, value)) => {
            // "cross" keeps SQLite from beginning with the sessions.
            let (by, join) = by_label(dialect);
            sql.push(format!("from label {by} {join} session on session.id = label.session_id"));
            sql.push(" where label.key = ").push_bind(key.clone());
            sql.push(" and label.value = ").push_bind(value.clone());
            ("label.created_at", "label.session_id")
        }
        None => {
            let by = if dialect.named { along(filter, living) } else { "" };
            sql.push(format!("from session {by} where true"));
            ("session.created_at", "session.id")
        }
    };
    for (key, value) in labels {
        sql.push(" and exists (select 1 from label other where other.session_id = session.id");
        sql.push(" and other.key = ").push_bind(key.clone());
        sql.push(" and other.value = ").push_bind(value.clone()).push(")");
    }
    narrow(&mut sql, filter, living);
    between(&mut sql, filter, order, dialect);
    let (at, id) = order;
    sql.push(format!(" order by {at} desc, {id} desc limit ")).push_bind(i64::from(filter.limit));
    sql
}

fn by_label(dialect: &Dialect) -> (&'static str, &'static str) {
    if dialect.named { ("indexed by label_newest", "cross join") } else { ("", "join") }
}

/// The index with the fewest rows beside those that are wanted.
fn along(filter: &Filter, living: bool) -> &'static str {
    match filter {
        _ if living => "indexed by session_newest_living",
        Filter { code: Some(_), .. } => "indexed by session_newest_of_code",
        Filter { outcome: Some(Outcome::Failed), .. } => "indexed by session_newest_failed",
        Filter { bot: Some(_), .. } => "indexed by session_newest_of_bot",
        _ => "indexed by session_newest",
    }
}

fn narrow<DB>(sql: &mut QueryBuilder<DB>, filter: &Filter, living: bool)
where
    DB: Database,
    String: for<'a> Encode<'a, DB> + Type<DB>,
    &'static str: for<'a> Encode<'a, DB> + Type<DB>,
{
    if living {
        sql.push(" and session.ended_at is null");
    }
    if let Some(bot) = &filter.bot {
        sql.push(" and session.bot = ").push_bind(bot.clone());
    }
    if let Some(state) = filter.state {
        sql.push(" and session.state = ").push_bind(state.as_str());
    }
    match filter.outcome {
        // As a constant: only so is it known that the index of those has them all.
        Some(Outcome::Failed) => drop(sql.push(" and session.outcome = 'failed'")),
        Some(outcome) => {
            sql.push(" and session.outcome = ").push_bind(outcome_text(outcome));
        }
        None => {}
    }
    if let Some(code) = filter.code {
        sql.push(" and session.end_code = ").push_bind(code.as_str());
    }
}

fn between<DB>(
    sql: &mut QueryBuilder<DB>,
    filter: &Filter,
    (at, id): (&str, &str),
    dialect: &Dialect,
) where
    DB: Database,
    String: for<'a> Encode<'a, DB> + Type<DB>,
    i64: for<'a> Encode<'a, DB> + Type<DB>,
{
    if let Some(since) = filter.since {
        sql.push(format!(" and {at} >= ")).push_bind(since.as_micros());
    }
    if let Some(until) = filter.until {
        sql.push(format!(" and {at} < ")).push_bind(until.as_micros());
    }
    if let Some((before, session)) = filter.before {
        sql.push(format!(" and ({at}, {id}) < (")).push_bind(before.as_micros());
        sql.push(", ").push_bind(session.to_string()).push(format!("{})", dialect.id));
    }
}

/// So many rows at least are asked for where some could not be read: there may be many of those.
const AFTER_A_GAP: usize = 256;

/// A page in the making: rows that cannot be read leave gaps, which are filled from what follows.
pub(super) struct Pages {
    filter: Filter,
    limit: usize,
    asked: usize,
}

impl Pages {
    pub(super) fn of(filter: &Filter) -> Pages {
        let limit = filter.limit as usize;
        Pages { filter: filter.clone(), limit, asked: limit }
    }

    /// What is to be asked for now.
    pub(super) fn wanted(&mut self) -> &Filter {
        self.filter.limit = u32::try_from(self.asked).unwrap_or(u32::MAX);
        &self.filter
    }

    /// So many rows were there, and this one was the last; so much could be read in all. True if
    /// the page is to go on.
    pub(super) fn goes_on(
        &mut self,
        rows: usize,
        last: Option<(Time, SessionId)>,
        found: &mut Vec<Versioned>,
    ) -> bool {
        let more = rows == self.asked && found.len() < self.limit;
        found.truncate(self.limit);
        self.filter.before = last.or(self.filter.before);
        self.asked = self.limit.max(AFTER_A_GAP);
        more
    }
}
