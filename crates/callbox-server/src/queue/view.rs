//! What the rows say about room: who waits, who has or will have a machine, who starts.

use std::sync::Arc;

use callbox_core::{MachineState, Session, SessionId, State, Time, machine_name};
use callbox_machines::{Claim, MachineSpec, Provider};

use super::Known;
use crate::plane::Plane;

/// One provider's sessions.
pub(super) struct View {
    /// In the order in which they may start.
    waiting: Vec<(Time, SessionId)>,
    pub claims: Vec<Claim>,
    /// Those that start and did not come from a reserve.
    starting: usize,
}

impl View {
    pub fn of(plane: &Plane, provider: &str, known: &Known) -> View {
        let mut view = View { waiting: Vec::new(), claims: Vec::new(), starting: 0 };
        for (id, handle) in plane.handles() {
            let session = handle.session.borrow();
            if session.provider != provider {
                continue;
            }
            let queued = session.state == State::Queued;
            if queued && !known.granted.contains(&id) {
                view.waiting.push((session.moments.accepted, id));
                continue;
            }
            if !queued && matches!(session.machine, MachineState::None | MachineState::Gone) {
                continue;
            }
            let starting = queued || session.state == State::Starting;
            if starting && !known.prepared.contains(&id) {
                view.starting += 1;
            }
            // A bot that is no longer configured: its session is about to end.
            view.claims.extend(spec(plane, &session).map(|spec| Claim { spec, starting }));
        }
        view.waiting.sort_unstable();
        view
    }

    /// From 1; none if it does not wait.
    pub fn position(&self, id: SessionId) -> Option<usize> {
        self.waiting.iter().position(|(_, waiting)| *waiting == id).map(|index| index + 1)
    }

    /// Whether nobody waits before this one, which may not be among them yet.
    pub fn is_first(&self, id: SessionId) -> bool {
        self.waiting.first().is_none_or(|(_, first)| *first == id)
    }

    pub fn may_start(&self, provider: &dyn Provider) -> bool {
        provider.max_starting().is_none_or(|most| self.starting < most.max(1))
    }
}

/// The session's machine: the one it has, or else its first.
pub(super) fn spec(plane: &Plane, session: &Session) -> Option<MachineSpec> {
    let bot = plane.bot(&session.bot)?;
    let incarnation = session.incarnation.max(1);
    let name = machine_name(session.id, incarnation);
    let version = session.version.clone();
    Some(MachineSpec { name, incarnation, bot: Arc::clone(&bot.machine), version })
}
