//! How many sessions may live, as every store counts them.

use callbox_core::State;

use super::{Inserted, NewSession};

/// The sessions that have not ended.
pub(super) struct Living {
    /// All of them.
    pub total: i64,
    /// Those of the new session's bot.
    pub of_bot: i64,
    /// Those that wait.
    pub queued: i64,
}

/// Which cap stands against a new session beside these, if any does.
pub(super) fn in_the_way(new: &NewSession, living: Living) -> Option<Inserted> {
    let Living { total, of_bot, queued } = living;
    if total >= i64::from(new.total_cap) {
        return Some(Inserted::AtCapacity { bot: None, cap: new.total_cap });
    }
    if of_bot >= i64::from(new.bot_cap) {
        let bot = Some(new.session.bot.clone());
        return Some(Inserted::AtCapacity { bot, cap: new.bot_cap });
    }
    let full = new.session.state == State::Queued && queued >= i64::from(new.queue_cap);
    full.then_some(Inserted::QueueFull { cap: new.queue_cap })
}
