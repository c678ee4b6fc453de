//! How fast things happen, from those that happened of late.

use std::{collections::VecDeque, time::Duration};

use callbox_core::Time;

/// So many are remembered.
const MANY: usize = 16;
/// What is older says nothing about now.
const LATELY: Duration = Duration::from_secs(600);

/// How often something happens.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<Time>);

impl Pace {
    /// Counted from now on.
    pub fn from(now: Time) -> Pace {
        Pace(VecDeque::from([now]))
    }

    /// It happened. What happened long before is forgotten.
    pub fn mark(&mut self, now: Time) {
        self.0.retain(|at| now.since(*at) < LATELY);
        self.0.push_back(now);
        while self.0.len() > MANY + 1 {
            self.0.pop_front();
        }
    }

    /// How long it takes from one to the next, the time since the last one included: a thing that
    /// has stopped happening becomes slower by itself. None before it happened.
    pub fn each(&self, now: Time) -> Option<Duration> {
        let first = self.0.front().filter(|first| now.since(**first) < LATELY)?;
        let happened = u32::try_from(self.0.len() - 1).ok().filter(|happened| *happened > 0)?;
        Some(now.since(*first) / happened)
    }
}

/// How long something takes.
#[derive(Debug, Default)]
pub(super) struct Spans(VecDeque<Duration>);

impl Spans {
    /// It took so long.
    pub fn add(&mut self, span: Duration) {
        self.0.push_back(span);
        while self.0.len() > MANY {
            self.0.pop_front();
        }
    }

    /// On average; none before there was one.
    pub fn mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.0.len()).ok().filter(|count| *count > 0)?;
        Some(self.0.iter().sum::<Duration>() / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn pace_is_measured_from_the_beginning_and_slows_down_by_itself() {
        assert_eq!(Pace::default().each(at(0)), None);
        let mut pace = Pace::from(at(0));
        assert_eq!(pace.each(at(5)), None, "it has not happened yet");
        pace.mark(at(2));
        pace.mark(at(4));
        assert_eq!(pace.each(at(4)), Some(Duration::from_secs(2)));
        assert_eq!(pace.each(at(10)), Some(Duration::from_secs(5)), "it has stalled");
        assert_eq!(pace.each(at(10_000)), None, "that was long ago");
    }

    #[test]
    fn only_the_latest_count() {
        let mut pace = Pace::default();
        for second in 0..300 {
            pace.mark(at(second));
        }
        assert_eq!(pace.each(at(299)), Some(Duration::from_secs(1)));
        let mut spans = Spans::default();
        (0..100).for_each(|second| spans.add(Duration::from_secs(second)));
        assert_eq!(spans.mean(), Some(Duration::from_millis(91_500)));
    }
}
