//! How long things take: never the same twice, and sometimes much longer.

use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// A distribution of durations: log-normal, as waiting times of such systems are. Half are
/// below the median, one in a hundred is above `p99_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Milliseconds.
    pub median_ms: u64,
    /// Milliseconds; the median, if that is more.
    pub p99_ms: u64,
}

/// The standard normal distribution's value that one in a hundred exceeds.
const P99: f64 = 2.326;

impl Spread {
    /// No time at all.
    pub const NONE: Spread = Spread { median_ms: 0, p99_ms: 0 };

    /// Always the same.
    pub const fn fixed(millis: u64) -> Spread {
        Spread { median_ms: millis, p99_ms: millis }
    }

    /// Half below `median_ms`, one in a hundred above `p99_ms`.
    pub const fn of(median_ms: u64, p99_ms: u64) -> Spread {
        Spread { median_ms, p99_ms }
    }

    /// One of them.
    pub fn draw(&self, rng: &mut Rng) -> Duration {
        if self.p99_ms <= self.median_ms || self.median_ms == 0 {
            return Duration::from_millis(self.median_ms);
        }
        let (median, p99) = (self.median_ms as f64, self.p99_ms as f64);
        let sigma = (p99 / median).ln() / P99;
        // Box and Muller; 1 - x is never 0.
        let normal =
            (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
        // Nobody waits for the end of the tail: four times p99 is enough.
        let millis = (median * (sigma * normal).exp()).min(4.0 * p99);
        Duration::from_secs_f64(millis / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_are_below_the_median_and_few_above_p99() {
        let mut rng = Rng::with_seed(7);
        let spread = Spread::of(300, 1000);
        let drawn: Vec<Duration> = (0..20_000).map(|_| spread.draw(&mut rng)).collect();
        let above = |millis| drawn.iter().filter(|d| d.as_millis() > millis).count();
        assert!((9_500..10_500).contains(&above(300)), "{}", above(300));
        assert!((100..300).contains(&above(1000)), "{}", above(1000));
        assert_eq!(Spread::fixed(5).draw(&mut rng), Duration::from_millis(5));
        assert_eq!(Spread::NONE.draw(&mut rng), Duration::ZERO);
    }
}
