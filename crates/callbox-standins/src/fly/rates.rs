//! Token buckets by action and scope (fly.md section 5.1).

use std::collections::HashMap;

use callbox_fly::limits::{Rate, Scope, rate};
use callbox_fly::{Action, limits};
use tokio::time::Instant;

/// From so many buckets on, those that are full again are forgotten.
const MANY: usize = 10_000;

#[derive(Debug, Default)]
pub struct Rates {
    buckets: HashMap<(Action, String), Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// Takes one call out of its bucket; whether there was one.
    pub fn take(&mut self, action: Action, app: &str, machine: &str, now: Instant) -> bool {
        let (scope, rate) = rate(action);
        let of = match scope {
            Scope::Account => String::new(),
            Scope::App => app.to_owned(),
            Scope::Machine => format!("{app}/{machine}"),
        };
        if self.buckets.len() > MANY {
            self.buckets.retain(|(action, _), bucket| {
                let (_, rate) = limits::rate(*action);
                bucket.level(rate, now) < f64::from(rate.burst)
            });
        }
        let bucket = self
            .buckets
            .entry((action, of))
            .or_insert_with(|| Bucket { tokens: f64::from(rate.burst), at: now });
        bucket.tokens = bucket.level(rate, now);
        bucket.at = now;
        let there = bucket.tokens >= 1.0;
        if there {
            bucket.tokens -= 1.0;
        }
        there
    }
}

impl Bucket {
    fn level(&self, rate: Rate, now: Instant) -> f64 {
        let gone = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + gone * rate.per_second).min(f64::from(rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let mut rates = Rates::default();
        let start = Instant::now();
        let mut take = |after: f64, app: &str| {
            rates.take(Action::Create, app, "", start + Duration::from_secs_f64(after))
        };
        assert_eq!([0; 4].map(|_| take(0.0, "a")), [true, true, true, false]);
        assert!(take(0.0, "b"), "another app has its own bucket");
        assert!(!take(0.9, "a"));
        assert!(take(1.1, "a"));
        assert!(!take(1.2, "a"));
        assert_eq!([0; 4].map(|_| take(100.0, "a")), [true, true, true, false]);
    }

    #[test]
    fn machines_have_their_own_and_get_is_quicker() {
        let mut rates = Rates::default();
        let now = Instant::now();
        let got = (0..20).filter(|_| rates.take(Action::Get, "a", "m1", now)).count();
        assert_eq!(got, 10);
        assert!(rates.take(Action::Get, "a", "m2", now));
    }
}
