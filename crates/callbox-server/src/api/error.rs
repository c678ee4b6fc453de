//! Every answer that is not 2xx. One enum, one table of status and code, one shape.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use callbox_core::EndReason;
use callbox_protocol::api::{ErrorBody, Retry};
use callbox_transports::{BadOptions, WebhookRefusal};

use crate::{driver::Chain, metrics, replica::forward::Unreachable, store::StoreError};

/// Why a request has no good answer.
#[derive(Debug)]
pub enum Error {
    /// The body, a query value or a header cannot be read.
    Invalid { what: &'static str, problem: String },
    /// The body is larger than is read.
    TooLarge { limit: usize },
    /// No key, or none that works.
    Unauthorized { problem: &'static str },
    /// The key is good, but not for this.
    Forbidden { problem: &'static str },
    /// There is no such bot.
    UnknownBot { name: String, known: Vec<String> },
    /// The bot does not allow this transport, or nobody knows it.
    UnknownTransport { name: String, allowed: Vec<String> },
    /// What the request asks of its room cannot be had.
    BadRoom(BadOptions),
    /// A webhook that is not believed.
    Webhook(WebhookRefusal),
    /// There is no such session.
    UnknownSession,
    /// No session has this machine.
    UnknownMachine,
    /// The machine's session is over, or has another machine.
    MachineOver,
    /// There is no such path.
    UnknownPath,
    /// The path is there, for another method.
    WrongMethod,
    /// The start key was used for another request.
    KeyReused,
    /// A cap on living sessions is reached.
    AtCapacity { bot: Option<String>, cap: u32, retry: Option<Duration> },
    /// It would have to wait, and as many wait as may.
    QueueFull { cap: u32, retry: Option<Duration> },
    /// The dispatcher is on its way out.
    Closing,
    /// The dispatcher is drained: it takes no new sessions.
    Draining,
    /// The session has ended, or ends; this cannot be done with it any more.
    SessionOver(Option<EndReason>),
    /// The session has a client already.
    Taken,
    /// Nobody but the dispatcher may call this path of the bot.
    Reserved { path: String },
    /// The bot gave no answer that can be passed on.
    BadBot { detail: String },
    /// The bot gave no answer in time.
    SlowBot,
    /// What was waited for did not happen in the time that was asked for.
    WaitedTooLong,
    /// Another replica has to answer, and does not.
    Elsewhere(Unreachable),
    /// The store did not answer. What exactly is in the log, not in the answer.
    StoreAway,
    /// Our own fault. What exactly is in the log, not in the answer.
    Internal,
}

/// How long a client should wait before it asks for a place again, where nothing is known of the
/// pace at which places come free.
const RETRY: Duration = Duration::from_secs(5);
/// Longer than this nobody is sent away: paces change.
const LONGEST_RETRY: Duration = Duration::from_secs(120);

impl Error {
    /// Status, stable code, text, hint.
    fn parts(&self) -> (StatusCode, &'static str, String, Option<String>) {
        use StatusCode as S;
        let list = |names: &[String]| names.join(", ");
        match self {
            Error::Invalid { what, problem } => (
                S::BAD_REQUEST,
                "invalid-request",
                format!("cannot read the {what}: {problem}"),
                None,
            ),
            Error::TooLarge { limit } => (
                S::PAYLOAD_TOO_LARGE,
                "body-too-large",
                format!("the body has more than {limit} bytes"),
                None,
            ),
            Error::Unauthorized { problem } => (
                S::UNAUTHORIZED,
                "unauthorized",
                (*problem).into(),
                Some("send `Authorization: Bearer <key>`; `callbox keys create` makes one".into()),
            ),
            Error::Forbidden { problem } => (S::FORBIDDEN, "forbidden", (*problem).into(), None),
            Error::UnknownBot { name, known } => (
                S::NOT_FOUND,
                "unknown-bot",
                if name.is_empty() {
                    "the request names no bot, and there is more than one".into()
                } else {
                    format!("there is no bot {name:?}")
                },
                Some(format!("configured bots: {}", list(known))),
            ),
            Error::UnknownTransport { name, allowed } => (
                S::BAD_REQUEST,
                "unknown-transport",
                format!("transport {name:?} is unknown or not allowed for this bot"),
                Some(format!("allowed: {}", list(allowed))),
            ),
            Error::BadRoom(bad) => (
                S::BAD_REQUEST,
                "invalid-room-options",
                format!("cannot have {bad}"),
                Some("nothing was started".into()),
            ),
            Error::Webhook(refusal) => {
                let (status, code) = match refusal {
                    WebhookRefusal::NoWebhooks => (S::NOT_FOUND, "no-webhooks"),
                    WebhookRefusal::Unsigned(_) => (S::UNAUTHORIZED, "bad-signature"),
                    WebhookRefusal::Unreadable(_) => (S::BAD_REQUEST, "invalid-request"),
                };
                (status, code, refusal.to_string(), None)
            }
            Error::UnknownSession => {
                (S::NOT_FOUND, "unknown-session", "there is no such session".into(), None)
            }
            Error::UnknownMachine => {
                (S::NOT_FOUND, "unknown-machine", "no session has this machine".into(), None)
            }
            Error::MachineOver => {
                (S::GONE, "machine-over", "nobody needs this machine any more".into(), None)
            }
            Error::UnknownPath => (
                S::NOT_FOUND,
                "unknown-path",
                "there is nothing at this path".into(),
                Some("GET /openapi.json lists all paths".into()),
            ),
            Error::WrongMethod => {
                (S::METHOD_NOT_ALLOWED, "wrong-method", "this path has no such method".into(), None)
            }
            Error::KeyReused => (
                S::CONFLICT,
                "idempotency-key-reused",
                "this Idempotency-Key was used for another request".into(),
                Some("a new request needs a new key".into()),
            ),
            Error::AtCapacity { bot, cap, .. } => (
                S::TOO_MANY_REQUESTS,
                // What Pipecat Cloud's SDK tells its users to test for.
                "429",
                match bot {
                    Some(bot) => format!("bot {bot:?} has as many live sessions as it may ({cap})"),
                    None => format!("there are as many live sessions as there may be ({cap})"),
                },
                Some("nothing was started; try again when a call has ended".into()),
            ),
            Error::QueueFull { cap, .. } => (
                S::TOO_MANY_REQUESTS,
                "429",
                format!("the host is full, and as many sessions wait for room as may ({cap})"),
                Some("nothing was started; try again after the time in Retry-After".into()),
            ),
            Error::Closing => (
                S::SERVICE_UNAVAILABLE,
                "shutting-down",
                "the dispatcher is shutting down".into(),
                Some("nothing was started; try again".into()),
            ),
            Error::Draining => (
                S::SERVICE_UNAVAILABLE,
                "draining",
                "the dispatcher takes no new sessions".into(),
                Some("nothing was started; try again, or ask another dispatcher".into()),
            ),
            Error::SessionOver(why) => (
                S::CONFLICT,
                "session-over",
                match why {
                    Some(why) => {
                        format!("the session is over: {} ({})", why.detail, why.code.as_str())
                    }
                    None => "the session is over".into(),
                },
                None,
            ),
            Error::Taken => {
                (S::CONFLICT, "client-present", "the session has a client already".into(), None)
            }
            Error::Reserved { path } => (
                S::FORBIDDEN,
                "reserved-path",
                format!("{path:?} is between dispatcher and bot"),
                None,
            ),
            Error::BadBot { detail } => (
                S::BAD_GATEWAY,
                "bot-unreachable",
                format!("the bot gave no answer: {detail}"),
                None,
            ),
            Error::SlowBot => {
                (S::GATEWAY_TIMEOUT, "bot-too-slow", "the bot gave no answer in time".into(), None)
            }
            Error::WaitedTooLong => (
                S::GATEWAY_TIMEOUT,
                "not-yet",
                "it did not happen in the time that was asked for".into(),
                Some("the session goes on; ask again".into()),
            ),
            Error::Elsewhere(why) if why.may_have_happened() => (
                S::GATEWAY_TIMEOUT,
                "replica-lost",
                why.to_string(),
                Some("it may have happened: look at the session before you ask again".into()),
            ),
            Error::Elsewhere(why) => (
                S::SERVICE_UNAVAILABLE,
                "replica-unreachable",
                why.to_string(),
                Some("nothing happened; sessions of a dispatcher that is gone are taken over within 10 s".into()),
            ),
            Error::StoreAway => (
                S::SERVICE_UNAVAILABLE,
                "store-away",
                "the dispatcher cannot reach its database".into(),
                Some("it may have happened: ask again with the same Idempotency-Key".into()),
            ),
            Error::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "the dispatcher failed; its log says why".into(),
                None,
            ),
        }
    }
}

impl Error {
    /// Whether the same request may be sent again.
    fn retry(&self) -> Retry {
        match self {
            Error::AtCapacity { .. }
            | Error::QueueFull { .. }
            | Error::Closing
            | Error::Draining => Retry::Safe,
            Error::StoreAway if crate::planted::is("said-to-be-safe") => Retry::Safe,
            Error::BadBot { .. }
            | Error::SlowBot
            | Error::WaitedTooLong
            | Error::StoreAway
            | Error::Internal => Retry::SameKey,
            Error::Elsewhere(why) if why.may_have_happened() => Retry::SameKey,
            Error::Elsewhere(_) => Retry::Safe,
            Error::Invalid { .. }
            | Error::TooLarge { .. }
            | Error::Unauthorized { .. }
            | Error::Forbidden { .. }
            | Error::UnknownBot { .. }
            | Error::UnknownTransport { .. }
            | Error::BadRoom(_)
            | Error::Webhook(_)
            | Error::UnknownSession
            | Error::UnknownMachine
            | Error::MachineOver
            | Error::UnknownPath
            | Error::WrongMethod
            | Error::KeyReused
            | Error::SessionOver(_)
            | Error::Taken
            | Error::Reserved { .. } => Retry::Never,
        }
    }

    /// In seconds, never early.
    fn retry_after(&self) -> Option<u64> {
        let span = match self {
            Error::AtCapacity { retry, .. } | Error::QueueFull { retry, .. } => {
                retry.unwrap_or(RETRY).min(LONGEST_RETRY)
            }
            Error::Closing | Error::Draining | Error::StoreAway | Error::Elsewhere(_) => RETRY,
            _ => return None,
        };
        Some(span.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX))
    }
}

impl From<BadOptions> for Error {
    fn from(bad: BadOptions) -> Error {
        Error::BadRoom(bad)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        metrics::store_error();
        tracing::error!(error = %Chain(&error), "a request failed");
        match error {
            StoreError::Database { .. } | StoreError::Silent { .. } => Error::StoreAway,
            _ => Error::Internal,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code, text, hint) = self.parts();
        let body = ErrorBody {
            error: text.clone(),
            code: code.into(),
            info: text.clone(),
            detail: text,
            hint,
            retry: self.retry(),
        };
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Error::Unauthorized { .. }) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
