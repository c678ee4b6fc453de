//! Who may start now, and who waits.
//!
//! ```text
//!  start ─▶ enter ── room, nobody waits ──▶ row Starting
//!             │
//!             ├── else ─────────────────▶ row Queued ── duty Admit: first, and room ──▶ Admitted
//!             └── as many wait as may ──▶ 429, Retry-After
//! ```
//!
//! The queue is the rows in state `Queued`, one line per provider, in the order in which they were
//! accepted; what is taken is the rows that have a machine or are about to. Nothing is booked
//! besides, so a dispatcher that starts again has the same queue, and a session that ends while it
//! waits is out of it by that alone.
//!
//! One at a time decides (`turn`). Nobody overtakes, with one exception: a session whose machine
//! is in reserve takes nothing that those before it wait for.

mod lines;
mod pace;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use callbox_core::{Applied, EndCode, EndReason, Event, EventKind, Session, SessionId, State};
use callbox_machines::{Admission, Claims, MachineSpec, Provider};
use tokio::sync::{MutexGuard as TurnGuard, watch};

use crate::{
    driver, metrics, outside,
    plane::Plane,
    store::{Inserted, NewSession, StoreError},
};
use lines::{Lines, spec};
use pace::Pace;

/// How long to wait for news before looking all the same: a reserve may have been filled, a
/// provider may have room that no session of ours gave back.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// More than can ever be in reserve; a provider that always has something to give up must not
/// keep us for ever.
const MOST_SHED: usize = 1024;

/// See the module's documentation.
#[derive(Default)]
pub struct Queue {
    /// Held by who decides.
    turn: tokio::sync::Mutex<()>,
    /// Told when something may have changed for those that wait.
    changed: watch::Sender<()>,
    known: Mutex<Known>,
}

/// What the rows say, counted, and what they do not say (yet). Losing the latter costs nothing but
/// a little time.
#[derive(Default)]
struct Known {
    lines: Lines,
    /// How fast the queue moves.
    moves: Pace,
    /// How fast sessions end.
    ends: Pace,
    /// How long machines took to start.
    starts: pace::Spans,
    /// Refused since the queue last moved.
    refused: u32,
}

/// A session's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// 1 is next.
    pub position: usize,
    /// How long it will wait, at the pace of late; none while nothing is known.
    pub estimate: Option<Duration>,
}

/// Whether a session may start now.
enum Verdict {
    In,
    Wait,
    /// Something was given up for it, and the turn with it: to be asked anew.
    Again,
    Never {
        detail: String,
    },
}

/// What a look at the room finds.
enum Look {
    Clear(Verdict),
    /// The session is the first, and only something that is given up can make room for it.
    Full {
        claims: Claims,
        detail: String,
    },
}

