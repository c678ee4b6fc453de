//! The stand-in's clock: wall time that goes with Tokio's, so that it is paused with it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    wall: Timestamp,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { started: Instant::now(), wall: Timestamp::now() }
    }

    pub fn now(&self) -> Timestamp {
        let gone = i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.wall.checked_add(jiff::SignedDuration::from_nanos(gone)).unwrap_or(self.wall)
    }
}

/// How long ago; nothing for what is to come.
pub fn since(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
