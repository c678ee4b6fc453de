//! A dispatcher that takes no new sessions, and lets those that it has come to their end.
//!
//! ```text
//!   serving ── begin ──▶ draining: starts are refused, /readyz is red, all else goes on
//!      ▲                    │   deadline, if one is set: bots and watchers are warned before it,
//!      └───── cancel ───────┘   and who still lives then is ended, `drained`
//! ```
//!
//! Sessions that wait for room were accepted, so they go on as the others do: they start, or end
//! by their own deadlines.
//!
//! A drain is of this process and is kept nowhere: who is started anew is meant to serve.
//!
//! With `limits.on_shutdown = "drain"` a shutdown begins with one, that nobody can cancel.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use callbox_core::{EndCode, EndReason, EventKind, Session, State, Time};
use tokio::sync::watch;

use crate::{
    driver, metrics,
    plane::{Handle, Plane, over},
};

/// How long sessions may take to end that the last drain's deadline has ended.
const TO_END: Duration = Duration::from_secs(20);

/// Whether this dispatcher is being drained.
#[derive(Default)]
pub struct Drain {
    now: watch::Sender<Option<Draining>>,
    /// Whether the dispatcher ends with it.
    last: AtomicBool,
}

/// A drain that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// When it began.
    pub since: Time,
    /// When what still lives is ended; never, if absent.
    pub deadline: Option<Time>,
}

impl Drain {
    /// The drain that is under way.
    pub fn now(&self) -> Option<Draining> {
        *self.now.borrow()
    }

    /// Whether the dispatcher ends with this drain, so that it cannot be cancelled.
    pub fn is_last(&self) -> bool {
        self.last.load(Ordering::Relaxed)
    }

    /// Resolves when another drain, or none, has taken this one's place.
    async fn replaced(&self, mine: Draining) {
        let mut changes = self.now.subscribe();
        let _ = changes.wait_for(|now| *now != Some(mine)).await;
    }
}

/// Whether the drain's deadline has come: nothing may live any more.
pub(crate) fn is_overdue(plane: &Plane) -> bool {
    let deadline = plane.drain.now().and_then(|drain| drain.deadline);
    deadline.is_some_and(|deadline| deadline <= plane.clock.now())
}

