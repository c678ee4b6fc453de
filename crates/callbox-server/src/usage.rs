//! What a session's machine uses: asked for when its bot is ready, when it is first heard, every
//! few seconds, and before the machine is taken away.
//!
//! The row gets what belongs to a moment; what lies in between is only kept here until then, so
//! that a call costs no writes.

use std::{sync::Arc, time::Duration};

use callbox_core::{EventKind, MachineState, Session, UsageAt, UsageSeen};
use tokio::sync::{mpsc, watch};

use crate::{outside::in_time, plane::Plane};

/// Between two measurements of a machine that has nothing special to show.
const EVERY: Duration = Duration::from_secs(5);

/// After a machine that could not be measured.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// How long an answer is waited for: nothing hangs on it, and a tear-down waits for the last one.
const ANSWER: Duration = Duration::from_secs(5);

/// What was seen of one session's machine.
#[derive(Clone)]
pub(crate) struct Meter {
    pub plane: Arc<Plane>,
    pub seen: Arc<watch::Sender<Option<UsageSeen>>>,
    pub inbox: mpsc::UnboundedSender<EventKind>,
}

impl Meter {
    /// Measures until the session's last machine is on its way out.
    pub async fn run(self, mut session: watch::Receiver<Session>) {
        let mut incarnation = session.borrow().incarnation.max(1);
        loop {
            let now = session.wait_for(|now| running(now) || ends(now)).await;
            let Ok(now) = now.map(|now| now.clone()) else { return };
            if now.incarnation != incarnation {
                // Another machine: what was seen of the one before is no part of it.
                incarnation = now.incarnation;
                self.seen.send_replace(None);
            }
            let (at, moment) = self.next(&now);
            if ends(&now) || !self.measure(&now, at).await {
                return;
            }
            if moment && self.next(&now) == (at, true) {
                tokio::time::sleep(AFTER_FAILURE).await;
            } else if !moment {
                let next = session.wait_for(|now| {
                    ends(now) || now.incarnation != incarnation || self.next(now).1
                });
                if let Ok(Err(_gone)) = tokio::time::timeout(EVERY, next).await {
                    return;
                }
            }
        }
    }

    /// What to measure now, and whether it is a moment that the row wants.
    fn next(&self, session: &Session) -> (UsageAt, bool) {
        let seen = self.seen.borrow().unwrap_or_default();
        // That moment is the first machine's.
        let audible = session.moments.audible.is_some() && session.incarnation <= 1;
        if !running(session) {
            (UsageAt::Between, false)
        } else if session.ready && seen.ready_unique_bytes.is_none() {
            (UsageAt::Ready, true)
        } else if audible && seen.audible_unique_bytes.is_none() {
            (UsageAt::Audible, true)
        } else {
            (UsageAt::Between, false)
        }
    }

    /// False where nothing can be measured, now or ever.
    pub async fn measure(&self, session: &Session, at: UsageAt) -> bool {
        let Some(provider) = self.plane.providers.get(session.provider.as_str()) else {
            return false;
        };
        let Some(name) = session.machine_name() else { return false };
        match in_time(ANSWER, provider.usage(&name)).await {
            Ok(Some(usage)) => {
                let seen = self.seen.borrow().unwrap_or_default().with(usage, at);
                self.seen.send_replace(Some(seen));
                if at != UsageAt::Between {
                    let _ = self.inbox.send(EventKind::Measured(seen));
                }
                true
            }
            Ok(None) => false,
            Err(fault) => {
                tracing::debug!(machine = name, %fault, "cannot measure a machine");
                // It may be replaced; then there is another one to measure.
                true
            }
        }
    }
}

fn running(session: &Session) -> bool {
    session.machine == MachineState::Running
}

fn ends(session: &Session) -> bool {
    session.state.why().is_some()
}
