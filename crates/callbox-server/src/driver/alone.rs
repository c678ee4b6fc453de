//! Ending a call without the store.
//!
//! A dispatcher that lives and cannot reach its database counts as dead there. Others give its host
//! up after a while (`replica::lost_after`), with the machines that only it reaches, and say that
//! nothing is left of their sessions. So that this is true, and so that a client hears an end
//! instead of being cut off by it later, the dispatcher ends these sessions itself before that. Its
//! row cannot be saved; what was done is written down when the store is back.

use callbox_core::{Applied, EndCode, EndReason, Event, EventKind, State, apply};
use futures::FutureExt as _;

use super::{
    Driver,
    row::{AGAIN, save},
};
use crate::{plane::over, store::Saved};

impl Driver {
    /// Whether the session's machine, if it has one, is reached by us and by nobody else.
    pub(super) fn is_here(&self) -> bool {
        self.row.session.place == self.plane.replicas.id()
    }

    /// Whether the row is not to be waited for any more; from then on it is not asked.
    pub(super) fn is_given_up_soon(&mut self) -> bool {
        let replicas = &self.plane.replicas;
        self.alone |= self.is_here() && replicas.is_given_up_soon(&self.plane.config);
        self.alone
    }

    /// Begins to end a session that has no row to rely on any more.
    pub(super) async fn end_if_alone(&mut self) {
        if !self.alone || over(&self.row.session) {
            return;
        }
        // What happened while the row was waited for is the better reason.
        while let Ok(kind) = self.events.try_recv() {
            self.take(kind).await;
        }
        while let Some(Some(done)) = self.under_way.next().now_or_never() {
            if let Some(kind) = done {
                self.take(kind).await;
            }
        }
        if over(&self.row.session) {
            return;
        }
        tracing::error!("cut off from the store for too long; ending the session without it");
        // What the others will write down, too.
        let detail = "its dispatcher was cut off from the store for too long";
        let kind = EventKind::EndRequested(EndReason::new(EndCode::MachineLost, detail));
        let event = Event { at: self.plane.clock.now(), kind };
        if let Ok(Applied::Changed(session)) = apply(&self.row.session, &event) {
            let mut row = self.row.clone();
            row.session = *session;
            self.is_now(row);
        }
    }

    /// Nothing is left of the session: its row hears it as soon as the store is back, if it still
    /// is ours.
    pub(super) async fn write_down_what_was_done_alone(&mut self) {
        let State::Ended { why } = self.row.session.state.clone() else { return };
        while self.alone && !self.orders.to_leave() {
            match self.plane.store.get(self.row.session.id).await {
                Ok(Some(row)) if row.replica.as_deref() == Some(self.plane.replicas.id()) => {
                    let incarnation = row.session.incarnation;
                    let mut session = row.session;
                    for kind in [
                        EventKind::EndRequested(why.clone()),
                        EventKind::MachineDestroyed { incarnation },
                        EventKind::RoomClosed,
                    ] {
                        let event = Event { at: self.plane.clock.now(), kind };
                        if let Ok(Applied::Changed(next)) = apply(&session, &event) {
                            session = *next;
                        }
                    }
                    if let Ok(Saved::Saved(_)) = save(&self.plane, &session, row.version).await {
                        return;
                    }
                }
                Ok(_) => {
                    self.not_ours = true;
                    return;
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