/// Resolves when it is time to say that `session` will be ended by the drain, with the deadline;
/// for another deadline than `told` only.
pub(crate) async fn warning_due(plane: &Plane, session: &Session, told: Option<Time>) -> Time {
    let mut changes = plane.drain.now.subscribe();
    loop {
        let drain = *changes.borrow_and_update();
        let warning = drain.and_then(|drain| drain.warning(session));
        let due = async {
            match warning.filter(|(deadline, _)| Some(*deadline) != told) {
                Some((deadline, at)) => {
                    tokio::time::sleep(plane.clock.until(at)).await;
                    deadline
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            deadline = due => return deadline,
            // The sender lives as long as the plane does.
            _ = changes.changed() => {}
        }
    }
}

impl Draining {
    /// The deadline, and when to warn of it; none for a call that is to end by itself before, or
    /// that wants no warning. In a short drain, at its half: told at once, it would begin with
    /// its end.
    fn warning(&self, session: &Session) -> Option<(Time, Time)> {
        let deadline = self.deadline?;
        let warn = session.limits.warn;
        let ends_before = session.state == State::Live && session.deadline_at <= deadline;
        if ends_before || warn.is_zero() {
            return None;
        }
        let span = deadline.since(self.since);
        Some((deadline, self.since.after(span - warn.min(span / 2))))
    }
}

/// Takes no new sessions from now on. While a drain is under way, a deadline replaces the one
/// before; none leaves it as it is.
pub fn begin(plane: &Arc<Plane>, deadline: Option<Duration>) -> Draining {
    let now = plane.clock.now();
    let mut drain = Draining { since: now, deadline: None };
    let changed = plane.drain.now.send_if_modified(|current| {
        let before = *current;
        drain = before.unwrap_or(drain);
        drain.deadline = deadline.map(|span| now.after(span)).or(drain.deadline);
        *current = Some(drain);
        before != *current
    });
    if changed {
        tracing::info!(?deadline, "draining: no new sessions, and those that live go on");
        if let Some(deadline) = drain.deadline {
            plane.spawn(enforce(Arc::clone(plane), drain, deadline));
        }
    }
    drain
}

/// Serves again, unless the dispatcher is on its way out: false then. Sessions that a drain's
/// deadline has ended stay ended.
pub fn cancel(plane: &Plane) -> bool {
    let mut was = None;
    plane.drain.now.send_if_modified(|now| {
        // In here, so that a signal that comes just now is not undone.
        if !plane.drain.is_last() {
            was = now.take();
        }
        was.is_some()
    });
    if was.is_some() {
        tracing::info!("the drain was cancelled: sessions are taken again");
    }
    !plane.drain.is_last()
}

/// The drain that a dispatcher ends with: no new sessions, and those that live may come to their
/// end, for `longest` at most, or until the deadline of a drain that is on already. Resolves when
/// none is left, or when those that the deadline ended have had the time for it.
pub(crate) async fn last(plane: &Arc<Plane>, longest: Duration) {
    plane.drain.last.store(true, Ordering::Relaxed);
    let deadline = plane.drain.now().and_then(|drain| drain.deadline);
    let sooner = deadline.is_some_and(|deadline| plane.clock.until(deadline) <= longest);
    begin(plane, (!sooner).then_some(longest));
    tokio::select! { () = nobody_is_left(plane) => {} () = time_is_up(plane) => {} }
}

/// Again, until none is left: a start may have been under way when the first were looked at.
async fn nobody_is_left(plane: &Plane) {
    loop {
        let handles = plane.handles();
        if handles.is_empty() {
            return;
        }
        for (_, Handle { mut session, .. }) in handles {
            // The sender goes with the driver, and the driver when nothing is left to do.
            while session.changed().await.is_ok() {}
        }
    }
}

async fn time_is_up(plane: &Plane) {
    let mut changes = plane.drain.now.subscribe();
    loop {
        let deadline = changes.borrow_and_update().and_then(|drain| drain.deadline);
        let up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(plane.clock.until(deadline) + TO_END).await,
                None => std::future::pending().await,
            }
        };
        // The sender lives as long as the plane does.
        tokio::select! { () = up => return, _ = changes.changed() => {} }
    }
}

/// Says why a session is ended whose time is over with the drain's.
pub(crate) fn reason() -> EndReason {
    EndReason::new(EndCode::Drained, "the dispatcher was drained, and the drain's deadline came")
}

/// Warns before the deadline and ends what lives then, unless something else becomes of `drain`.
async fn enforce(plane: Arc<Plane>, drain: Draining, deadline: Time) {
    let warnings = plane.handles().into_iter().map(|(_, handle)| warn(&plane, handle));
    let warnings = async {
        futures::future::join_all(warnings).await;
        std::future::pending().await
    };
    tokio::select! {
        () = plane.drain.replaced(drain) => return,
        () = warnings => {}
        () = tokio::time::sleep(plane.clock.until(deadline)) => {}
    }
    for (id, handle) in plane.handles() {
        if !over(&handle.session.borrow()) {
            tracing::warn!(session.id = %id, "ending a session: the drain's deadline came");
            handle.tell(EventKind::EndRequested(reason()));
        }
    }
}

/// Warns one session's bot, once its call has begun, and each that takes its place after that.
async fn warn(plane: &Plane, handle: Handle) {
    let mut warned = 0;
    loop {
        let to_warn = |session: &Session| {
            over(session) || (session.state == State::Live && session.incarnation > warned)
        };
        let called = handle.until(to_warn).await;
        let Some(session) = called.filter(|session| !over(session)) else { return };
        let deadline = warning_due(plane, &session, None).await;
        let session = handle.session.borrow().clone();
        if over(&session) || !to_warn(&session) {
            // It is over, or its bot died meanwhile: the next one is warned once the call goes on.
            continue;
        }
        warned = session.incarnation;
        let told = driver::warn(plane, handle.link.clone(), deadline, EndCode::Drained).await;
        metrics::warned(told.is_ok());
        // Its log is closed once it has ended.
        if plane.handle(session.id).is_none() {
            return;
        }
        plane.logs.writer(session.id).say(match told {
            Ok(()) => "the bot was warned that the dispatcher will end its call",
            Err(_) => "the bot could not be warned that the dispatcher will end its call",
        });
    }
}
