//! The one task that moves a session forward.
//!
//! ```text
//!        ┌──────────────── row ◀──── save (compare-and-set) ◀──┐
//!        ▼                                                     │
//!   owed(row) ──▶ duties under way ──▶ what came of them ──▶ apply(row, event)
//!                                              ▲
//!                 API, media, agent ──▶ inbox ─┘     timer ──▶ TimePassed
//! ```
//!
//! A duty that is no longer owed is dropped: who hangs up during a start is served at once, and
//! the machine that was being made is destroyed by its name as soon as its start is over. A
//! conflict on save means that somebody else moved the session: the row is read again and
//! everything follows from it.

mod attend;
mod duties;
mod restart;
mod resume;
mod room;
mod tasks;
mod warn;

use std::{sync::Arc, time::Duration};

use callbox_core::{
    Applied, Duty, EndCode, EndReason, Event, EventKind, Session, State, Warning, apply, owed,
};
use callbox_link::Link;
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

use crate::{
    config::OnShutdown,
    drain, metrics, outside,
    plane::{Handle, Plane},
    store::{Inserted, NewSession, Saved, StoreError, Versioned},
    usage::Meter,
};
pub use resume::resume;
use tasks::UnderWay;
pub(crate) use warn::warn;

/// Starts the driver of a session, unless it has one here.
pub fn drive(plane: &Arc<Plane>, session: Versioned) -> Handle {
    let mut driven = plane.driven();
    let id = session.session.id;
    if let Some(handle) = driven.get(&id) {
        return handle.clone();
    }
    let (inbox, events) = mpsc::unbounded_channel();
    let publish = watch::Sender::new(session.session.clone());
    let link = watch::Sender::new(None);
    let seen = Arc::new(watch::Sender::new(session.session.usage));
    let handle = Handle {
        inbox: inbox.clone(),
        session: publish.subscribe(),
        link: link.subscribe(),
        usage: seen.subscribe(),
        media: Arc::default(),
    };
    driven.insert(id, handle.clone());
    // Before anybody finds it: who looks at a session that waits finds its place.
    plane.queue.set(plane, &session.session);
    drop(driven);
    // Open before anybody is told of the session: who follows its log waits for the first line.
    plane.logs.writer(id);
    let meter = Meter { plane: Arc::clone(plane), seen, inbox: inbox.clone() };
    let driver = Driver {
        plane: Arc::clone(plane),
        row: session,
        events,
        publish,
        duties: Duties {
            plane: Arc::clone(plane),
            link: Arc::new(link),
            meter: meter.clone(),
            inbox,
        },
        row_gone: false,
    };
    let span = tracing::info_span!("session", session.id = %id);
    plane.spawn(meter.run(handle.session.clone()).instrument(span.clone()));
    plane.spawn(driver.run().instrument(span));
    handle
}

/// Inserts a session, admitted or queued, and starts its driver, unless something stands against
/// it.
///
/// # Errors
/// When the store does not answer.
pub async fn accept(plane: &Arc<Plane>, new: NewSession) -> Result<Inserted, StoreError> {
    let inserted = plane.queue.enter(plane, new).await?;
    // It was accepted while the dispatcher began to end the others.
    if let Inserted::Created(row) = &inserted
        && let Some(why) = ends_all(plane)
        && let Some(handle) = plane.handle(row.session.id)
    {
        handle.tell(EventKind::EndRequested(why));
    }
    Ok(inserted)
}

/// Why no session may live here any more, if that is so.
fn ends_all(plane: &Plane) -> Option<EndReason> {
    // One that is left to the next dispatcher is as good as one that was accepted before.
    if plane.closing() && plane.config.on_shutdown == OnShutdown::End {
        let why = EndReason::new(EndCode::DispatcherShutdown, "the dispatcher was shut down");
        return Some(why);
    }
    drain::is_overdue(plane).then(drain::reason)
}

/// What duties need beside the row.
#[derive(Clone)]
struct Duties {
    plane: Arc<Plane>,
    link: Arc<watch::Sender<Option<Link>>>,
    meter: Meter,
    inbox: mpsc::UnboundedSender<EventKind>,
}

struct Driver {
    plane: Arc<Plane>,
    row: Versioned,
    events: mpsc::UnboundedReceiver<EventKind>,
    publish: watch::Sender<Session>,
    duties: Duties,
    /// Somebody removed the row while the session lived: nothing is left to save it to.
    row_gone: bool,
}

