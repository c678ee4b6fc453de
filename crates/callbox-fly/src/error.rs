//! What can go wrong with a call, and what may be concluded from it.

use std::fmt;
use std::time::Duration;

use crate::Action;
use crate::wire::State;

/// Longest text of a server that is kept, in bytes.
const LONGEST: usize = 2048;

/// A failed call. `Display` says what was attempted and what came; it holds no token.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("cannot {action}: {detail}")]
pub struct Error {
    /// What was attempted.
    pub action: Action,
    /// What it means.
    pub kind: ErrorKind,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// What the server said, or what became of the request; bounded.
    pub text: String,
    /// The answer's `fly-request-id`, by which Fly's support finds it.
    pub request_id: Option<String>,
    detail: String,
}

/// Whether what was asked for may have been done all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Certainly not.
    No,
    /// Perhaps: look before repeating.
    Maybe,
}

/// What has no room (fly.md section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapacityScope {
    /// The region: take the next one.
    Region,
    /// The host: try again for a new machine, take another one instead of this one.
    Host,
    /// The host that a volume is on. Only with volumes.
    Volume,
}

/// What does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// The app. Also said right after its creation, for a while (fly.md section 9).
    App,
    /// The machine. Ending: done. Waiting: it has ended and destroyed itself.
    Machine,
    /// The text does not say; the wording is not certain.
    Unsaid,
}

/// What an error means: every case of fly.md sections 5 and 9.
#[derive(Clone, Debug, PartialEq)]
pub enum ErrorKind {
    /// Too many calls. Nothing shows that Fly sends `Retry-After`; it is read if it does.
    RateLimited {
        /// As the header says, if it does.
        retry_after: Option<Duration>,
    },
    /// A machine (or an app) of that name exists: the create that was repeated had happened.
    NameTaken {
        /// The one that exists; absent for apps.
        machine_id: Option<String>,
    },
    /// No room.
    Capacity {
        /// Where.
        scope: CapacityScope,
    },
    /// The organisation uses all memory that it may in a region: leave that region for a while.
    Quota {
        /// The region, if the text names it.
        region: Option<String>,
    },
    /// The organisation has as many machines as it may have. Stopped ones count.
    MachineLimit,
    /// The image is not there, or not there yet: right after a push, for up to a minute.
    ImageMissing,
    /// The request makes no sense to the server, and will not when repeated.
    Invalid,
    /// The token is none (401).
    Unauthorized,
    /// The token may not do this (403).
    Forbidden,
    /// It does not exist.
    NotFound {
        /// What.
        thing: Thing,
    },
    /// Somebody else holds the machine's lease: repeat later.
    LeaseHeld,
    /// Somebody else changed the machine at the same time: look, then repeat.
    ConcurrentUpdate,
    /// Another conflict (409).
    Conflict,
    /// The machine's state does not allow it (412).
    WrongState {
        /// Its state, if the text names it.
        state: Option<State>,
    },
    /// Its metadata or version is not the one that was meant (412).
    VersionMismatch,
    /// The version that was waited for was replaced: look, then wait for the next one.
    Replaced,
    /// 408 or 504. A wait was not reached; **anything else may have been done**.
    Timeout {
        /// The state that the machine was in, if the text of a wait names it.
        currently: Option<State>,
    },
    /// Any other 5xx. It may have been done.
    Server,
    /// The request did not leave: no address, no connection, no TLS.
    NotSent,
    /// The request left, and no answer came, or half of one, or one that makes no sense.
    AnswerLost,
    /// A status that is none of the above.
    Other,
}

impl Error {
    pub(crate) fn new(action: Action, kind: ErrorKind, text: impl Into<String>) -> Error {
        let text = bounded(text.into());
        let detail = text.clone();
        Error { action, kind, status: None, text, request_id: None, detail }
    }

    pub(crate) fn answered(mut self, status: u16, request_id: Option<&str>) -> Error {
        self.status = Some(status);
        self.request_id = request_id.map(str::to_owned);
        self.detail = match request_id {
            Some(id) => format!("{} (HTTP {status}, fly-request-id {id})", self.text),
            None => format!("{} (HTTP {status})", self.text),
        };
        self
    }

    /// Whether what was asked for may have been done all the same.
    ///
    /// A 408 on a create has been seen to be a success (fly.md section 5.1), so every answer
    /// that is not a clear refusal counts as "perhaps", for every call that changes something.
    pub fn happened(&self) -> Happened {
        if self.action.only_asks() {
            return Happened::No;
        }
        match &self.kind {
            ErrorKind::Timeout { .. } | ErrorKind::Server | ErrorKind::AnswerLost => {
                Happened::Maybe
            }
            _ if self.status.is_some_and(|status| status >= 500) => Happened::Maybe,
            _ => Happened::No,
        }
    }

    /// Whether the machine or app does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, ErrorKind::NotFound { .. })
    }

    /// Whether the same call may work later without anything else being changed.
    pub fn may_pass(&self) -> bool {
        match self.kind {
            ErrorKind::RateLimited { .. }
            | ErrorKind::Capacity { .. }
            | ErrorKind::Quota { .. }
            | ErrorKind::MachineLimit
            | ErrorKind::ImageMissing
            | ErrorKind::LeaseHeld
            | ErrorKind::ConcurrentUpdate
            | ErrorKind::Conflict
            | ErrorKind::WrongState { .. }
            | ErrorKind::Timeout { .. }
            | ErrorKind::Server
            | ErrorKind::NotSent
            | ErrorKind::AnswerLost => true,
            ErrorKind::NameTaken { .. }
            | ErrorKind::Invalid
            | ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::NotFound { .. }
            | ErrorKind::VersionMismatch
            | ErrorKind::Replaced
            | ErrorKind::Other => false,
        }
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Happened::No => "did not happen",
            Happened::Maybe => "may have happened",
        })
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
