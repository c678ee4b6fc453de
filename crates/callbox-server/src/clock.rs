//! The wall clock. The only place that asks it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callbox_core::Time;

/// Now.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// As it appears on the wire: RFC 3339, UTC, microseconds.
pub fn rfc3339(time: Time) -> String {
    jiff::Timestamp::from_microsecond(time.as_micros())
        .map_or_else(|_| "out of range".into(), |timestamp| format!("{timestamp:.6}"))
}
