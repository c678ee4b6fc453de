//! The stand-in's side for operators: a drain, a sweep, and a rollout that takes three looks.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use callbox_protocol::api::{
    Drain, DrainRequest, DrainSession, Rollout, RolloutList, RolloutState, RolloutVersion,
    SessionState, Sweep, SweepFound, SweepNotListed,
};
use serde::Deserialize;
use tokio::sync::watch;

use super::{Shared, error};

/// What operators have asked for.
#[derive(Default)]
pub struct Operated {
    pub draining: watch::Sender<bool>,
    /// What the drain was begun with.
    pub deadline_ms: watch::Sender<Option<u64>>,
    /// Which dispatcher answers.
    pub replica: watch::Sender<String>,
    /// So many looks are answered by nobody.
    pub silent: watch::Sender<usize>,
    /// How often the rollout was looked at since it was asked for.
    looks: watch::Sender<usize>,
}

impl Operated {
    /// Whether this look is one of those that nobody answers.
    fn silences(&self) -> bool {
        self.silent.send_if_modified(|left| {
            let silent = *left > 0;
            *left = left.saturating_sub(1);
            silent
        })
    }
}

pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/drain", get(status).post(drain).delete(cancel))
        .route("/v1/sweep", get(sweep).post(sweep))
        .route("/v1/rollouts", get(rollouts))
        .route("/v1/bots/{bot}/rollout", post(roll))
}

async fn drain(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let request: DrainRequest = serde_json::from_slice(&body).unwrap();
    shared.operated.deadline_ms.send_replace(request.deadline_ms);
    shared.operated.draining.send_replace(true);
    status(State(shared)).await
}

async fn cancel(State(shared): State<Arc<Shared>>) -> Response {
    shared.operated.draining.send_replace(false);
    status(State(shared)).await
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let sessions = shared.sessions.lock().unwrap();
    let live = sessions.values().filter(|it| it.borrow().state != SessionState::Ended);
    let live: Vec<DrainSession> = live
        .map(|session| {
            let session = session.borrow();
            DrainSession {
                id: session.id.clone(),
                bot: session.bot.clone(),
                state: session.state,
                accepted: session.moments.accepted.clone().unwrap(),
                deadline_at: session.moments.accepted.clone().unwrap(),
            }
        })
        .collect();
    if shared.operated.silences() {
        return nobody();
    }
    let answer = Drain {
        replica: shared.operated.replica.borrow().clone(),
        draining: *shared.operated.draining.borrow(),
        since: None,
        deadline_at: None,
        live: u32::try_from(live.len()).unwrap(),
        queued: 0,
        sessions: live,
    };
    Json(answer).into_response()
}

/// What a load balancer says that has nobody to ask.
fn nobody() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream").into_response()
}

/// What the dispatcher's sweep finds: one of each outcome.
async fn sweep(method: Method) -> Json<Sweep> {
    let dry_run = method == Method::GET;
    let one = |name: &str, outcome: &str, detail: &str| SweepFound {
        kind: "machine".into(),
        provider: "fake".into(),
        name: name.into(),
        outcome: outcome.into(),
        detail: detail.into(),
    };
    let found = match dry_run {
        true => vec![one("cb-1-1", "remove", "no living session claims it")],
        false => vec![
            one("cb-1-1", "removed", "no living session claims it"),
            one("cb-2-1", "failed", "it does not go away"),
            one("cb-3-1", "others", "it is of the deployment 17"),
        ],
    };
    let lists = SweepNotListed {
        kind: "room".into(),
        provider: "daily".into(),
        detail: "no answer".into(),
    };
    let not_listed = if dry_run { vec![] } else { vec![lists] };
    Json(Sweep { dry_run, found, not_listed })
}

#[derive(Deserialize)]
struct OfBot {
    bot: Option<String>,
}

async fn rollouts(State(shared): State<Arc<Shared>>, Query(query): Query<OfBot>) -> Response {
    let bot = query.bot.unwrap_or_else(|| "parrot".into());
    if !matches!(bot.as_str(), "parrot" | "broken") {
        return error(StatusCode::NOT_FOUND, "there is no such bot");
    }
    if shared.operated.silences() {
        return nobody();
    }
    let mut look = 0;
    shared.operated.looks.send_modify(|looks| {
        look = *looks;
        *looks += 1;
    });
    Json(RolloutList { rollouts: vec![rollout(&shared, &bot, look)] }).into_response()
}

async fn roll(State(shared): State<Arc<Shared>>, Path(bot): Path<String>) -> Response {
    if !matches!(bot.as_str(), "parrot" | "broken") {
        return error(StatusCode::NOT_FOUND, "there is no such bot");
    }
    shared.operated.looks.send_replace(1);
    (StatusCode::ACCEPTED, Json(rollout(&shared, &bot, 0))).into_response()
}

/// Asked for, being prepared, finishing, done; or failed.
fn rollout(shared: &Shared, bot: &str, look: usize) -> Rollout {
    use RolloutState::{Failed, Finishing, Preparing, Serving};
    let of = |digit: &str, state, live| RolloutVersion {
        version: Some(digit.repeat(64)),
        current: state == Serving,
        state,
        stage: (state == Preparing).then(|| "booting".to_owned()),
        why: (state == Failed).then(|| "no module named parrot".to_owned()),
        since: jiff::Timestamp::now().to_string(),
        live,
        reserve: None,
    };
    let versions = match (bot, look) {
        (_, 0 | 1) => vec![of("a", Serving, 1), of("b", Preparing, 0)],
        ("broken", _) => vec![of("a", Serving, 1), of("b", Failed, 0)],
        (_, 2) => vec![of("b", Serving, 0), of("a", Finishing, 1)],
        _ => vec![of("b", Serving, 0)],
    };
    Rollout { replica: shared.operated.replica.borrow().clone(), bot: bot.to_owned(), versions }
}
