//! Looking at every session that has not ended, however many there are.

use callbox_core::Session;

use super::{Filter, Store, StoreError};

/// How many are read at once.
const PAGE: u32 = 500;

/// Shows `see` every session that has not ended, of this bot or of all, newest first, whoever
/// drives it. What cannot be read is reported and passed over; one that comes or ends meanwhile
/// may be seen or not.
///
/// # Errors
/// When the store does not answer.
pub async fn each_living(
    store: &dyn Store,
    bot: Option<&str>,
    mut see: impl FnMut(Session) + Send,
) -> Result<(), StoreError> {
    let bot = bot.map(str::to_owned);
    let mut filter = Filter { bot, living: true, limit: PAGE, ..Filter::default() };
    loop {
        let rows = store.list(&filter).await?;
        filter.before = rows.last().map(|row| (row.session.moments.accepted, row.session.id));
        // A page is filled up as long as there is more, whatever was passed over.
        let more = rows.len() == PAGE as usize;
        rows.into_iter().for_each(|row| see(row.session));
        if !more {
            return Ok(());
        }
    }
}