impl Driver {
    async fn run(mut self) {
        let mut under_way = UnderWay::default();
        loop {
            let mut wake_at = self.row.session.deadline_at;
            let duties = owed(&self.row.session);
            under_way.keep(&duties, self.row.session.incarnation);
            for duty in duties {
                match duty {
                    Duty::WakeAt(at) => wake_at = at,
                    duty if under_way.may_begin(duty) => {
                        let work = self.duties.clone().perform(duty, self.row.session.clone());
                        let incarnation = self.row.session.incarnation;
                        under_way.begin(&self.plane, duty, incarnation, work);
                    }
                    _ => {}
                }
            }
            if matches!(self.row.session.state, State::Ended { .. }) {
                break;
            }
            let kind = tokio::select! {
                // A ready that was told before an exit is taken before it.
                biased;
                Some(kind) = self.events.recv() => kind,
                Some(kind) = under_way.next() => {
                    let Some(kind) = kind else { continue };
                    kind
                }
                () = tokio::time::sleep(self.plane.clock.until(wake_at)) => EventKind::TimePassed,
            };
            self.take(kind).await;
        }
        self.finish();
    }

    /// Applies what happened and saves what became of it, as often as somebody is quicker.
    async fn take(&mut self, kind: EventKind) {
        let event = Event { at: self.plane.clock.now(), kind };
        loop {
            let next = match apply(&self.row.session, &event) {
                Ok(Applied::Changed(next)) => *next,
                Ok(Applied::Unchanged) => return,
                Err(denied) => {
                    tracing::debug!(event = ?event.kind, %denied, "an event was denied");
                    return;
                }
            };
            let saved = if self.row_gone {
                Ok(Saved::Saved(self.row.version))
            } else {
                outside::call("store.save", self.plane.store.save(&next, self.row.version)).await
            };
            match saved {
                Ok(Saved::Saved(version)) => {
                    self.note(&next);
                    let before = std::mem::replace(&mut self.row.session, next);
                    self.row.version = version;
                    self.publish.send_replace(self.row.session.clone());
                    // After it was published: who waits looks at what is published.
                    self.plane.queue.note(&self.plane, &before, &self.row.session);
                    return;
                }
                Ok(Saved::Conflict) => self.reload().await,
                Err(error) => {
                    // A full disk, a locked file: the event must not be lost, so it is tried
                    // again until the store is back.
                    metrics::store_error();
                    tracing::error!(error = %Chain(&error), "cannot save the session, trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    async fn reload(&mut self) {
        match self.plane.store.get(self.row.session.id).await {
            Ok(Some(row)) => {
                self.row = row;
                self.publish.send_replace(self.row.session.clone());
                self.plane.queue.set(&self.plane, &self.row.session);
            }
            Ok(None) => {
                // What it owes is still known from our copy.
                tracing::error!("the session's row is gone from the store; ending it");
                self.row_gone = true;
                let why = EndReason::new(EndCode::MachineLost, "the session's row is gone");
                self.row.session.state = State::Ending { why };
            }
            Err(error) => {
                tracing::error!(error = %Chain(&error), "cannot read the session, trying again");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// Says what changed, once, for people and for counters.
    fn note(&self, next: &Session) {
        let before = &self.row.session;
        let replaced = restart::note(&self.plane, before, next);
        if before.state.kind() != next.state.kind() && !replaced {
            let log = self.plane.logs.writer(next.id);
            match next.state.why() {
                Some(why) => log.say(&format!(
                    "{}: {} ({})",
                    next.state.kind().as_str(),
                    why.detail,
                    why.code.as_str()
                )),
                None => log.say(next.state.kind().as_str()),
            }
        }
        if before.warning != next.warning && next.warning != Warning::Due {
            metrics::warned(next.warning == Warning::Delivered);
            self.plane.logs.writer(next.id).say(match next.warning {
                Warning::Delivered => "the bot was warned that its call will end",
                _ => "the bot could not be warned that its call will end",
            });
        }
        let overdue =
            matches!((&before.state, &next.state), (State::Ending { .. }, State::Ending { .. }))
                && next.deadline_at > before.deadline_at;
        if overdue {
            metrics::overdue();
            let machine = next.machine_name();
            tracing::error!(
                machine,
                "the tear-down is overdue; it goes on, but look what holds it up"
            );
        }
        metrics::moments(before, next);
    }

    fn finish(self) {
        let id = self.row.session.id;
        self.duties.link.send_replace(None);
        self.plane.logs.close(id);
        let mut driven = self.plane.driven();
        driven.remove(&id);
        // Before it can be driven here anew.
        self.plane.queue.remove(id);
    }
}

/// An error with its causes, for the one place that reports it.
pub(crate) struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
