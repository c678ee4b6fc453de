//! How an outside call can fail, as far as the driver needs to know.

use std::fmt;

/// A failed call to a provider or a transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// What the caller may conclude from it.
    pub kind: FaultKind,
    /// What was attempted and what came of it, for people. Holds no secrets.
    pub detail: String,
}

/// What a caller may conclude from a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It did not happen, and will not happen when repeated as it is.
    Refused,
    /// It did not happen; the same call may work later.
    Unavailable,
    /// It may have happened: look before repeating.
    Unknown,
    /// What it is about does not exist.
    NotFound,
}

impl Fault {
    /// See [`FaultKind::Refused`].
    pub fn refused(detail: impl fmt::Display) -> Fault {
        Fault { kind: FaultKind::Refused, detail: detail.to_string() }
    }

    /// See [`FaultKind::Unavailable`].
    pub fn unavailable(detail: impl fmt::Display) -> Fault {
        Fault { kind: FaultKind::Unavailable, detail: detail.to_string() }
    }

    /// See [`FaultKind::Unknown`].
    pub fn unknown(detail: impl fmt::Display) -> Fault {
        Fault { kind: FaultKind::Unknown, detail: detail.to_string() }
    }

    /// See [`FaultKind::NotFound`].
    pub fn not_found(detail: impl fmt::Display) -> Fault {
        Fault { kind: FaultKind::NotFound, detail: detail.to_string() }
    }
}
