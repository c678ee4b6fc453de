//! Who is asking. Each right is a type: a handler that needs one takes it as an argument, and
//! cannot be reached without.

use axum::{
    extract::{FromRequestParts, Query},
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use callbox_core::SessionId;
use serde::Deserialize;

use super::{App, error::Error};
use crate::keys::{self, KeyKind};

/// Somebody who may start sessions.
pub struct Starter {
    /// Whose start keys these are: the API key's id, or `open`.
    pub scope: String,
}

/// Somebody who may all.
pub struct Operator;

/// Somebody who may watch, use and end single sessions; which ones, [`Participant::may`] tells.
pub struct Participant(Right);

enum Right {
    All,
    /// Use only: what Pipecat Cloud's public key may (proxied paths).
    Use,
    One(SessionId),
}

impl Participant {
    /// Checks the right to watch and end this session.
    pub fn may(&self, session: SessionId) -> Result<(), Error> {
        match self.0 {
            Right::All => Ok(()),
            Right::One(own) if own == session => Ok(()),
            Right::One(_) => Err(Error::Forbidden { problem: "this token is another session's" }),
            Right::Use => Err(Error::Forbidden {
                problem: "a public key may only start; use the session's token, or a private key",
            }),
        }
    }

    /// Checks the right to talk to the bot of this session.
    pub fn may_use(&self, session: SessionId) -> Result<(), Error> {
        match self.0 {
            Right::Use => Ok(()),
            _ => self.may(session),
        }
    }
}

const NO_KEY: Error = Error::Unauthorized { problem: "this needs a key" };
const BAD_KEY: Error = Error::Unauthorized { problem: "this key does not work" };

/// While no key exists, whoever is on this host may all. A page of a stranger may not, though
/// the developer's browser shows it: browsers say so in `Origin`, and a name of the stranger's
/// that was made to lead here stands in `Host`.
async fn without_key(parts: &Parts, app: &App) -> Result<(), Error> {
    if app.auth().await? {
        return Err(NO_KEY);
    }
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if !matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        return Err(Error::Forbidden { problem: "without a key, ask as localhost" });
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let own = origin.split_once("://").map(|(_, host)| host) == Some(host);
    let allowed = app.plane.config.allowed_origins.iter().any(|allowed| allowed == origin);
    if own || allowed {
        Ok(())
    } else {
        Err(Error::Forbidden { problem: "this page may not call" })
    }
}

#[derive(Deserialize)]
struct TokenQuery {
    token: Option<String>,
}

/// What stands in `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

/// The credential that was sent: header first, `?token=` for those who cannot send headers.
fn credential(parts: &Parts) -> Option<String> {
    let sent = bearer(&parts.headers).map(str::to_owned);
    sent.or_else(|| Query::<TokenQuery>::try_from_uri(&parts.uri).ok()?.0.token)
}

impl FromRequestParts<App> for Participant {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let Some(text) = credential(parts) else {
            without_key(parts, app).await?;
            return Ok(Participant(Right::All));
        };
        if let Some(session) = app.plane.tokens.check(&text) {
            return Ok(Participant(Right::One(session)));
        }
        match keys::check(&*app.plane.store, &text).await? {
            Some((_, KeyKind::Private)) => Ok(Participant(Right::All)),
            Some((_, KeyKind::Public)) => Ok(Participant(Right::Use)),
            None => Err(BAD_KEY),
        }
    }
}

impl FromRequestParts<App> for Starter {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let Some(text) = credential(parts) else {
            without_key(parts, app).await?;
            return Ok(Starter { scope: "open".into() });
        };
        match keys::check(&*app.plane.store, &text).await? {
            Some((record, _)) => Ok(Starter { scope: record.id }),
            None => Err(BAD_KEY),
        }
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        match Participant::from_request_parts(parts, app).await?.0 {
            Right::All => Ok(Operator),
            Right::Use | Right::One(_) => {
                Err(Error::Forbidden { problem: "this needs a private key" })
            }
        }
    }
}
