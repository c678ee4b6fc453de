//! Ended sessions are forgotten after a while, with their logs and start keys: in small steps, so
//! that nobody who starts a session notices.

use std::{sync::Arc, time::Duration};

use callbox_core::Time;
use tokio::time::sleep;

use crate::{driver::Chain, metrics, plane::Plane, store::StoreError};

/// How many sessions, or logs, one step looks at.
const STEP: u32 = 200;

/// Between two steps.
const PAUSE: Duration = Duration::from_millis(200);

/// When there is nothing left to forget.
const EVERY: Duration = Duration::from_secs(60);

/// How often logs are looked for whose sessions another replica has forgotten, in looks of ours.
const LOGS_EVERY: u32 = 60;

/// Forgets now and from then on, if anything is to be forgotten at all.
pub(crate) async fn run(plane: Arc<Plane>) {
    let Some(keep) = plane.config.keep_history else { return };
    let mut look: u32 = 0;
    loop {
        let forgotten = async {
            sessions(&plane, keep).await?;
            if look.is_multiple_of(LOGS_EVERY) { logs(&plane, keep).await } else { Ok(()) }
        };
        if let Err(error) = forgotten.await {
            metrics::store_error();
            tracing::warn!(error = %Chain(&error), "cannot forget old sessions, trying again later");
        }
        look = look.wrapping_add(1);
        sleep(EVERY).await;
    }
}

/// Forgets the sessions that ended longer ago than `keep`, and their logs here.
async fn sessions(plane: &Plane, keep: Duration) -> Result<(), StoreError> {
    loop {
        let gone = plane.store.prune(before(plane.clock.now(), keep), STEP).await?;
        metrics::forgotten(gone.len());
        for id in &gone {
            plane.logs.remove(*id);
        }
        if gone.len() < STEP as usize {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

/// Removes the logs here that were not written to for so long and whose sessions another replica
/// has forgotten.
async fn logs(plane: &Arc<Plane>, keep: Duration) -> Result<(), StoreError> {
    let ours = Arc::clone(plane);
    // There may be millions.
    let old = tokio::task::spawn_blocking(move || ours.logs.older_than(keep)).await;
    let old = old.unwrap_or_default();
    for some in old.chunks(STEP as usize) {
        let known = plane.store.versions(some).await?;
        for id in some {
            if !known.iter().any(|(known, ..)| known == id) {
                plane.logs.remove(*id);
            }
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// The time that lies `span` before `time`.
fn before(time: Time, span: Duration) -> Time {
    let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    Time::from_micros(time.as_micros().saturating_sub(span))
}
