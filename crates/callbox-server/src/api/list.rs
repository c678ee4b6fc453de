//! `/v1/sessions`: the list, by whatever it is filtered.

use axum::{
    Json,
    extract::{Query, State},
};
use callbox_core::{EndCode, Outcome, SessionId, StateKind, Time};
use callbox_protocol::api::{ErrorBody, SessionList};

use super::{App, caller::Operator, error::Error, view};
use crate::store::Filter;

/// Sessions of a page, where the client does not say.
const PAGE: u32 = 50;

/// List sessions, newest first; without `all`, `state`, `outcome` and `code`, those that have not
/// ended.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions",
    params(
        ("all" = Option<bool>, Query, description = "the ended ones too"),
        ("bot" = Option<String>, Query), ("state" = Option<String>, Query),
        ("outcome" = Option<String>, Query, description = "`completed` | `failed`"),
        ("code" = Option<String>, Query, description = "why they end or ended"),
        ("since" = Option<String>, Query, description = "accepted then or later, RFC 3339"),
        ("until" = Option<String>, Query, description = "accepted before, RFC 3339"),
        ("label" = Option<Vec<String>>, Query, description = "`name:value`; given more than once, all must be there"),
        ("limit" = Option<u32>, Query, description = "1 to 500, 50 if absent"),
        ("before" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = SessionList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<SessionList>, Error> {
    let mut filter = filter(&query).map_err(|problem| Error::Invalid { what: "query", problem })?;
    let limit = filter.limit;
    filter.limit += 1;
    let mut rows = app.plane.store.list(&filter).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|row| format!("{}_{}", row.session.moments.accepted.as_micros(), row.session.id));
    let sessions = rows.iter().map(|row| view::session(&app.plane, &row.session)).collect();
    Ok(Json(SessionList { sessions, next }))
}

/// What the query asks for. What it names beside that is passed over.
fn filter(query: &[(String, String)]) -> Result<Filter, String> {
    let mut filter = Filter { limit: PAGE, ..Filter::default() };
    let mut all = false;
    for (name, text) in query {
        let unknown = || format!("{name} {text:?} is unknown");
        match name.as_str() {
            "all" => {
                all = text.parse().map_err(|_| format!("all {text:?} is not true or false"))?
            }
            "bot" => filter.bot = Some(text.clone()),
            "state" => filter.state = Some(StateKind::parse(text).ok_or_else(unknown)?),
            "outcome" => filter.outcome = Some(outcome(text).ok_or_else(unknown)?),
            "code" => filter.code = Some(EndCode::parse(text).ok_or_else(unknown)?),
            "since" => filter.since = Some(time(name, text)?),
            "until" => filter.until = Some(time(name, text)?),
            "label" => filter.labels.push(label(text)?),
            "limit" => {
                let limit: u32 =
                    text.parse().map_err(|_| format!("limit {text:?} is no number"))?;
                filter.limit = limit.clamp(1, 500);
            }
            "before" => filter.before = Some(cursor(text)?),
            _ => {}
        }
    }
    let of_the_ended = filter.outcome.is_some() || filter.code.is_some();
    filter.living = !all && filter.state.is_none() && !of_the_ended;
    Ok(filter)
}

fn outcome(text: &str) -> Option<Outcome> {
    match text {
        "completed" => Some(Outcome::Completed),
        "failed" => Some(Outcome::Failed),
        _ => None,
    }
}

fn time(name: &str, text: &str) -> Result<Time, String> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    let time = parsed.map_err(|_| format!("{name} {text:?} is no time as of RFC 3339"))?;
    Ok(Time::from_micros(time.as_microsecond()))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("label {text:?} is not written name:value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn cursor(text: &str) -> Result<(Time, SessionId), String> {
    let parsed = text
        .split_once('_')
        .and_then(|(at, id)| Some((Time::from_micros(at.parse().ok()?), SessionId::parse(id)?)));
    parsed.ok_or_else(|| format!("before {text:?} is no cursor of ours"))
}
