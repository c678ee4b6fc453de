//! The duties under way, each a task of its own, so that a slow one holds nobody up.
//!
//! To abort a task is to ask it to end: it goes on until its next await, and a start may make a
//! directory or a process until then. So it stays here until it is over, and what undoes it is
//! not begun before.

use std::{collections::HashMap, panic::AssertUnwindSafe, time::Duration};

use callbox_core::{Duty, EventKind};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use crate::plane::Plane;

/// Between a duty that panicked and its next attempt.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Default)]
pub(super) struct UnderWay {
    tasks: HashMap<Duty, AbortHandle>,
    ends: FuturesUnordered<BoxFuture<'static, (Duty, Option<EventKind>)>>,
}

impl UnderWay {
    /// Aborts what is no longer owed.
    pub fn keep(&mut self, owed: &[Duty]) {
        for (_, task) in self.tasks.iter().filter(|(duty, _)| !owed.contains(duty)) {
            task.abort();
        }
    }

    /// Whether neither the duty itself is under way nor what it undoes.
    pub fn may_begin(&self, duty: Duty) -> bool {
        let undoes = match duty {
            Duty::DestroyMachine => Some(Duty::EnsureMachine),
            Duty::CloseRoom => Some(Duty::OpenRoom),
            _ => None,
        };
        let under_way = |duty| self.tasks.contains_key(&duty);
        !under_way(duty) && !undoes.is_some_and(under_way)
    }

    /// Begins a duty.
    pub fn begin(
        &mut self,
        plane: &Plane,
        duty: Duty,
        work: impl Future<Output = EventKind> + Send + 'static,
    ) {
        let attempt = async move {
            let done = AssertUnwindSafe(work).catch_unwind().await;
            if done.is_err() {
                tracing::error!(?duty, "a duty panicked; it is begun again in a moment");
                tokio::time::sleep(AFTER_PANIC).await;
            }
            done.ok()
        };
        let task = plane.spawn(attempt.in_current_span());
        self.tasks.insert(duty, task.abort_handle());
        self.ends.push(Box::pin(async move { (duty, task.await.flatten()) }));
    }

    /// Resolves when a duty is over: with what came of it, or without anything if it was aborted
    /// or panicked. None while no duty is under way.
    pub async fn next(&mut self) -> Option<Option<EventKind>> {
        let (duty, kind) = self.ends.next().await?;
        self.tasks.remove(&duty);
        Some(kind)
    }
}
