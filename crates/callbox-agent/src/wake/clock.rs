//! The wall clock, as the host has it.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use callbox_protocol::agent::{Clock, Phase};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::machine::Machine;
use crate::refusal::Refusal;

/// A clock that differs by so much is wrong, and not only read over a network.
const WRONG: Duration = Duration::from_secs(2);

/// Sets the clock of a machine that is awake once more.
pub(crate) fn set_again(
    machine: &Machine,
    clock: &Clock,
    came_at: Instant,
) -> Result<Clock, Refusal> {
    let phase = machine.phase();
    // A bot in a session has better use for a clock that does not jump.
    if phase != Phase::Awake {
        return Err(Refusal::wrong_phase("clock", phase));
    }
    let hosts = parse(&clock.unix_ns)?;
    if machine.place.is_init() {
        set(hosts, came_at)
            .map_err(|error| Refusal::not_reseeded(format!("the clock was not set: {error}")))?;
    }
    Ok(Clock { unix_ns: now() })
}

/// The machine's clock.
pub(crate) fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos().to_string()
}

/// The host's clock, from a request.
pub(super) fn parse(unix_ns: &str) -> Result<i128, Refusal> {
    unix_ns.parse().map_err(|_| Refusal::bad_request("unix_ns must be a decimal number"))
}

/// Sets the clock to what the host's is now, if it was `hosts` when the request came.
pub(super) fn set(hosts: i128, came_at: Instant) -> io::Result<()> {
    Ok(clock_settime(ClockId::Realtime, after(hosts, came_at.elapsed()))?)
}

/// A machine that somebody else keeps has a better clock than a network's delay would give it,
/// unless it was asleep: then it is set, as far as that is allowed.
pub(super) fn keep(hosts: i128, came_at: Instant) -> io::Result<()> {
    let own = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
    let hosts_now = hosts.saturating_add(came_at.elapsed().as_nanos() as i128);
    if own.abs_diff(hosts_now) <= WRONG.as_nanos() {
        return Ok(());
    }
    set(hosts, came_at)
}

/// What the agent took to read the request would be missing on the clock otherwise: tens of
/// milliseconds where the processor is emulated and sees this code for the first time.
fn after(hosts: i128, elapsed: Duration) -> Timespec {
    const SECOND: i128 = 1_000_000_000;
    let now = hosts.saturating_add(elapsed.as_nanos() as i128);
    Timespec {
        tv_sec: i64::try_from(now.div_euclid(SECOND)).unwrap_or_default(),
        tv_nsec: now.rem_euclid(SECOND) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_what_the_hosts_is_by_now() {
        let now = after(1_700_000_000_123_456_789, Duration::from_millis(900));
        assert_eq!((now.tv_sec, now.tv_nsec), (1_700_000_001, 23_456_789));
        assert!(parse("noon").is_err());
    }
}
