//! What a machine uses of its host, as far as its provider can tell.

use std::time::Duration;

/// One measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that would be free again if the machine ended, in bytes.
    pub unique_bytes: u64,
    /// Memory that it has in common with others (its template, programs), in bytes.
    pub shared_bytes: u64,
    /// Time of processors that it has used since it was made.
    pub cpu: Duration,
}

/// When in a session's life something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageAt {
    /// The bot had just become ready.
    Ready,
    /// The first bot audio had just left the machine.
    Audible,
    /// Somewhere in between.
    Between,
    /// Right before the machine was taken away.
    End,
}

/// What is known of a machine's use over its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSeen {
    /// As last measured.
    pub last: Usage,
    /// The most that was ever measured of [`Usage::unique_bytes`].
    pub highest_unique_bytes: u64,
    /// [`Usage::unique_bytes`] when the bot had become ready.
    pub ready_unique_bytes: Option<u64>,
    /// [`Usage::unique_bytes`] when the first bot audio had left.
    pub audible_unique_bytes: Option<u64>,
    /// [`Usage::unique_bytes`] right before the machine was taken away.
    pub end_unique_bytes: Option<u64>,
}

impl UsageSeen {
    /// With one more measurement. What belongs to a moment is kept from its first one.
    #[must_use]
    pub fn with(mut self, usage: Usage, at: UsageAt) -> UsageSeen {
        self.last = usage;
        self.highest_unique_bytes = self.highest_unique_bytes.max(usage.unique_bytes);
        let moment = match at {
            UsageAt::Ready => &mut self.ready_unique_bytes,
            UsageAt::Audible => &mut self.audible_unique_bytes,
            UsageAt::End => &mut self.end_unique_bytes,
            UsageAt::Between => return self,
        };
        moment.get_or_insert(usage.unique_bytes);
        self
    }
}
