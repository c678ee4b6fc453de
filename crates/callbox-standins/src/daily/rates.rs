//! Rate limits as Daily counts them: so many calls in a window that slides.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Most calls: 100 in 5 s.
const MOST: (usize, Duration) = (100, Duration::from_secs(5));
/// Removing rooms: 50 in 30 s.
const DELETE: (usize, Duration) = (50, Duration::from_secs(30));

/// When calls came.
#[derive(Debug, Default)]
pub(super) struct Rates {
    most: VecDeque<Instant>,
    delete: VecDeque<Instant>,
}

impl Rates {
    /// Whether this call is one too many; those do not count.
    pub fn exceeded(&mut self, call: &str) -> bool {
        let (calls, (most, window)) = match call {
            "DELETE /rooms/:name" => (&mut self.delete, DELETE),
            _ => (&mut self.most, MOST),
        };
        let now = Instant::now();
        while calls.front().is_some_and(|at| now.duration_since(*at) >= window) {
            calls.pop_front();
        }
        if calls.len() >= most {
            return true;
        }
        calls.push_back(now);
        false
    }
}
