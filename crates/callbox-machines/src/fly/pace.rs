//! Not asking more often than Fly answers: a token bucket for each action and what it counts for
//! (`callbox_fly::limits`). Whoever waits for a turn gets it in the order in which they came, and
//! may stop waiting at any time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use callbox_fly::{
    Action,
    limits::{Rate, rate},
};
use tokio::{
    sync::Mutex as Turns,
    time::{Instant, sleep},
};

/// From so many buckets on, those that are full again are forgotten: they are as good as new ones.
const MANY: usize = 1000;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Pace {
    buckets: Mutex<HashMap<Key, Arc<Turns<Bucket>>>>,
}

/// What is done, and the app or machine that it is counted for.
type Key = (Action, String);

struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// Waits for the next turn of this action on this app or machine.
    pub async fn turn(&self, action: Action, of: &str) {
        let bucket = self.bucket(action, of);
        // Held while waiting: whoever comes later waits behind.
        let mut bucket = bucket.lock().await;
        bucket.refill();
        if bucket.tokens < 1.0 {
            sleep(Duration::from_secs_f64((1.0 - bucket.tokens) / bucket.rate.per_second)).await;
            bucket.refill();
        }
        bucket.tokens -= 1.0;
    }

    /// Fly said that this was too often: somebody else asks, too. Nobody here asks before `pause`
    /// is over.
    pub async fn too_often(&self, action: Action, of: &str, pause: Duration) {
        let bucket = self.bucket(action, of);
        let mut bucket = bucket.lock().await;
        bucket.refill();
        bucket.tokens = bucket.tokens.min(1.0 - pause.as_secs_f64() * bucket.rate.per_second);
    }

    fn bucket(&self, action: Action, of: &str) -> Arc<Turns<Bucket>> {
        let (_, Rate { per_second, burst }) = rate(action);
        // One less at once than is allowed: calls arrive less evenly than they are sent.
        let rate = Rate { per_second, burst: burst.saturating_sub(1).max(1) };
        let mut buckets = self.buckets.lock().expect("no panic while held");
        if buckets.len() >= MANY {
            buckets.retain(|_, bucket| match bucket.try_lock() {
                Ok(mut bucket) => !bucket.refill(),
                Err(_) => true,
            });
        }
        let (tokens, at) = (f64::from(rate.burst), Instant::now());
        let full = || Arc::new(Turns::new(Bucket { rate, tokens, at }));
        Arc::clone(buckets.entry((action, of.to_owned())).or_insert_with(full))
    }
}

impl Bucket {
    /// Whether it is full.
    fn refill(&mut self) -> bool {
        let (now, burst) = (Instant::now(), f64::from(self.rate.burst));
        self.tokens += now.duration_since(self.at).as_secs_f64() * self.rate.per_second;
        self.tokens = self.tokens.min(burst);
        self.at = now;
        self.tokens >= burst
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_one_a_second_for_each_app() {
        let pace = Pace::default();
        let began = Instant::now();
        let mut at = Vec::new();
        for _ in 0..5 {
            pace.turn(Action::Create, "one").await;
            at.push(began.elapsed().as_secs());
        }
        assert_eq!(at, [0, 0, 1, 2, 3]);
        pace.turn(Action::Create, "two").await;
        pace.turn(Action::List, "one").await;
        assert_eq!(began.elapsed().as_secs(), 3, "others have their own");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stops_waiting_costs_nobody_a_turn() {
        let pace = Pace::default();
        for _ in 0..2 {
            pace.turn(Action::Create, "one").await;
        }
        for _ in 0..10 {
            let gave_up = timeout(Duration::from_millis(10), pace.turn(Action::Create, "one"));
            assert!(gave_up.await.is_err());
        }
        let began = Instant::now();
        pace.turn(Action::Create, "one").await;
        assert!(began.elapsed() < Duration::from_secs(1));
        pace.too_often(Action::Create, "one", Duration::from_secs(5)).await;
        let began = Instant::now();
        pace.turn(Action::Create, "one").await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn machines_that_are_gone_leave_nothing() {
        let pace = Pace::default();
        for machine in 0..3 * MANY {
            pace.turn(Action::Get, &machine.to_string()).await;
            if machine % MANY == 0 {
                sleep(Duration::from_secs(10)).await;
            }
        }
        assert!(pace.buckets.lock().expect("fine").len() <= 2 * MANY);
    }
}
