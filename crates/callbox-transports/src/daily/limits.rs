//! Daily's documented rate limits, as data (they count for a domain), and keeping to our part.

use std::{sync::Mutex, time::Duration};

use tokio::{
    sync::Mutex as Turns,
    time::{Instant, sleep},
};

/// A number of calls in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// So many calls ...
    pub calls: f64,
    /// ... in every so many seconds.
    pub seconds: f64,
}

/// Of most calls: "20 a second", counted as 100 in 5 s.
pub const MOST: Rate = Rate { calls: 100.0, seconds: 5.0 };
/// Of removing rooms: "about 2 a second", counted as 50 in 30 s.
pub const DELETE: Rate = Rate { calls: 50.0, seconds: 30.0 };
/// Looks into single rooms: our own limit, half of what there is, so that they never keep rooms
/// from being made.
pub const LOOK: Rate = Rate { calls: 50.0, seconds: 5.0 };

/// The share of a limit that may be used at once, after silence; the rest comes evenly. Together
/// they never exceed what is counted in any window.
const AT_ONCE: f64 = 0.2;
/// After a 429, nobody asks for so long; doubles up to the last with every further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Turns of one kind of call. Whoever waits gets them in order, and may stop waiting at any time.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Rate,
    bucket: Turns<Bucket>,
    /// So many dispatchers share the limit, and so many 429s came in a row.
    state: Mutex<(usize, u32)>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    not_before: Instant,
}

impl Pace {
    pub fn new(rate: Rate) -> Pace {
        let now = Instant::now();
        let bucket = Bucket { tokens: f64::MAX, at: now, not_before: now };
        Pace { rate, bucket: Turns::new(bucket), state: Mutex::new((1, 0)) }
    }

    /// Waits for the next turn.
    pub async fn turn(&self) {
        // Held while waiting: whoever comes later waits behind.
        let mut bucket = self.bucket.lock().await;
        let pause = bucket.not_before.saturating_duration_since(Instant::now());
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let per_second = self.refill(&mut bucket);
        if bucket.tokens < 1.0 {
            sleep(Duration::from_secs_f64((1.0 - bucket.tokens) / per_second)).await;
            self.refill(&mut bucket);
        }
        bucket.tokens -= 1.0;
    }

    /// Takes a turn if there is one now.
    pub fn take(&self) -> bool {
        let Ok(mut bucket) = self.bucket.try_lock() else { return false };
        self.refill(&mut bucket);
        let free = bucket.tokens >= 1.0 && bucket.not_before <= Instant::now();
        if free {
            bucket.tokens -= 1.0;
        }
        free
    }

    /// Daily said that this was too often: somebody else asks, too.
    pub async fn too_often(&self) {
        let pause = {
            let mut state = self.state.lock().expect("no panic while held");
            state.1 = state.1.saturating_add(1);
            FIRST_PAUSE.saturating_mul(1 << (state.1 - 1).min(10)).min(LAST_PAUSE)
        };
        let mut bucket = self.bucket.lock().await;
        bucket.tokens = 0.0;
        bucket.not_before = Instant::now() + pause;
    }

    /// Daily answered.
    pub fn fine(&self) {
        self.state.lock().expect("no panic while held").1 = 0;
    }

    /// So many dispatchers share the limit from now on.
    pub fn share(&self, replicas: usize) {
        self.state.lock().expect("no panic while held").0 = replicas.max(1);
    }

    /// Tells how many turns come in a second.
    fn refill(&self, bucket: &mut Bucket) -> f64 {
        let replicas = self.state.lock().expect("no panic while held").0 as f64;
        let calls = self.rate.calls / replicas;
        let per_second = calls * (1.0 - AT_ONCE) / self.rate.seconds;
        let now = Instant::now();
        let more = now.duration_since(bucket.at).as_secs_f64() * per_second;
        bucket.tokens = (bucket.tokens + more).min((calls * AT_ONCE).max(1.0));
        bucket.at = now;
        per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn in_half_a_minute(pace: &Pace) -> u32 {
        let end = Instant::now() + Duration::from_secs(30);
        let mut turns = 0;
        while tokio::time::timeout_at(end, pace.turn()).await.is_ok() {
            turns += 1;
        }
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_has_more_than_is_allowed_and_replicas_share_it() {
        let pace = Pace::new(DELETE);
        assert!((48..=51).contains(&in_half_a_minute(&pace).await));
        pace.share(5);
        sleep(Duration::from_secs(60)).await;
        assert!((9..=11).contains(&in_half_a_minute(&pace).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_holds_everybody_and_longer_each_time() {
        let pace = Pace::new(MOST);
        assert!(pace.take());
        for seconds in [1, 2, 4] {
            pace.too_often().await;
            assert!(!pace.take());
            let began = Instant::now();
            pace.turn().await;
            assert_eq!(began.elapsed().as_secs(), seconds);
        }
        pace.fine();
        pace.too_often().await;
        let began = Instant::now();
        pace.turn().await;
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
