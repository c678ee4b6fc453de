//! How far clocks are off, and how well that is known.

use std::time::Duration;

use serde_json::{Value, json};

/// How far a clock may be off.
pub const TARGET_MS: f64 = 50.0;

/// One question for the time, in the manner of NTP: the answer was given somewhere between its
/// sending and its coming, so the middle is the best guess, and half the way the doubt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Machine's clock less host's, in milliseconds.
    pub offset_ms: f64,
    /// The truth is at most so far from that.
    pub uncertain: Duration,
}

impl Probe {
    /// All three in nanoseconds since the epoch.
    pub fn new(sent: i128, told: i128, came: i128) -> Probe {
        let half = (came - sent) / 2;
        Probe {
            offset_ms: (told - sent - half) as f64 / 1e6,
            uncertain: Duration::from_nanos(u64::try_from(half).unwrap_or(0)),
        }
    }

    /// How far the clock is off in the worst case.
    fn worst_ms(&self) -> f64 {
        self.offset_ms.abs() + self.uncertain.as_secs_f64() * 1e3
    }
}

/// The clocks of all clones.
pub struct Clocks(pub Vec<Probe>);

impl Clocks {
    fn sorted(&self, of: impl Fn(&Probe) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.0.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// How many are within the target, even in the worst case.
    pub fn within(&self) -> usize {
        self.0.iter().filter(|probe| probe.worst_ms() < TARGET_MS).count()
    }

    pub fn json(&self) -> Value {
        let (errors, worst) = (self.sorted(|p| p.offset_ms.abs()), self.sorted(Probe::worst_ms));
        let spread = |values: &[f64]| {
            let at = |percent| rounded(nearest_rank(values, percent));
            json!({ "min": at(0), "p50": at(50), "p95": at(95), "max": at(100) })
        };
        json!({
            "target_ms": TARGET_MS,
            "clones": self.0.len(),
            "within_target": self.within(),
            "error_ms": spread(&errors),
            "error_with_doubt_ms": spread(&worst),
        })
    }
}

/// Every number printed was measured.
fn nearest_rank(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

fn rounded(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_way_is_the_guess_and_half_of_it_the_doubt() {
        let probe = Probe::new(1_000_000_000, 1_025_000_000, 1_030_000_000);
        assert_eq!(probe.offset_ms, 10.0);
        assert_eq!(probe.uncertain, Duration::from_millis(15));
        assert_eq!(probe.worst_ms(), 25.0);
        let late = Probe::new(1_000_000_000, 900_000_000, 1_002_000_000);
        assert_eq!((late.offset_ms, late.worst_ms()), (-101.0, 102.0));
        assert_eq!(Clocks(vec![probe, late]).within(), 1);
        let json = Clocks(vec![probe, late]).json();
        assert_eq!(json["error_ms"], json!({"min": 10.0, "p50": 10.0, "p95": 101.0, "max": 101.0}));
    }
}
