//! Requests by action: what a session costs in calls.

use std::collections::BTreeMap;

use callbox_fly::Action;
use serde::{Deserialize, Serialize};

/// Requests by [`Action::name`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Calls {
    /// By action.
    pub actions: BTreeMap<String, Counted>,
}

/// Requests of one action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Counted {
    /// All of them, whatever became of them.
    pub calls: u64,
    /// By the status that was answered; `0` where the connection was cut.
    pub statuses: BTreeMap<u16, u64>,
}

impl Calls {
    pub(super) fn begun(&mut self, action: Action) {
        self.actions.entry(action.name().to_owned()).or_default().calls += 1;
    }

    pub(super) fn answered(&mut self, action: Action, status: u16) {
        let counted = self.actions.entry(action.name().to_owned()).or_default();
        *counted.statuses.entry(status).or_default() += 1;
    }

    /// How often an action was called.
    pub fn of(&self, action: Action) -> u64 {
        self.actions.get(action.name()).map_or(0, |counted| counted.calls)
    }

    /// How often an action was answered with a status.
    pub fn answers(&self, action: Action, status: u16) -> u64 {
        let counted = self.actions.get(action.name());
        counted.and_then(|counted| counted.statuses.get(&status)).copied().unwrap_or_default()
    }
}
