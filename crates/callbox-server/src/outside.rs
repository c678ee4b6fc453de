//! The calls to the world outside by which sessions come and go: each is timed under its name, and
//! each is a point after which a dispatcher may die.
//!
//! With the feature `crash-points`, which only tests build, it does: after so many calls as
//! `CRASH_AFTER_CALL` says, before anything is made of the last one's answer. The names of the
//! calls go, one a line, to the file that `CRASH_TRACE` names.

use std::time::{Duration, Instant};

use callbox_core::Fault;
use tokio::time::timeout;

use crate::metrics;

/// How long an answer of a provider or a transport is waited for: longer than any of them waits
/// for its vendor. Only `ensure` has all the time that the session's row gives it.
pub(crate) const ANSWER: Duration = Duration::from_secs(45);

/// Makes one call, by name: `store.save`, `machine.ensure`, ...
pub(crate) async fn call<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let answer = work.await;
    metrics::outside(name, began.elapsed());
    #[cfg(feature = "crash-points")]
    crash_point::passed(name);
    answer
}

/// Waits for a call, but not for ever: who says nothing for so long may have done what was asked.
pub(crate) async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let silent = |_| Fault::unknown(format!("there is no answer for {} s", limit.as_secs()));
    timeout(limit, work).await.map_err(silent)?
}

#[cfg(feature = "crash-points")]
mod crash_point {
    use std::{
        fs::OpenOptions,
        io::Write as _,
        sync::atomic::{AtomicU64, Ordering},
    };

    static CALLS: AtomicU64 = AtomicU64::new(0);

    /// Ends the process where it stands: nothing is closed, told or written any more.
    pub(super) fn passed(name: &str) {
        let calls = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(trace) = std::env::var_os("CRASH_TRACE") {
            let line = format!("{name}\n");
            let file = OpenOptions::new().create(true).append(true).open(trace);
            file.and_then(|mut file| file.write_all(line.as_bytes()))
                .expect("a test that names a trace can have it written");
        }
        let last = std::env::var("CRASH_AFTER_CALL").ok().and_then(|k| k.parse::<u64>().ok());
        if last == Some(calls) {
            std::process::abort();
        }
    }
}
