//! Taking up a session that an earlier dispatcher, or another one, left.

use std::sync::Arc;

use callbox_core::{Applied, EndCode, EndReason, Event, EventKind, State, apply};

use super::{drive, row::save};
use crate::{
    media::relay,
    plane::Plane,
    store::{Saved, StoreError, Versioned},
};

/// Drives a session from its row on, and its call, if that went on by itself. With the turn held:
/// a start of ours that is under way has its driver before that.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn take_up(plane: &Arc<Plane>, row: Versioned) -> Result<(), StoreError> {
    if !plane.replicas.reaches(&row.session) {
        return give_up_its_place(plane, row).await;
    }
    let joined = row.session.moments.joined.is_some();
    let transport = plane.transports.get(row.session.transport.as_str());
    let carries_media = transport.is_some_and(|transport| transport.carries_media());
    // It has a driver here, who will see that the row is ours again.
    let Some(handle) = drive(plane, row) else { return Ok(()) };
    // A client that is in, without a relay, was in through the dispatcher that is no more, and
    // saw the call end.
    if carries_media && !relay::take_up(plane, &handle).await && joined {
        let detail = "the media connection was lost with the dispatcher that carried it";
        let why = EndReason::new(EndCode::DispatcherRestarted, detail);
        handle.tell(EventKind::EndRequested(why));
    }
    Ok(())
}

/// Nobody but its host's dispatcher reaches the session's machine, and that one was silent for
/// longer than a machine lives without one. What else is owed is done here.
async fn give_up_its_place(plane: &Arc<Plane>, mut row: Versioned) -> Result<(), StoreError> {
    let detail = "the host that its machine was on is gone";
    let kind = EventKind::PlaceLost { detail: detail.into() };
    let event = Event { at: plane.clock.now(), kind };
    if let Ok(Applied::Changed(next)) = apply(&row.session, &event) {
        match save(plane, &next, row.version).await? {
            Saved::Saved(version) => (row.session, row.version) = (*next, version),
            // Somebody moved it just now: it is looked at again.
            Saved::Conflict => {
                plane.replicas.look_for_strays();
                return Ok(());
            }
        }
    }
    let session = &row.session;
    tracing::warn!(session.id = %session.id, place = session.place, "a session's host is gone");
    if !matches!(session.state, State::Ended { .. }) {
        drive(plane, row);
    }
    Ok(())
}
