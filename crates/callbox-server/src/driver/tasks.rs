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
    /// With the machine of the session that was the current one when they began.
    tasks: HashMap<Duty, (AbortHandle, u32)>,
    ends: FuturesUnordered<BoxFuture<'static, (Duty, Option<EventKind>)>>,
}

impl UnderWay {
    /// Aborts what is no longer owed, or is owed about another machine by now.
    pub fn keep(&mut self, owed: &[Duty], incarnation: u32) {
        for (duty, (task, of)) in &self.tasks {
            if !owed.contains(duty) || (is_about_a_machine(*duty) && *of != incarnation) {
                task.abort();
            }
        }
    }

    /// Whether neither the duty itself is under way nor what it undoes.
    pub fn may_begin(&self, duty: Duty) -> bool {
        let undoes: &[Duty] = match duty {
            // Whoever listens to it writes down nothing of it any more when the next one comes.
            Duty::DestroyMachine => &[Duty::EnsureMachine, Duty::Attend],
            Duty::CloseRoom => &[Duty::OpenRoom],
            _ => &[],
        };
        let under_way = |duty: &Duty| self.tasks.contains_key(duty);
        !under_way(&duty) && !undoes.iter().any(under_way)
    }

    /// Begins a duty.
    pub fn begin(
        &mut self,
        plane: &Plane,
        duty: Duty,
        incarnation: u32,
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
        self.tasks.insert(duty, (task.abort_handle(), incarnation));
        self.ends.push(Box::pin(async move { (duty, task.await.flatten()) }));
    }

    /// Resolves when a duty is over: with what came of it, or without anything if it was aborted
    /// or panicked. None while no duty is under way.
    pub async fn next(&mut self) -> Option<Option<EventKind>> {
        let (duty, kind) = self.ends.next().await?;
        self.tasks.remove(&duty);
        Some(kind)
    }
    /// Resolves when no duty is under way.
    pub async fn over(&mut self) {
        while self.next().await.is_some() {}
    }
}

fn is_about_a_machine(duty: Duty) -> bool {
    match duty {
        Duty::EnsureMachine | Duty::Attend | Duty::Warn | Duty::DestroyMachine => true,
        Duty::Admit | Duty::OpenRoom | Duty::WatchRoom | Duty::CloseRoom | Duty::WakeAt(_) => false,
    }
}
