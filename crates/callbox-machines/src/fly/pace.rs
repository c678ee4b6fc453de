//! Not asking more often than Fly answers: a token bucket for each action and what it counts for
//! (`callbox_fly::limits`). Whoever waits for a turn gets it in the order in which they came, and
//! may stop waiting at any time.
//!
//! What Fly counts for an account or an app, all dispatchers use up together: each keeps to its
//! part. What it counts for a machine, only the one that drives its session does.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use callbox_fly::{
    Action,
    limits::{Rate, Scope, rate},
};
use tokio::{
    sync::Mutex as Turns,
    time::{Instant, sleep},
};

/// From so many buckets on, those that are full again are forgotten: they are as good as new ones.
const MANY: usize = 1000;

/// See the module's documentation.
pub(super) struct Pace {
    buckets: Mutex<HashMap<Key, Arc<Turns<Bucket>>>>,
    replicas: AtomicUsize,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { buckets: Mutex::default(), replicas: AtomicUsize::new(1) }
    }
}

/// As good as one: time is measured in whole nanoseconds.
const ALL_BUT_ONE: f64 = 1.0 - 1e-6;

/// What is done, and the app or machine that it is counted for.
type Key = (Action, String);

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// Waits for the next turn of this action on this app or machine.
    pub async fn turn(&self, action: Action, of: &str) {
        let bucket = self.bucket(action, of);
        // Held while waiting: whoever comes later waits behind.
        let mut bucket = bucket.lock().await;
        loop {
            // Asked each time: meanwhile others may have come, or gone.
            let rate = self.part(action);
            bucket.refill(rate);
            if bucket.tokens >= ALL_BUT_ONE {
                break;
            }
            sleep(Duration::from_secs_f64((1.0 - bucket.tokens) / rate.per_second)).await;
        }
        bucket.tokens -= 1.0;
    }

    /// So many dispatchers ask from now on, this one among them.
    pub fn share(&self, replicas: usize) {
        self.replicas.store(replicas.max(1), Ordering::Relaxed);
    }

    /// How many turns there are now, beside those that somebody waits for.
    pub fn left(&self, action: Action, of: &str) -> usize {
        let bucket = self.bucket(action, of);
        // Who waits holds it, and there is none.
        let Ok(mut bucket) = bucket.try_lock() else { return 0 };
        bucket.refill(self.part(action));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small, not below 0
        let left = bucket.tokens.max(0.0) as usize;
        left
    }

    /// From one turn to the next for good, on one app or machine.
    pub fn each(&self, action: Action) -> Duration {
        Duration::from_secs_f64(1.0 / self.part(action).per_second)
    }

    /// Fly said that this was too often: somebody else asks, too. Nobody here asks before `pause`
    /// is over.
    pub async fn too_often(&self, action: Action, of: &str, pause: Duration) {
        let bucket = self.bucket(action, of);
        let mut bucket = bucket.lock().await;
        let rate = self.part(action);
        bucket.refill(rate);
        bucket.tokens = bucket.tokens.min(1.0 - pause.as_secs_f64() * rate.per_second);
    }

    /// What of the limit is ours.
    fn part(&self, action: Action) -> Rate {
        let (scope, Rate { per_second, burst }) = rate(action);
        // One less at once than is allowed: calls arrive less evenly than they are sent.
        let burst = burst.saturating_sub(1).max(1);
        let replicas = match scope {
            Scope::Account | Scope::App => self.replicas.load(Ordering::Relaxed),
            Scope::Machine => 1,
        };
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        Rate { per_second: per_second / f64::from(replicas), burst: (burst / replicas).max(1) }
    }

    fn bucket(&self, action: Action, of: &str) -> Arc<Turns<Bucket>> {
        let mut buckets = self.buckets.lock().expect("no panic while held");
        if buckets.len() >= MANY {
            buckets.retain(|(action, _), bucket| match bucket.try_lock() {
                Ok(mut bucket) => !bucket.refill(self.part(*action)),
                Err(_) => true,
            });
        }
        let (tokens, at) = (f64::from(self.part(action).burst), Instant::now());
        let full = || Arc::new(Turns::new(Bucket { tokens, at }));
        Arc::clone(buckets.entry((action, of.to_owned())).or_insert_with(full))
    }
}

impl Bucket {
    /// Whether it is full.
    fn refill(&mut self, rate: Rate) -> bool {
        let (now, burst) = (Instant::now(), f64::from(rate.burst));
        self.tokens += now.duration_since(self.at).as_secs_f64() * rate.per_second;
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
    async fn dispatchers_share_what_counts_for_an_app_and_not_what_counts_for_a_machine() {
        let pace = Pace::default();
        pace.share(2);
        assert_eq!(pace.each(Action::Create), Duration::from_secs(2));
        let began = Instant::now();
        let mut at = Vec::new();
        for _ in 0..3 {
            pace.turn(Action::Create, "one").await;
            at.push(began.elapsed().as_secs());
        }
        assert_eq!((at, pace.left(Action::Create, "one")), (vec![0, 2, 4], 0));
        // The other one is gone: what was half ours is all ours.
        pace.share(1);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(pace.left(Action::Create, "one"), 2);
        pace.share(2);
        let began = Instant::now();
        for _ in 0..3 {
            pace.turn(Action::Start, "a machine").await;
        }
        assert_eq!(began.elapsed().as_secs(), 1);
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
