//! Not letting more sessions in than Fly makes machines for: whoever waits for a limit waits in the
//! queue, with a place and an estimate, and nothing was bought for it yet.

use std::time::Duration;

use callbox_fly::Action;

use super::Inner;
use crate::{Admission, Claims, MachineSpec};

/// So many creates may wait for their turn in each app. With none, a session whose app has no turn
/// yet would hold up those behind it whose apps have.
const BACKLOG: usize = 3;

impl Inner {
    /// Whether the create for this machine has its turn soon.
    pub fn paced(&self, next: &MachineSpec, claimed: &Claims) -> Admission {
        let app = self.app_of(&next.name);
        let asked_for = |spec: &&MachineSpec| {
            self.app_of(&spec.name) == app && self.known_place(&spec.name).is_none()
        };
        let ahead = claimed.starting().filter(asked_for).count();
        if ahead < self.pace.left(Action::Create, app) + BACKLOG {
            return Admission::Granted;
        }
        let detail = format!("Fly is asked for no more machines at once in app {app}");
        Admission::Later { detail }
    }

    /// From one create to the next, with all apps in turn.
    pub fn start_pace(&self) -> Duration {
        let apps = u32::try_from(self.config.apps.len()).unwrap_or(u32::MAX);
        self.pace.each(Action::Create) / apps.max(1)
    }
}
