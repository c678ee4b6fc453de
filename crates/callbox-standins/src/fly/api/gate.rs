//! What every call passes: counted, let in or not, limited, troubled; and what its answer
//! passes on the way back.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use callbox_fly::{Action, Token};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::fly::refusal::Refusal;
use crate::fly::trouble::{About, Effect, Struck, When};
use crate::fly::world::Inner;
use crate::fly::{StandIn, ids};
use crate::serve::Cut;

/// Longest body of a request, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

pub async fn gate(
    State((standin, action)): State<(StandIn, Action)>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    standin.world.lock().calls.begun(action);
    let mut answer = pass(&standin, action, &params, request, next).await;
    let cut = answer.extensions().get::<Cut>().is_some();
    let status = if cut { 0 } else { answer.status().as_u16() };
    let mut inner = standin.world.lock();
    inner.calls.answered(action, status);
    let now = inner.clock.now();
    let id = format!("{}-standin", ids::ulid(now, &mut inner.rng));
    if let Ok(id) = HeaderValue::from_str(&id) {
        answer.headers_mut().insert("fly-request-id", id);
    }
    answer
}

async fn pass(
    standin: &StandIn,
    action: Action,
    params: &RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let param = |wanted: &str| {
        let found = params.iter().find(|(name, _)| *name == wanted);
        found.map_or_else(String::new, |(_, value)| value.to_owned())
    };
    let (app, id) = (param("app"), param("id"));
    if let Err(refusal) = allowed(standin, action, request.headers(), &app) {
        return refusal.into_response();
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return Refusal::new(413, "request body too large").into_response();
    };
    let struck = {
        let mut inner = standin.world.lock();
        let limited = inner.limits.rates && !inner.rates.take(action, &app, &id, Instant::now());
        if limited {
            return Refusal::rate_limited().into_response();
        }
        strike(&mut inner, action, &app, &id, &body, &standin.world.settings().region)
    };
    let mut request = Request::from_parts(parts, Body::from(body));
    let on_call = struck.on_call.clone();
    request.extensions_mut().insert(struck);
    match on_call {
        None => carry_out(action, request, next).await,
        Some(effect) => troubled(standin, action, &app, effect, request, next).await,
    }
}

/// Who may do what (fly.md section 1). Regions are open to all.
fn allowed(
    standin: &StandIn,
    action: Action,
    headers: &HeaderMap,
    app: &str,
) -> Result<(), Refusal> {
    if action == Action::Regions {
        return Ok(());
    }
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(Token::from_authorization).ok_or_else(Refusal::no_token)?;
    let grants = &standin.world.settings().tokens;
    let grant = grants.iter().find(|grant| is_same(&grant.token, &token));
    let grant = grant.ok_or_else(Refusal::no_token)?;
    match &grant.apps {
        // What is about no single app needs the organisation's token.
        Some(apps) if !apps.iter().any(|own| own == app) => Err(Refusal::not_yours()),
        _ => Ok(()),
    }
}

/// Whether two tokens are the same, in whichever form each was written.
fn is_same(one: &Token, other: &Token) -> bool {
    let bare = |token: &Token| Token::from_authorization(&token.authorization());
    bare(one) == bare(other)
}

fn strike(
    inner: &mut Inner,
    action: Action,
    app: &str,
    id: &str,
    body: &Bytes,
    default_region: &str,
) -> Struck {
    let (region, name) = match inner.machines.get(id).filter(|one| one.app == app) {
        Some(machine) => (machine.region.clone(), machine.name.clone()),
        None if action == Action::Create => {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
            let first = text("region").split(',').next().unwrap_or_default().trim().to_owned();
            let region = if first.is_empty() { default_region.to_owned() } else { first };
            (region, text("name"))
        }
        None => (String::new(), String::new()),
    };
    let about = About { action, app, region: &region, name: &name };
    inner.troubles.strike(&about, &mut inner.rng)
}

/// Does what was asked. Once begun, it is done whoever still listens, as with any server that
/// has read a request; only a wait ends with its caller.
async fn carry_out(action: Action, request: Request, next: Next) -> Response {
    let answer = match action {
        Action::Wait => next.run(request).await,
        _ => match tokio::spawn(next.run(request)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "a call failed");
                Refusal::new(500, "internal: the stand-in failed").into_response()
            }
        },
    };
    match action {
        Action::CreateApp if answer.status().is_success() => with_cookie(answer),
        _ => answer,
    }
}

/// Leads the next calls to the node that knows the new app; here it only has to come back.
fn with_cookie(mut answer: Response) -> Response {
    let cookie = HeaderValue::from_static("fly_flaps_affinity=standin; Path=/v1/apps");
    answer.headers_mut().insert(SET_COOKIE, cookie);
    answer
}

async fn troubled(
    standin: &StandIn,
    action: Action,
    app: &str,
    effect: Effect,
    request: Request,
    next: Next,
) -> Response {
    let done = |when: When| when != When::Before;
    match effect {
        Effect::Timeout { when } => {
            if done(when) {
                carry_out(action, request, next).await;
            }
            Refusal::new(408, "deadline_exceeded: context deadline exceeded").into_response()
        }
        Effect::ServerError { status, when } => {
            if done(when) {
                carry_out(action, request, next).await;
            }
            Refusal::new(status, "internal: something went wrong").into_response()
        }
        Effect::Cut { when: When::Before } => cut(),
        Effect::Cut { when: When::After } => {
            carry_out(action, request, next).await;
            cut()
        }
        Effect::Cut { when: When::Half } => half(carry_out(action, request, next).await).await,
        Effect::Refuse { preset } => {
            let region = standin.world.settings().region.clone();
            preset.refusal(&standin.world.settings().organization, &region).into_response()
        }
        Effect::Answer { status, error, code } => match code {
            Some(code) => Refusal::coded(status, error, &code).into_response(),
            None => Refusal::new(status, error).into_response(),
        },
        Effect::Slow { ms } => {
            sleep(std::time::Duration::from_millis(ms)).await;
            carry_out(action, request, next).await
        }
        Effect::WaitTimesOut => (StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout").into_response(),
        other => {
            tracing::error!(?other, app, "no trouble of a call");
            carry_out(action, request, next).await
        }
    }
}

fn cut() -> Response {
    let mut answer = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    answer.extensions_mut().insert(Cut);
    answer
}

/// An answer that breaks off in its middle.
async fn half(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
    if whole.is_empty() {
        return cut();
    }
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let first = whole.slice(..whole.len() / 2);
    let pieces = futures::stream::iter([Ok(first), Err(std::io::Error::other("cut"))]);
    // The pause lets the first half leave before the connection goes.
    let pieces = futures::StreamExt::then(pieces, |piece| async {
        if piece.is_err() {
            sleep(std::time::Duration::from_millis(20)).await;
        }
        piece
    });
    Response::from_parts(parts, Body::from_stream(pieces))
}
