//! From an event to a saved row, as often as somebody is quicker.

use std::{sync::Arc, time::Duration};

use callbox_core::{
    Applied, Denied, EndCode, EndReason, Event, EventKind, Session, SessionId, State, apply,
};

use super::{Chain, Driver};
use crate::{
    metrics, outside,
    plane::Plane,
    store::{Saved, StoreError, Versioned},
};

/// Between two attempts to reach the store.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// Applies an event, as the dispatcher that makes the session's machine: the intention to make one
/// says where.
pub(crate) fn apply_here(
    plane: &Plane,
    session: &Session,
    event: &Event,
) -> Result<Applied, Denied> {
    let mut applied = apply(session, event)?;
    if let Applied::Changed(next) = &mut applied
        && session.state == State::Queued
        && next.state == State::Starting
    {
        next.place = plane.place_of(&next.provider);
    }
    Ok(applied)
}

/// Saves a session, if its row still is at this version.
pub(super) async fn save(
    plane: &Plane,
    session: &Session,
    expected: i64,
) -> Result<Saved, StoreError> {
    outside::call("store.save", plane.store.save(session, expected)).await
}

/// Writes down that a session is to end, whoever drives it.
///
/// # Errors
/// When the store does not answer.
pub async fn request_end(plane: &Plane, id: SessionId, why: EndReason) -> Result<(), StoreError> {
    let event = Event { at: plane.clock.now(), kind: EventKind::EndRequested(why) };
    while let Some(row) = plane.store.get(id).await? {
        let Ok(Applied::Changed(next)) = apply(&row.session, &event) else { break };
        if let Saved::Saved(_) = save(plane, &next, row.version).await? {
            break;
        }
    }
    Ok(())
}

impl Driver {
    /// Applies what happened and saves what became of it.
    pub(super) async fn take(&mut self, kind: EventKind) {
        let event = Event { at: self.plane.clock.now(), kind };
        while !self.not_ours && !self.orders.to_leave() {
            let next = match apply_here(&self.plane, &self.row.session, &event) {
                Ok(Applied::Changed(next)) => *next,
                Ok(Applied::Unchanged) => return,
                Err(denied) => {
                    tracing::debug!(event = ?event.kind, %denied, "an event was denied");
                    return;
                }
            };
            let saved = if self.row_gone || self.alone || self.is_given_up_soon() {
                Ok(Saved::Saved(self.row.version))
            } else {
                let plane = Arc::clone(&self.plane);
                let saving = save(&plane, &next, self.row.version);
                self.ask(saving).await
            };
            match saved {
                Ok(Saved::Saved(version)) => {
                    let replica = self.row.replica.clone();
                    return self.is_now(Versioned { session: next, version, replica });
                }
                Ok(Saved::Conflict) => self.reload().await,
                Err(error) => {
                    // A full disk, a locked file: the event must not be lost, so it is tried
                    // again until the store is back.
                    metrics::store_error();
                    tracing::error!(error = %Chain(&error), "cannot save the session, trying again");
                    self.ask(tokio::time::sleep(AGAIN)).await;
                }
            }
        }
    }

    /// Reads the row again: somebody else moved it, or may have.
    pub(super) async fn reload(&mut self) {
        while !self.row_gone && !self.orders.to_leave() && !self.is_given_up_soon() {
            let plane = Arc::clone(&self.plane);
            match self.ask(plane.store.get(self.row.session.id)).await {
                Ok(Some(row)) => return self.is_now(row),
                Ok(None) => {
                    // What it owes is still known from our copy.
                    tracing::error!("the session's row is gone from the store; ending it");
                    self.row_gone = true;
                    let why = EndReason::new(EndCode::MachineLost, "the session's row is gone");
                    self.row.session.state = State::Ending { why };
                    return;
                }
                Err(error) => {
                    metrics::store_error();
                    tracing::error!(error = %Chain(&error), "cannot read the session, trying again");
                    self.ask(tokio::time::sleep(AGAIN)).await;
                }
            }
        }
    }

    /// Waits for the store. It may be away for us only: when others may be about to go on with
    /// this session, we do nothing more for it.
    async fn ask<T>(&mut self, asking: impl Future<Output = T>) -> T {
        tokio::pin!(asking);
        loop {
            if !self.plane.replicas.may_act(&self.row.session) {
                self.under_way.keep(&[], self.row.session.incarnation);
            }
            tokio::select! {
                answer = &mut asking => return answer,
                Ok(()) = self.lease.changed() => {}
            }
        }
    }

    /// Whatever changed the row, this is it now.
    pub(super) fn is_now(&mut self, row: Versioned) {
        let driver = row.replica.as_deref();
        self.not_ours = match driver {
            Some(driver) => driver != self.plane.replicas.id(),
            // Whoever drove it meanwhile has left it to the next one on its host: its machine is
            // there, and we would make a second one.
            None => !self.plane.replicas.reaches(&row.session),
        };
        if self.not_ours {
            tracing::info!(replica = driver, "another dispatcher goes on with this session");
        } else {
            // Once, by whoever drives it.
            self.note(&row.session);
        }
        let before = std::mem::replace(&mut self.row, row);
        self.orders.now_at(self.row.version);
        self.publish.send_replace(self.row.session.clone());
        // After it was published: who waits looks at what is published.
        self.plane.queue.note(&self.plane, &before.session, &self.row.session);
    }
}
