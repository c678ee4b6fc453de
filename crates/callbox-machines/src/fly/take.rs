//! Giving a machine of the reserve to a session.
//!
//! ```text
//! taken ── start (unless it runs) ── its agent dials ── renamed ── told ── wake ──► started
//!   │                                                      │          └ the row has its id
//!   └ it is this session's here                            └ it comes back as this session's only
//! ```
//!
//! Which session has it is in three places. In our memory from the beginning: this replica alone
//! gives it away. In the session's row, by the machine's id, before anything of the session is sent
//! to it. And noted at Fly a moment later, when nobody waits any more: for people, and for the sweep
//! of a replica that cannot read that row.

use std::{sync::Arc, time::Duration};

use callbox_core::{Fault, of_machine_name};
use callbox_fly::{Action, Happened};
use callbox_link::Link;
use tokio::time::{Instant, sleep, timeout};

use super::{
    CALL, Inner,
    find::{Known, Place},
    request::{INCARNATION, MACHINE, SESSION},
    reserve::{Door, Waiting},
    start::Stages,
};
use crate::{BotVersion, MachineSpec, ReserveKind, StartFault, Started};

/// A machine of the reserve whose agent does not come within so long is given up: a fresh one may
/// be quicker. It must be gone within so long, too, before there is a fresh one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a note is tried, and how long between two tries.
const NOTES: (u32, Duration) = (5, Duration::from_secs(2));

impl Inner {
    /// A machine of the reserve, if one is ready and comes to itself.
    pub async fn take(self: &Arc<Self>, spec: &MachineSpec) -> Result<Option<Started>, StartFault> {
        // It has one: from a call before this one, or from another process.
        if self.known_place(&spec.name).is_some() {
            return Ok(None);
        }
        let bot = BotVersion { bot: Arc::clone(&spec.bot), version: spec.version.clone() };
        let Some(waiting) = self.reserves.take(&bot, |_| true) else { return Ok(None) };
        let Waiting { name, place, .. } = &*waiting;
        self.know(&spec.name, |known| {
            (known.place, known.taken) = (Some(place.clone()), Some(name.clone()));
        });
        match self.give(&waiting, spec).await {
            Ok(started) => {
                tokio::spawn(Arc::clone(self).note(place.clone(), spec.name.clone()));
                Ok(Some(started))
            }
            Err(fault @ StartFault::Bot { .. }) => Err(fault),
            Err(fault) => {
                tracing::warn!(machine.name = spec.name, reserve = name, %fault, "a machine of the reserve failed; making a fresh one");
                self.arrivals.forget(&spec.name);
                self.know(name, |known| known.place = Some(place.clone()));
                self.know(&spec.name, |known| *known = Known::default());
                // Its agent may have heard the session's name: while it lives, it could come back
                // in the place of the fresh one.
                let gone = timeout(PATIENCE, self.removal(name)).await;
                let stays = |_| format!("a machine of the reserve failed, and stays: {fault}");
                gone.map_err(stays).map_err(Fault::unavailable)?.map_err(Fault::unknown)?;
                Ok(None)
            }
        }
    }

    async fn give(&self, waiting: &Waiting, spec: &MachineSpec) -> Result<Started, StartFault> {
        let Waiting { name, place, .. } = waiting;
        let stages = Stages::default();
        let late = || StartFault::Provider(Fault::unavailable("it does not come to itself"));
        let renamed = timeout(PATIENCE, self.renamed(waiting, spec, &stages)).await;
        let link = renamed.map_err(|_| late())??;
        self.arrivals.forget(name);
        self.let_go(name);
        self.forget(name);
        self.know(&spec.name, |known| known.taken = None);
        spec.made.tell(&place.to_string());
        // How long the bot may take is its own affair from here on.
        self.awake(spec, place, link, stages, "reserve").await
    }

    /// Up to where the machine is the session's: its agent has heard the name.
    async fn renamed(
        &self,
        waiting: &Waiting,
        spec: &MachineSpec,
        stages: &Stages,
    ) -> Result<Link, StartFault> {
        let Waiting { name, place, kind, link, .. } = waiting;
        let connected = link.lock().expect("no panic while held").take();
        let mut link = match (connected, kind) {
            (Some(connected), _) => connected,
            (None, ReserveKind::Started) => self.agent_of(name, place).await?,
            (None, kind) => {
                let since = Instant::now();
                self.start(name, place).await?;
                stages.add(if *kind == ReserveKind::Stopped { "start" } else { "resume" }, since);
                let since = Instant::now();
                let met = self.agent_of(name, place).await?;
                stages.add(if *kind == ReserveKind::Stopped { "boot" } else { "dial" }, since);
                met
            }
        };
        while self.arrivals.rename(&link.0, &link.1, &spec.name).await.is_err() {
            // It is back under the one name or the other, as far as it heard.
            link = self.either(name, &spec.name, place).await?;
        }
        Ok(link.0)
    }

    async fn either(
        &self,
        one: &str,
        other: &str,
        place: &Place,
    ) -> Result<(Link, String), StartFault> {
        tokio::select! {
            met = self.agent_of(one, place) => met,
            met = self.agent_of(other, place) => met,
        }
    }

    /// The one call that it takes, by the machine's own limit.
    async fn start(&self, name: &str, place: &Place) -> Result<(), StartFault> {
        // It may come up from nothing, even if its memory was put by: then it is another process.
        self.arrivals.forget(name);
        self.set_door(name, Door::Open);
        self.pace.turn(Action::Start, &place.id).await;
        match self.client.start(&place.app, &place.id, CALL).await {
            Ok(_) => Ok(()),
            // Its agent tells.
            Err(error) if error.happened() == Happened::Maybe => Ok(()),
            Err(error) => Err(StartFault::Provider(super::fault(&error))),
        }
    }

    /// Notes at Fly whose machine this is, in its metadata: its configuration stays as it is.
    async fn note(self: Arc<Self>, place: Place, name: String) {
        let of = of_machine_name(&name);
        let session = of.map(|(session, _)| session.to_string()).unwrap_or_default();
        let incarnation = of.map(|(_, n)| n.to_string()).unwrap_or_default();
        for (key, value) in [(MACHINE, &name), (SESSION, &session), (INCARNATION, &incarnation)] {
            for _ in 0..NOTES.0 {
                self.pace.turn(Action::SetMetadata, &place.id).await;
                let Place { app, id, .. } = &place;
                match self.client.set_metadata(app, id, key, value, CALL).await {
                    Ok(()) => break,
                    Err(error) if error.is_not_found() => return,
                    Err(error) => {
                        tracing::warn!(machine.name = name, key, %error, "not noted at Fly");
                        sleep(NOTES.1).await;
                    }
                }
            }
        }
    }
}
