//! The clock. The only place that asks it.
//!
//! Deadlines are moments of the wall clock, because they must mean the same to the next
//! dispatcher. But the wall clock may be set while we run, and an hour forward would end every
//! call at once, an hour back would let none end. So a running dispatcher has a clock of its own:
//! it begins with the wall clock, goes on with the monotonic one, and follows a wall clock that
//! was set by one second in twenty at most.

use std::{
    sync::Mutex,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use callbox_core::Time;

/// Of the time that passes, this part may be added or left out to follow the wall clock.
const SLEW: i64 = 20;
/// A wall clock that is so far away was set, and did not merely drift.
const JUMP: Duration = Duration::from_secs(5);

static OURS: Mutex<Option<Ours>> = Mutex::new(None);

#[derive(Clone, Copy)]
struct Ours {
    time: Time,
    at: Instant,
    /// A jump was told; not again before the clocks have met.
    told: bool,
}

/// Now. Never goes back while this process runs.
pub fn now() -> Time {
    let mut ours = OURS.lock().expect("no panic while held");
    let (wall, at) = (wall(), Instant::now());
    let before = ours.unwrap_or(Ours { time: wall, at, told: false });
    let time = follow(before.time, at.saturating_duration_since(before.at), wall);
    let away = Duration::from_micros(wall.as_micros().abs_diff(time.as_micros()));
    if away > JUMP && !before.told {
        tracing::warn!(
            seconds = away.as_secs(),
            "the host's clock was set; deadlines follow it slowly"
        );
    }
    *ours = Some(Ours { time, at, told: away > JUMP });
    time
}

/// Our clock after `passed`, drawn towards the wall clock.
fn follow(before: Time, passed: Duration, wall: Time) -> Time {
    let passed = i64::try_from(passed.as_micros()).unwrap_or(i64::MAX);
    let due = before.as_micros().saturating_add(passed);
    let most = passed / SLEW;
    let correction = wall.as_micros().saturating_sub(due).clamp(-most, most);
    Time::from_micros(due.saturating_add(correction))
}

fn wall() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// As it appears on the wire: RFC 3339, UTC, microseconds.
pub fn rfc3339(time: Time) -> String {
    jiff::Timestamp::from_microsecond(time.as_micros())
        .map_or_else(|_| "out of range".into(), |timestamp| format!("{timestamp:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn at(micros: i64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn a_clock_that_is_set_is_followed_slowly_and_time_never_goes_back() {
        for (wall, expected) in [
            (10 * HOUR + 1_000_000, 10 * HOUR + 1_000_000),
            (11 * HOUR, 10 * HOUR + 1_050_000),
            (9 * HOUR, 10 * HOUR + 950_000),
            // A drift is followed at once.
            (10 * HOUR + 1_010_000, 10 * HOUR + 1_010_000),
        ] {
            assert_eq!(follow(at(10 * HOUR), SECOND, at(wall)), at(expected), "wall {wall}");
        }
        assert_eq!(follow(at(HOUR), Duration::ZERO, at(0)), at(HOUR));
    }

    #[test]
    fn it_arrives() {
        let mut ours = at(0);
        for second in 1..=200 {
            ours = follow(ours, SECOND, at(8_000_000 + second * 1_000_000));
        }
        assert_eq!(ours, at(208_000_000));
    }

    #[test]
    fn it_goes_forward() {
        let first = now();
        assert!(now() >= first);
    }
}
