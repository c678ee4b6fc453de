//! Looks all the time whether a session has two machines.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::host::Looker;

const EVERY: Duration = Duration::from_millis(250);
/// One machine may just end while the other begins; who has two has them for longer than this.
const STILL: Duration = Duration::from_millis(100);

/// Watches until it is asked what it saw.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    pub fn begin(home: &Path) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut looker) = (Arc::clone(&stop), Looker::new(home));
        let thread = std::thread::spawn(move || {
            let mut doubled = BTreeSet::new();
            while !stopped.load(Ordering::Acquire) {
                let first = looker.look().doubled();
                if !first.is_empty() {
                    std::thread::sleep(STILL);
                    doubled.extend(first.intersection(&looker.look().doubled()).cloned());
                }
                std::thread::sleep(EVERY);
            }
            doubled
        });
        Watch { stop, thread }
    }

    /// The sessions that had two machines at once.
    pub fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("it does not panic")
    }
}
