//! What a burst showed.

use std::collections::BTreeMap;

use callbox_standins::fly::Calls;
use serde::Serialize;

use crate::bench::distribution::Distribution;
use crate::bench::host::Host;

/// All scenes of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    pub provider: &'static str,
    pub callbox: &'static str,
    pub at: jiff::Timestamp,
    pub host: Host,
    pub optimized: bool,
    /// Sessions that were asked for at once in each scene.
    pub starts: usize,
    pub scenes: Vec<Scene>,
}

/// So many starts at once, and what became of them.
#[derive(Debug, Serialize)]
pub struct Scene {
    pub name: String,
    pub apps: usize,
    /// Machines that waited in reserve when it began.
    pub reserve: usize,
    pub reserve_kind: Option<String>,
    /// Machines that the account may have, running or not.
    pub machine_cap: u32,
    /// Sessions whose bot became ready.
    pub ready: usize,
    /// Starts that were refused with a time to come back; nothing was bought for them.
    pub refused: usize,
    /// What became of all others, by reason.
    pub failed: BTreeMap<String, usize>,
    /// From the request to the answer.
    pub answer_ms: Option<Distribution>,
    /// From the request to the bot's readiness, the queue included.
    pub ready_ms: Option<Distribution>,
    /// From its turn to the bot's readiness.
    pub start_ms: Option<Distribution>,
    /// From the first request until nothing of any session was left.
    pub seconds: f64,
    /// How sessions got their machines: `cold`, or from what reserve.
    pub from: BTreeMap<String, usize>,
    /// Names that two machines ran under.
    pub bought_twice: usize,
    /// Machines of sessions that were there when all sessions had ended.
    pub left: usize,
    /// What Fly was asked, by action, from the first request to the last end.
    pub calls: Calls,
}

impl Scene {
    /// Calls that were refused for coming too often.
    pub fn too_often(&self) -> u64 {
        let refused =
            |counted: &callbox_standins::fly::Counted| counted.statuses.get(&429).copied();
        self.calls.actions.values().filter_map(refused).sum()
    }

    /// Whether nothing happened that must not.
    pub fn good(&self) -> bool {
        self.failed.is_empty() && self.bought_twice == 0 && self.left == 0
    }
}