impl Queue {
    /// Inserts a session, admitted if it need not wait, and starts its driver; unless something
    /// stands against it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn enter(
        &self,
        plane: &Arc<Plane>,
        mut new: NewSession,
    ) -> Result<Inserted, StoreError> {
        let turn = self.turn().await;
        // Nothing is given up for whom the store may still refuse, or know already. Who is first
        // in the queue has that done a moment later, and who finds no place in it, here.
        let mut inserted = self.insert(plane, &mut new, 0).await;
        if matches!(inserted, Ok(Inserted::QueueFull { .. })) {
            inserted = self.insert(plane, &mut new, MOST_SHED).await;
        }
        if !matches!(inserted, Ok(Inserted::Created(_))) {
            // It may have been let in before the store refused it.
            self.known().lines.remove(new.session.id);
        }
        let inserted = inserted?;
        match &inserted {
            Inserted::Created(row) => {
                metrics::accepted(&row.session);
                driver::drive(plane, row.clone());
                if self.place(plane, &row.session).is_some_and(|place| place.position == 1) {
                    self.known().moves = Pace::from(plane.clock.now());
                }
            }
            Inserted::QueueFull { .. } => self.known().refused += 1,
            _ => {}
        }
        drop(turn);
        Ok(inserted)
    }

    async fn insert(
        &self,
        plane: &Plane,
        new: &mut NewSession,
        may_shed: usize,
    ) -> Result<Inserted, StoreError> {
        // The turn is the caller's: until the row is in, nothing else keeps the room for it.
        if let Verdict::In = self.decide(plane, &new.session, may_shed, &mut None).await {
            let admitted = Event { at: new.session.moments.accepted, kind: EventKind::Admitted };
            if let Ok(Applied::Changed(session)) =
                driver::apply_here(plane, &new.session, &admitted)
            {
                new.session = *session;
            }
            if crate::planted::is("no-intent")
                && let Some((provider, spec)) = plane
                    .providers
                    .get(new.session.provider.as_str())
                    .zip(spec(plane, &new.session))
            {
                let _ = provider.ensure(&spec).await;
            }
        }
        outside::call("store.insert", plane.store.insert(new)).await
    }

    /// Nobody is let in while this is held.
    pub(crate) async fn turn(&self) -> TurnGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Waits until the session may start, or it is known that it never will.
    pub(crate) async fn wait(&self, plane: &Plane, session: &Session) -> EventKind {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let mut turn = Some(self.turn().await);
            let verdict = self.decide(plane, session, 1, &mut turn).await;
            drop(turn);
            match verdict {
                Verdict::Again => {}
                Verdict::In => {
                    let mut known = self.known();
                    known.moves.mark(plane.clock.now());
                    known.refused = 0;
                    return EventKind::Admitted;
                }
                Verdict::Never { detail } => {
                    let why = format!("no machine for it can run here: {detail}");
                    return EventKind::EndRequested(EndReason::new(EndCode::StartFailed, why));
                }
                Verdict::Wait => {
                    let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
                }
            }
        }
    }

    /// Tells those that wait that something changed.
    pub(crate) fn tell(&self) {
        self.changed.send_replace(());
    }

    /// Resolves whenever something may have changed for those that wait.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A session that is driven here is as this row says.
    pub(crate) fn set(&self, plane: &Plane, session: &Session) {
        self.known().lines.set(plane, session);
    }

    /// A session is not driven here any more.
    pub(crate) fn remove(&self, id: SessionId) {
        self.known().lines.remove(id);
        self.tell();
    }

    /// A session was saved: those that wait may be concerned, and the pace is measured.
    pub(crate) fn note(&self, plane: &Plane, before: &Session, after: &Session) {
        let mut known = self.known();
        known.lines.set(plane, after);
        if let (None, Some(started)) = (before.moments.started, after.moments.started)
            && let Some(admitted) = after.moments.admitted
        {
            known.starts.add(started.since(admitted));
        }
        if matches!(after.state, State::Ended { .. }) && before.state != after.state {
            known.ends.mark(plane.clock.now());
        }
        drop(known);
        if before.state.kind() != after.state.kind() || before.machine != after.machine {
            self.tell();
        }
    }

    /// The place of a session; none if it does not wait.
    pub fn place(&self, plane: &Plane, session: &Session) -> Option<Place> {
        if session.state != State::Queued {
            return None;
        }
        let position = self.known().lines.position(session.id)?;
        Some(Place { position, estimate: self.estimate(plane, &session.provider, position) })
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.known().lines.waiting()
    }

    /// When who was refused for want of a place in the queue should ask again: each one refused
    /// is one more place that must come free.
    pub fn retry_for_a_place(&self, plane: &Plane, provider: &str) -> Option<Duration> {
        let ahead = usize::try_from(self.known().refused).unwrap_or(1).max(1);
        self.estimate(plane, provider, ahead)
    }

    /// When who was refused because too many live should ask again.
    pub fn retry_for_an_end(&self, plane: &Plane) -> Option<Duration> {
        self.known().ends.each(plane.clock.now())
    }

    /// How long until the queue has moved on by so many places: at the pace of late, or while it
    /// has not moved yet, as long as so many starts take.
    fn estimate(&self, plane: &Plane, provider: &str, places: usize) -> Option<Duration> {
        let known = self.known();
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let each = known.moves.each(plane.clock.now()).or_else(|| {
            let provider = plane.providers.get(provider)?;
            if let Some(pace) = provider.start_pace() {
                return Some(pace);
            }
            let at_once = u32::try_from(provider.max_starting()?).unwrap_or(u32::MAX).max(1);
            Some(known.starts.mean()? / at_once)
        });
        each.map(|each| each.saturating_mul(places))
    }

    /// Whether this session may start now; for its room, so many machines in reserve may be given
    /// up. Only with the turn held; one that is handed in is given back as soon as what is given up
    /// is chosen, so that nobody waits for its end but this session, which still is the first.
    async fn decide(
        &self,
        plane: &Plane,
        session: &Session,
        may_shed: usize,
        turn: &mut Option<TurnGuard<'_, ()>>,
    ) -> Verdict {
        // Without bot or provider it will not get far, but it has nothing to wait for.
        let Some(provider) = plane.providers.get(session.provider.as_str()) else {
            return Verdict::In;
        };
        let Some(next) = spec(plane, session) else { return Verdict::In };
        let mut shed = 0;
        loop {
            let claims = match self.look(plane, &**provider, session, &next) {
                Look::Clear(verdict) => return verdict,
                Look::Full { claims, detail } => {
                    tracing::debug!(session.id = %session.id, detail, "no room");
                    claims
                }
            };
            shed += 1;
            let handed_in = turn.is_some();
            if shed > may_shed || !gave_up(&**provider, &next, &claims, turn).await {
                return Verdict::Wait;
            }
            if handed_in {
                return Verdict::Again;
            }
        }
    }

    /// Lets the session in if there is room beside those that were let in before.
    fn look(
        &self,
        plane: &Plane,
        provider: &dyn Provider,
        session: &Session,
        next: &MachineSpec,
    ) -> Look {
        let mut known = self.known();
        // It was, but whoever asked for it broke off before its row said so.
        if known.lines.is_granted(session.id) {
            return Look::Clear(Verdict::In);
        }
        let line = known.lines.of(provider.name());
        let first = line.is_first(session.id);
        let prepared = match provider.admit(next, &line.claims) {
            Ok(Admission::Prepared) => true,
            Ok(Admission::Never { detail }) => return Look::Clear(Verdict::Never { detail }),
            Ok(Admission::Granted) if first && line.may_start(provider) => false,
            Ok(Admission::Full { detail }) if first => {
                return Look::Full { claims: line.claims.clone(), detail };
            }
            Ok(_) => return Look::Clear(Verdict::Wait),
            Err(fault) => {
                tracing::warn!(provider = provider.name(), %fault, "cannot ask for room");
                return Look::Clear(Verdict::Wait);
            }
        };
        known.lines.grant(plane, session, prepared);
        Look::Clear(Verdict::In)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no panic while held")
    }
}

async fn gave_up(
    provider: &dyn Provider,
    next: &MachineSpec,
    claims: &Claims,
    turn: &mut Option<TurnGuard<'_, ()>>,
) -> bool {
    let mut shedding = provider.shed(next, claims);
    // A provider chooses before its first await: until then the claims must not change.
    let begun = futures::poll!(&mut shedding);
    drop(turn.take());
    let done = match begun {
        Poll::Ready(done) => done,
        Poll::Pending => outside::in_time(outside::ANSWER, shedding).await,
    };
    done.unwrap_or_else(|fault| {
        tracing::warn!(provider = provider.name(), %fault, "cannot give up a reserve");
        false
    })
}
