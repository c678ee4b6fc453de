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
//! everything follows from it. A row that names another replica is that one's: the driver goes,
//! and touches nothing.

mod alone;
mod attend;
mod duties;
mod give;
mod restart;
mod room;
mod row;
mod take_up;
mod tasks;
mod warn;

use std::{sync::Arc, time::Duration};

use callbox_core::{Duty, EndCode, EndReason, EventKind, Session, State, Time, Warning, owed};
use callbox_link::Link;
use tokio::sync::{Notify, mpsc, watch};
use tracing::Instrument as _;

use crate::{
    config::OnShutdown,
    drain, metrics,
    plane::{Handle, Orders, Plane},
    replica::Lease,
    signalling::Turn,
    store::{Inserted, NewSession, StoreError, Versioned},
    usage::Meter,
};
pub(crate) use row::apply_here;
pub use row::request_end;
pub(crate) use take_up::take_up;
use tasks::UnderWay;
pub(crate) use warn::warn;

/// How long duties may take to end when the driver goes.
const LET_GO: Duration = Duration::from_secs(5);

/// Starts the driver of a session; none when it has one here.
pub fn drive(plane: &Arc<Plane>, session: Versioned) -> Option<Handle> {
    let mut driven = plane.driven();
    let id = session.session.id;
    if driven.contains_key(&id) {
        return None;
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
        room_news: Arc::default(),
        signalling: Turn::default(),
        orders: Arc::new(Orders::at(session.version)),
    };
    let orders = Arc::clone(&handle.orders);
    driven.insert(id, handle.clone());
    // Before anybody finds it: who looks at a session that waits finds its place.
    plane.queue.set(plane, &session.session);
    drop(driven);
    // Made before us, or about to be given up: whoever is asked for it need not look.
    if let (Some(id), Some(name)) = (&session.session.machine_id, session.session.machine_name())
        && let Some(provider) = plane.providers.get(session.session.provider.as_str())
    {
        provider.recall(&name, id);
    }
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
            room_news: Arc::clone(&handle.room_news),
        },
        under_way: UnderWay::default(),
        lease: plane.replicas.lease(),
        turn: plane.replicas.lease().borrow().turn,
        orders,
        row_gone: false,
        not_ours: false,
        alone: false,
    };
    let span = tracing::info_span!("session", session.id = %id);
    plane.spawn(meter.run(handle.session.clone()).instrument(span.clone()));
    plane.spawn(driver.run().instrument(span));
    Some(handle)
}

/// Inserts a session, admitted or queued, and starts its driver, unless something stands against
/// it.
///
/// # Errors
/// When the store does not answer.
pub async fn accept(plane: &Arc<Plane>, new: NewSession) -> Result<Inserted, StoreError> {
    // One that failed may have been done all the same: then it has no driver here yet.
    let inserted = plane.queue.enter(plane, new).await.inspect_err(|_| {
        plane.replicas.look_for_strays();
    })?;
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
    if plane.closing() && plane.config.on_shutdown != OnShutdown::Leave {
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
    room_news: Arc<Notify>,
}

struct Driver {
    plane: Arc<Plane>,
    row: Versioned,
    events: mpsc::UnboundedReceiver<EventKind>,
    publish: watch::Sender<Session>,
    duties: Duties,
    under_way: UnderWay,
    lease: watch::Receiver<Lease>,
    /// The lease's turn under which the row was last known to be ours.
    turn: u64,
    orders: Arc<Orders>,
    /// Somebody removed the row while the session lived: nothing is left to save it to.
    row_gone: bool,
    /// Another replica drives the session.
    not_ours: bool,
    /// The session is ended without its row, as the store was away for too long: see `alone`.
    alone: bool,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let may_act = self.may_act().await;
            if self.not_ours || self.orders.to_leave() {
                break;
            }
            self.end_if_alone().await;
            let wake_at = self.see_to_what_is_owed(may_act);
            if matches!(self.row.session.state, State::Ended { .. }) {
                self.write_down_what_was_done_alone().await;
                break;
            }
            let plane = Arc::clone(&self.plane);
            let may_be_given_up = !self.alone && self.is_here();
            let kind = tokio::select! {
                // A ready that was told before an exit is taken before it.
                biased;
                Some(kind) = self.events.recv() => kind,
                Some(kind) = self.under_way.next() => {
                    let Some(kind) = kind else { continue };
                    kind
                }
                _ = self.lease.changed() => continue,
                () = plane.replicas.given_up_soon(&plane.config), if may_be_given_up => {
                    self.alone = true;
                    continue;
                }
                () = self.orders.told() => {
                    if !self.orders.to_leave() {
                        self.reload().await;
                    }
                    continue;
                }
                () = tokio::time::sleep(self.plane.clock.until(wake_at)) => EventKind::TimePassed,
            };
            self.take(kind).await;
        }
        self.finish().await;
    }

    /// Whether the world may be changed for this session. After a time in which it might not, the
    /// row is read before anything is done: it may be another's now.
    async fn may_act(&mut self) -> bool {
        let turn = self.lease.borrow_and_update().turn;
        let may = self.plane.replicas.may_act(&self.row.session);
        if may && turn != self.turn && self.plane.replicas.may_be_shared() {
            self.reload().await;
        }
        if may {
            self.turn = turn;
        }
        may
    }

    /// Begins what is owed and not under way, ends what is not owed any more; tells when to look
    /// at the row again at the latest.
    fn see_to_what_is_owed(&mut self, may_act: bool) -> Time {
        let mut wake_at = self.row.session.deadline_at;
        let duties = if may_act { owed(&self.row.session) } else { Vec::new() };
        let incarnation = self.row.session.incarnation;
        self.under_way.keep(&duties, incarnation);
        for duty in duties {
            match duty {
                Duty::WakeAt(at) => wake_at = at,
                duty if self.under_way.may_begin(duty) => {
                    let work = self.duties.clone().perform(duty, self.row.session.clone());
                    self.under_way.begin(&self.plane, duty, incarnation, work);
                }
                _ => {}
            }
        }
        if crate::planted::is("no-timer") { Time::from_micros(i64::MAX) } else { wake_at }
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

    async fn finish(mut self) {
        let id = self.row.session.id;
        self.under_way.keep(&[], self.row.session.incarnation);
        // Whoever comes next must not find us at work.
        let _ = tokio::time::timeout(LET_GO, self.under_way.over()).await;
        self.duties.link.send_replace(None);
        self.plane.logs.close(id);
        let mut driven = self.plane.driven();
        driven.remove(&id);
        // Before it can be driven here anew.
        self.plane.queue.remove(id);
        drop(driven);
        if self.not_ours {
            // It may have come back to us while we were still here, and nobody began to drive it.
            self.plane.replicas.look_for_strays();
        }
        if self.not_ours && !self.row.session.place.is_empty() {
            // Others gave our host up, though it lives: what they could not reach is ours to end.
            self.plane.sweep_soon();
        }
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
