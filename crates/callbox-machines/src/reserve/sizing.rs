//! How many machines a bot's reserve should hold: from how often sessions come and how long a
//! machine takes to make, not from a guess.
//!
//! Machines are made one after the other, each in `refill` seconds, while sessions come at `rate`
//! a second. Then `rho = rate * refill` of the maker's time is spent, and at most `rho^n` of the
//! sessions find a reserve of `n` empty: machines that are owed form a queue, and its length is
//! geometric (M/M/1; making takes nearly the same time each time, which makes the real queue
//! shorter still). The smallest `n` with `1 - rho^n >= target_hit_ratio` is the target.

use std::time::Duration;

use crate::ReserveSize;

/// Spans over which arrivals are averaged: the short one sees a burst at once, the long one
/// does not forget it at once.
const SPANS: [f64; 2] = [10.0, 120.0];
/// What making a machine is taken to need before one was made, in seconds.
const FIRST_GUESS: f64 = 1.0;
/// How much the newest measurement counts.
const NEWEST: f64 = 0.3;

/// What was seen of one bot's sessions and of its reserve's making.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Sessions a second, over each of [`SPANS`], as of `at`.
    rates: [f64; 2],
    at: Duration,
    refill_s: Option<f64>,
}

impl Seen {
    /// A session came. `now` is a time since some beginning; it never goes back.
    pub fn arrival(&mut self, now: Duration) {
        self.pass(now);
        for (rate, span) in self.rates.iter_mut().zip(SPANS) {
            *rate += 1.0 / span;
        }
    }

    /// A machine was made.
    pub fn made(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let before = self.refill_s.unwrap_or(took);
        self.refill_s = Some(before + NEWEST * (took - before));
    }

    /// How many machines there should be now.
    pub fn target(&mut self, size: &ReserveSize, now: Duration) -> usize {
        self.pass(now);
        let rate = self.rates.iter().copied().fold(0.0, f64::max);
        let rho = rate * self.refill_s.unwrap_or(FIRST_GUESS);
        needed(rho, size.target_hit_ratio).clamp(size.min, size.max.max(size.min))
    }

    /// What was seen fades.
    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        for (rate, span) in self.rates.iter_mut().zip(SPANS) {
            *rate *= (-passed / span).exp();
        }
        self.at = self.at.max(now);
    }
}

/// The smallest `n` for which at most `1 - ratio` of the sessions find nothing.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded right before
fn needed(rho: f64, ratio: f64) -> usize {
    // Less than one session in ten minutes is none: what it costs to wait for it is not little.
    const NONE: f64 = 1e-3;
    if rho < NONE {
        return 0;
    }
    if rho >= 1.0 {
        return usize::MAX;
    }
    let machines = ((1.0 - ratio).ln() / rho.ln()).ceil();
    if machines.is_finite() { machines.clamp(1.0, 1e6) as usize } else { usize::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ReserveSize =
        ReserveSize { min: 1, max: 20, target_hit_ratio: 0.95, ..ReserveSize::NONE };

    #[test]
    fn a_table_of_targets() {
        for (rho, ratio, expected) in [
            (0.0, 0.95, 0),
            (0.05, 0.95, 1),
            (0.1, 0.99, 2),
            (0.5, 0.95, 5),
            (0.9, 0.95, 29),
            (1.0, 0.95, usize::MAX),
        ] {
            assert_eq!(needed(rho, ratio), expected, "rho {rho}, ratio {ratio}");
        }
    }

    #[test]
    fn it_grows_with_a_burst_and_shrinks_when_nobody_comes() {
        let mut seen = Seen::default();
        assert_eq!(seen.target(&SIZE, Duration::ZERO), 1, "never less than the least");
        seen.made(Duration::from_millis(800));
        for second in 1..=10 {
            seen.arrival(Duration::from_secs(second));
        }
        let busy = seen.target(&SIZE, Duration::from_secs(10));
        assert!((4..=20).contains(&busy), "{busy}");
        assert_eq!(seen.target(&SIZE, Duration::from_secs(1800)), 1);
    }

    #[test]
    fn what_cannot_be_kept_up_with_meets_the_most() {
        let mut seen = Seen::default();
        seen.made(Duration::from_secs(20));
        for second in 0..60 {
            seen.arrival(Duration::from_secs(second));
        }
        assert_eq!(seen.target(&SIZE, Duration::from_secs(60)), 20);
        let none = ReserveSize { min: 0, max: 0, ..SIZE };
        assert_eq!(seen.target(&none, Duration::from_secs(60)), 0, "no reserve is no reserve");
    }

    #[test]
    fn a_clock_that_stands_still_or_jumps_is_no_trouble() {
        let mut seen = Seen::default();
        seen.arrival(Duration::from_secs(100));
        seen.arrival(Duration::from_secs(50));
        assert!(seen.target(&SIZE, Duration::from_secs(50)) >= 1);
        assert_eq!(seen.target(&SIZE, Duration::MAX), 1);
    }
}
