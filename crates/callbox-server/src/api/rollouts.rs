//! `/v1/rollouts` and `/v1/bots/{bot}/rollout`: which version of a bot new sessions get.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use callbox_core::{State as SessionState, Time};
use callbox_protocol::api::{
    ErrorBody, Reserve, Rollout, RolloutList, RolloutState, RolloutVersion,
};
use serde::Deserialize;

use super::{App, caller::Operator, error::Error};
use crate::{
    clock::rfc3339,
    plane::Plane,
    rollout::{self, Track, Version},
};

/// Which rollouts to show.
#[derive(Debug, Deserialize)]
pub struct RolloutsQuery {
    bot: Option<String>,
}

/// The versions of all bots, or of one, at the dispatcher that is asked.
#[utoipa::path(
    get, path = "/v1/rollouts", tag = "operate",
    params(("bot" = Option<String>, Query, description = "only of this bot")),
    responses((status = 200, body = RolloutList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn list(
    State(app): State<App>,
    _operator: Operator,
    Query(query): Query<RolloutsQuery>,
) -> Result<Json<RolloutList>, Error> {
    let bots: Vec<&str> = match &query.bot {
        Some(name) => vec![known(&app.plane, name)?],
        None => app.plane.config.bots.keys().map(String::as_str).collect(),
    };
    let rollouts = bots.into_iter().map(|bot| rollout_of(&app.plane, bot)).collect();
    Ok(Json(RolloutList { rollouts }))
}

/// Look at the bot's image anew: if it is another version, prepare it, and give it to new sessions
/// once it is ready. Earlier sessions end on theirs. Answers at once; `GET /v1/rollouts` tells.
#[utoipa::path(
    post, path = "/v1/bots/{bot}/rollout", tag = "operate",
    params(("bot" = String, Path, description = "name of the bot")),
    responses((status = 202, body = Rollout), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn begin(
    State(app): State<App>,
    _operator: Operator,
    Path(bot): Path<String>,
) -> Result<Response, Error> {
    let bot = known(&app.plane, &bot)?;
    if app.plane.closing() {
        return Err(Error::Closing);
    }
    rollout::ask(&app.plane, bot);
    Ok((StatusCode::ACCEPTED, Json(rollout_of(&app.plane, bot))).into_response())
}

fn known<'a>(plane: &'a Plane, name: &str) -> Result<&'a str, Error> {
    match plane.config.bots.get_key_value(name) {
        Some((name, _)) => Ok(name),
        None => Err(Error::UnknownBot {
            name: name.to_owned(),
            known: plane.config.bots.keys().cloned().collect(),
        }),
    }
}

fn rollout_of(plane: &Plane, bot: &str) -> Rollout {
    let track = plane.rollouts.of(bot);
    let mut versions = track.map(|track| versions(plane, bot, &track)).unwrap_or_default();
    for one in &mut versions {
        // A version that failed has nothing, and one that is looked up has no name yet.
        if one.version.is_some() || one.current {
            one.live = live(plane, bot, &one.version);
            one.reserve = reserve(plane, bot, &one.version);
        }
    }
    let replica = plane.replicas.id().to_owned();
    Rollout { replica, bot: bot.to_owned(), versions }
}

fn versions(plane: &Plane, bot: &str, track: &Track) -> Vec<RolloutVersion> {
    let current = &track.current;
    let first = plane.preparing().get(bot).cloned();
    let state = match (&first, &current.trouble) {
        (Some(_), _) => RolloutState::Preparing,
        (None, Some(_)) => RolloutState::Failed,
        (None, None) => RolloutState::Serving,
    };
    let mut shown = vec![RolloutVersion {
        current: true,
        stage: first,
        why: current.trouble.clone(),
        ..version(&current.version, state, current.since)
    }];
    shown.extend(track.next.iter().map(|next| RolloutVersion {
        stage: Some(next.stage.clone()),
        ..version(&next.version, RolloutState::Preparing, next.since)
    }));
    shown.extend(track.failed.iter().map(|failed| RolloutVersion {
        why: Some(failed.why.clone()),
        ..version(&failed.version, RolloutState::Failed, failed.at)
    }));
    let old = track.old.iter();
    shown.extend(old.map(|old| version(&old.version, RolloutState::Finishing, old.since)));
    shown
}

fn version(version: &Version, state: RolloutState, since: Time) -> RolloutVersion {
    RolloutVersion {
        version: version.clone(),
        current: false,
        state,
        stage: None,
        why: None,
        since: rfc3339(since),
        live: 0,
        reserve: None,
    }
}

fn live(plane: &Plane, bot: &str, version: &Version) -> u32 {
    let handles = plane.handles();
    let of_version = handles.iter().filter(|(_, handle)| {
        let session = handle.session.borrow();
        let ended = matches!(session.state, SessionState::Ended { .. });
        !ended && session.bot == bot && session.version == *version
    });
    count(of_version.count())
}

fn reserve(plane: &Plane, bot: &str, version: &Version) -> Option<Reserve> {
    let provider = plane.providers.get(plane.bot(bot)?.provider.as_str())?;
    let all = provider.reserves().into_iter();
    let mut of_version = all.filter(|one| one.bot == bot && one.version == *version);
    let level = of_version.next()?.level;
    Some(Reserve { ready: count(level.ready), target: count(level.target) })
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
