//! `callbox ps --memory`: what each machine has for itself, and what all of them share.

use callbox_protocol::api::{Session, Usage};
use jiff::Timestamp;
use serde::Serialize;

use super::{age_text, draw, nothing, short, state_text};
use crate::terminal::{DIM, Look, printable};
use crate::waterfall::span;

/// Of the sessions that were listed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Total {
    /// How many machines were measured.
    machines: usize,
    /// What they have for themselves, together.
    unique_bytes: u64,
    /// The most that one of them ever had for itself.
    highest_unique_bytes: u64,
}

impl Total {
    pub fn of(sessions: &[Session]) -> Total {
        let usages = || sessions.iter().filter_map(|session| session.usage.as_ref());
        Total {
            machines: usages().count(),
            unique_bytes: usages().map(|usage| usage.unique_bytes).fold(0, u64::saturating_add),
            highest_unique_bytes: usages().map(|u| u.highest_unique_bytes).max().unwrap_or(0),
        }
    }
}

pub fn table(sessions: &[Session], now: Timestamp, look: Look) -> String {
    let header =
        ["SESSION", "BOT", "STATE", "START", "UNIQUE", "AT READY", "PEAK", "SHARED", "CPU", "AGE"];
    let rows = draw(&header, 4, sessions, |session| cells(session, now), look);
    let Total { machines, unique_bytes, .. } = Total::of(sessions);
    let total = format!("{machines} machines, {} of their own in all", mebibytes(unique_bytes));
    format!("{rows}{}\n", look.paint(DIM, total))
}

fn cells(session: &Session, now: Timestamp) -> [String; 10] {
    let of = |pick: fn(&Usage) -> Option<u64>| {
        session.usage.as_ref().and_then(pick).map_or_else(nothing, mebibytes)
    };
    [
        short(session),
        printable(&session.bot),
        state_text(session),
        session.start.as_deref().map_or_else(nothing, printable),
        of(|usage| Some(usage.unique_bytes)),
        of(|usage| usage.ready_unique_bytes),
        of(|usage| Some(usage.highest_unique_bytes)),
        of(|usage| Some(usage.shared_bytes)),
        session.usage.as_ref().map_or_else(nothing, |usage| span(usage.cpu_ms)),
        age_text(session, now),
    ]
}

/// `76.2 MiB`.
pub fn mebibytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.1} MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_of_what_was_measured() {
        let nobody = Total { machines: 0, unique_bytes: 0, highest_unique_bytes: 0 };
        assert_eq!(Total::of(&[]), nobody);
        assert_eq!(mebibytes(79_901_491), "76.2 MiB");
    }
}
