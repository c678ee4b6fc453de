//! Taking up what an earlier dispatcher left.

use std::sync::Arc;

use callbox_core::{EndCode, EndReason, EventKind, SessionId};

use super::drive;
use crate::{media::relay, plane::Plane, store::StoreError};

/// Takes up every session that has not ended, and every call that went on by itself.
///
/// # Errors
/// When the store does not answer.
pub async fn resume(plane: &Arc<Plane>) -> Result<usize, StoreError> {
    // Whoever waits is let in only when all are there: else the first to be read would be the
    // first in the queue.
    let _turn = plane.queue.turn().await;
    let living: Vec<SessionId> = plane.store.living().await?;
    for id in &living {
        let row = match plane.store.get(*id).await {
            // What cannot be read is reported by the store, and left to whoever can.
            Ok(None) | Err(StoreError::BadRow { .. }) => continue,
            Ok(Some(row)) => row,
            Err(error) => return Err(error),
        };
        let joined = row.session.moments.joined.is_some();
        let transport = plane.transports.get(row.session.transport.as_str());
        let carries_media = transport.is_some_and(|transport| transport.carries_media());
        let handle = drive(plane, row);
        // A client that is in, without a relay, was in through the dispatcher that is no more,
        // and saw the call end.
        if carries_media && !relay::take_up(plane, &handle).await && joined {
            let detail = "the media connection was lost when the dispatcher was restarted";
            let why = EndReason::new(EndCode::DispatcherRestarted, detail);
            handle.tell(EventKind::EndRequested(why));
        }
    }
    Ok(living.len())
}
