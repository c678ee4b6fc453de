//! What comes back in a call: in which order, and after which silences.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// One frame of speech, 20 ms of it. Counts as audio, as far as the dispatcher looks, and is like
/// no other frame.
pub fn frame(number: u64) -> Vec<u8> {
    let mut frame = vec![0x12; 640];
    frame[632..].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The number of a frame.
fn number(frame: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(frame.get(632..)?.try_into().ok()?))
}

/// Everything that was heard on one connection.
#[derive(Debug, Default)]
pub struct Heard {
    /// One more than the highest number.
    pub next: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub garbled: u64,
    missing: BTreeSet<u64>,
    last: Option<Instant>,
    window: u64,
    longest: Duration,
    /// The longest silence of each time in which the dispatcher was away, of those that this call
    /// was heard before and after.
    pub across: Vec<Duration>,
}

impl Heard {
    /// A frame came back. `window` is odd from a dispatcher's death until the next one has served
    /// for a moment, and even otherwise.
    pub fn note(&mut self, bytes: &[u8], window: u64, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.gap(now - last, window);
        }
        self.window = window;
        match number(bytes) {
            None => self.garbled += 1,
            Some(number) if number >= self.next => {
                self.missing.extend(self.next..number);
                self.next = number + 1;
            }
            Some(number) if self.missing.remove(&number) => self.reordered += 1,
            Some(_) => self.duplicated += 1,
        }
    }

    fn gap(&mut self, gap: Duration, window: u64) {
        if window == self.window {
            self.longest = self.longest.max(gap);
            return;
        }
        // A silence that lies on an edge belongs to the time without a dispatcher.
        let was_away = self.window % 2 == 1;
        if was_away {
            self.across.push(self.longest.max(gap));
        } else if window.is_multiple_of(2) {
            // All of it was one silence.
            self.across.push(gap);
        }
        self.longest = gap;
    }

    /// Frames that others overtook and that never came. Those after the last one that came are
    /// the caller's to count.
    pub fn lost(&self) -> u64 {
        self.missing.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_doubled_or_late_is_told_apart() {
        let mut heard = Heard::default();
        for number in [0, 1, 4, 2, 2, 5] {
            heard.note(&frame(number), 0, Instant::now());
        }
        assert_eq!((heard.lost(), heard.duplicated, heard.reordered, heard.next), (1, 1, 1, 6));
        heard.note(b"short", 0, Instant::now());
        assert_eq!(heard.garbled, 1);
    }

    #[test]
    fn silences_count_where_the_dispatcher_was_away() {
        let mut heard = Heard::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let notes = [(0, 0), (500, 0), (530, 1), (560, 1), (660, 2), (1700, 2), (1720, 4)];
        for (number, (ms, window)) in notes.into_iter().enumerate() {
            heard.note(&frame(number as u64), window, at(ms));
        }
        let across: Vec<_> = heard.across.iter().map(Duration::as_millis).collect();
        assert_eq!(across, [100, 20], "and neither the 500 before nor the 1040 after");
    }
}
