//! Chance, from the seed.

use std::time::Duration;

/// Scrambles a number (splitmix64's last step).
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A sequence of throws.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The throws of this seed, for one `purpose`: what one of them draws moves no other's.
    pub fn of(seed: u64, purpose: u64) -> Dice {
        Dice(mix(seed ^ mix(purpose)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 to 1, without 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.part() < probability
    }

    /// From `low` to `high`, both included.
    pub fn number(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.number(0, all.len() as u64 - 1) as usize]
    }

    /// Anything between the two, in milliseconds.
    pub fn between(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        let span = (high_ms - low_ms) as f64 * 1000.0 * self.part();
        Duration::from_micros(low_ms * 1000 + span as u64)
    }

    /// How long a call takes: mostly about `typical`, now and then many times as long.
    pub fn latency(&mut self, typical_ms: f64) -> Duration {
        let stretch = if self.happens(0.02) { 30.0 } else { 0.3 + 1.4 * self.part() };
        Duration::from_micros((typical_ms * 1000.0 * stretch) as u64)
    }

    /// Dice of their own, for somebody new.
    pub fn fork(&mut self) -> Dice {
        Dice(self.next())
    }
}
