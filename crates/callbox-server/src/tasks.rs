//! Where a dispatcher's tasks live: all of them can be ended at once, as a crash does.
//!
//! Whoever dies takes no further step. A test or a simulation that has two dispatchers in one
//! process, one after the other or side by side, needs the same: [`Tasks::halt`].

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of one dispatcher.
#[derive(Debug, Default)]
pub struct Tasks {
    halted: CancellationToken,
    under_way: TaskTracker,
}

/// A task that was spawned: resolves to its output, or to none if it was aborted or panicked, or
/// the dispatcher was halted. Goes on when this is dropped.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<Option<T>>);

impl Tasks {
    /// Has `future` run beside everything else. Where the dispatcher was halted it never begins.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let halted = self.halted.clone();
        Task(self.under_way.spawn(async move {
            tokio::select! {
                // A task that is woken by both takes no further step.
                biased;
                () = halted.cancelled_owned() => None,
                output = future => Some(output),
            }
        }))
    }

    /// Ends all tasks where they are: none takes another step, the one that asks for it included
    /// once it waits for something. What they hold is dropped as soon as the runtime comes by.
    pub fn halt(&self) {
        self.halted.cancel();
        self.under_way.close();
    }

    /// Waits until everything that halted tasks held is dropped.
    pub async fn gone(&self) {
        self.halted.cancelled().await;
        self.under_way.wait().await;
    }
}

impl<T> Task<T> {
    /// Ends it at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Something to end it with, for whoever does not hold it.
    pub fn abort_handle(&self) -> AbortHandle {
        self.0.abort_handle()
    }
}

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(context).map(|output| output.ok().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_is_halted_takes_no_further_step() {
        let tasks = Tasks::default();
        let (steps, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (counted, gone_on) = (Arc::clone(&steps), Arc::clone(&go));
        let task = tasks.spawn(async move {
            counted.fetch_add(1, Ordering::Relaxed);
            gone_on.notified().await;
            counted.fetch_add(1, Ordering::Relaxed);
        });
        tokio::task::yield_now().await;
        // Both at once: the halt is the one that counts.
        go.notify_one();
        tasks.halt();
        assert_eq!(task.await, None);
        tasks.gone().await;
        assert_eq!(steps.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&steps), 1, "what it held is dropped");
        assert_eq!(tasks.spawn(async { 1 }).await, None, "nothing begins after that");
    }

    #[tokio::test]
    async fn what_is_not_halted_comes_to_its_end() {
        assert_eq!(Tasks::default().spawn(async { 1 }).await, Some(1));
    }
}
