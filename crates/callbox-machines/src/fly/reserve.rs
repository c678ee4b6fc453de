//! The reserve at Fly: machines that wait in one of three ways.
//!
//! ```text
//! stopped     create, not launched ── stopped
//! started     create ── boot ── the agent dials ── prepare ──► connected
//! suspended   the same ── told that it will sleep ── hung up ── suspend ──► suspended
//! ```
//!
//! Each has a name of its own, which names this replica, so that its agent is led here whichever
//! replica it reaches. Who takes it is in `take`. None is taken over from a replica that died: its
//! agents are told that nobody wants them, and the sweep removes the rest.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use callbox_core::{Fault, reserve_name};
use callbox_fly::{Action, Wait, wire::State};
use callbox_link::{Link, fresh_wake};
use futures::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{CALL, DIALS, Inner, find::Place, request};
use crate::{
    BotMachine, BotVersion, Claims, ImageRun, MachineSpec, Made, ReserveKind,
    reserve::{Kept, Key, Maker},
};

/// How long making one may take: Fly leaves single machines in `created` for hours.
const MAKING: Duration = Duration::from_secs(300);
/// How long Fly may take to put a machine's memory by (fly.md section 4: over 15 s).
const SUSPENDING: Duration = Duration::from_secs(60);
/// Between two tries to remove one.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether the agent of a machine in reserve may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// It is about to sleep, or sleeps.
    Shut,
}

/// A machine that waits.
pub(super) struct Waiting {
    pub name: String,
    pub place: Place,
    pub kind: ReserveKind,
    /// Of one that is connected, with its process.
    pub link: Mutex<Option<(Link, String)>>,
    made_at: Instant,
    took: Duration,
}

impl Waiting {
    /// Whether there is nobody at the other end who should be.
    fn is_cut(&self) -> bool {
        let link = self.link.lock().expect("no panic while held");
        let open = link.as_ref().is_some_and(|(link, _)| !link.is_closed());
        self.kind == ReserveKind::Started && !open
    }
}

impl Kept for Arc<Waiting> {
    fn age(&self) -> Duration {
        self.made_at.elapsed()
    }

    fn took(&self) -> Duration {
        self.took
    }

    fn is_lost(&self) -> bool {
        self.is_cut()
    }
}

impl Maker for Arc<Inner> {
    type Machine = Arc<Waiting>;

    async fn make(&self, bot: &BotVersion) -> Result<Arc<Waiting>, String> {
        let unique = &fresh_wake("").generation_id[..16];
        let name = reserve_name(&self.config.keeper, unique);
        let began = Instant::now();
        let late = |_| Err(format!("it was not ready within {} s", MAKING.as_secs()));
        let made = timeout(MAKING, self.wait_ready(&name, bot)).await.unwrap_or_else(late);
        match made {
            Ok((place, link)) => Ok(Arc::new(Waiting {
                name,
                place,
                kind: bot.bot.reserve.kind,
                link: Mutex::new(link),
                made_at: Instant::now(),
                took: began.elapsed(),
            })),
            Err(why) => {
                drop(self.removal(&name));
                Err(why)
            }
        }
    }

    fn has_room(&self, _: &Arc<BotMachine>) -> bool {
        self.sessions() + self.reserves.count() < self.config.max_machines
    }

    async fn discard(&self, kept: Arc<Waiting>) {
        tracing::debug!(machine.name = kept.name, "removing a machine of the reserve");
        drop(self.removal(&kept.name));
    }

    /// Takes the next connection of those whose last one broke.
    async fn look_around(&self) {
        let mut cut = Vec::new();
        self.reserves.each(|kept| cut.extend(kept.is_cut().then(|| Arc::clone(kept))));
        join_all(cut.into_iter().map(async |kept| {
            if let Ok(link) = timeout(DIALS, self.arrivals.link_of(&kept.name)).await {
                *kept.link.lock().expect("no panic while held") = Some(link);
            }
        }))
        .await;
    }
}

impl Inner {
    /// Whether this machine is in reserve here, and may connect.
    pub fn keeps(&self, name: &str) -> Option<bool> {
        let kept = self.kept.lock().expect("no panic while held");
        kept.get(name).map(|door| *door == Door::Open)
    }

    pub fn set_door(&self, name: &str, door: Door) {
        self.kept.lock().expect("no panic while held").insert(name.to_owned(), door);
    }

    /// It is in reserve no more: a session's, or gone.
    pub fn let_go(&self, name: &str) {
        self.kept.lock().expect("no panic while held").remove(name);
    }

    /// How many machines were admitted and may yet be taken from this reserve: those that have a
    /// machine already have taken theirs.
    pub fn spoken_for(&self, claimed: &Claims, reserve: &Key) -> usize {
        let may_take = claimed.starting().filter(|spec| Key::of(spec) == *reserve);
        may_take.filter(|spec| self.known_place(&spec.name).is_none()).count()
    }

    /// Gives up a machine in reserve, as Fly makes no more beside it; whether there was one.
    pub async fn make_way(self: &Arc<Self>) -> bool {
        let Some(spare) = self.reserves.give_up(|_| 0) else { return false };
        // If it is not gone then, Fly will say so.
        let _ = timeout(CALL, self.removal(&spare.name)).await;
        true
    }

    /// Makes a machine, and brings it where it waits.
    async fn wait_ready(
        self: &Arc<Self>,
        name: &str,
        BotVersion { bot, version }: &BotVersion,
    ) -> Result<(Place, Option<(Link, String)>), String> {
        self.set_door(name, Door::Open);
        let (bot, version, made) = (Arc::clone(bot), version.clone(), Made::default());
        request::check(&bot).map_err(|fault| fault.to_string())?;
        let spec = MachineSpec { name: name.to_owned(), incarnation: 0, bot, version, made };
        let place = self.made(&spec).await.map_err(|fault| fault.to_string())?;
        if spec.bot.reserve.kind == ReserveKind::Stopped {
            self.reaches(&place, State::Stopped, MAKING).await?;
            return Ok((place, None));
        }
        let (link, boot) = self.agent_of(name, &place).await.map_err(|fault| fault.to_string())?;
        let prepared = link.prepare(&spec.bot.run.prepare(&ImageRun::default())).await;
        prepared.map_err(|error| error.to_string())?;
        if spec.bot.reserve.kind == ReserveKind::Started {
            return Ok((place, Some((link, boot))));
        }
        let told = self.arrivals.expect_sleep(&link, name, &boot).await;
        told.map_err(|error| error.to_string())?;
        // What it has open when it falls asleep is dead when it wakes: so it has nothing open.
        self.set_door(name, Door::Shut);
        drop(link);
        self.pace.turn(Action::Suspend, &place.id).await;
        let suspended = self.client.suspend(&place.app, &place.id, CALL).await;
        suspended.map_err(|error| error.to_string())?;
        self.reaches(&place, State::Suspended, SUSPENDING).await?;
        Ok((place, None))
    }

    async fn reaches(&self, place: &Place, wanted: State, within: Duration) -> Result<(), String> {
        let ends = [State::Failed, State::Destroyed];
        let wait = Wait::for_any([wanted.clone()].into_iter().chain(ends));
        let deadline = Instant::now() + within;
        let reached = self.client.wait_until(&place.app, &place.id, &wait, deadline).await;
        let reached = reached.map_err(|error| error.to_string())?;
        match reached.state == wanted {
            true => Ok(()),
            false => Err(format!("it is {} and not {wanted}", reached.state)),
        }
    }

    /// Removes a machine that waited or should have, in a task of its own: nobody waits for a
    /// machine that Fly does not let go of, and whoever stops waiting leaves none. What outlives us
    /// here, the sweep removes.
    pub fn removal(self: &Arc<Self>, name: &str) -> JoinHandle<()> {
        self.set_door(name, Door::Shut);
        let (inner, name) = (Arc::clone(self), name.to_owned());
        tokio::spawn(async move {
            while let Err(fault) = inner.remove(&name).await {
                tracing::warn!(machine.name = name, %fault, "a machine of the reserve is not removed yet");
                sleep(AGAIN).await;
            }
        })
    }

    /// Removes all that is in reserve here, ready or not.
    pub async fn remove_reserves(&self) -> Result<(), Fault> {
        self.reserves.drain();
        let kept: Vec<String> =
            self.kept.lock().expect("no panic while held").keys().cloned().collect();
        let removed = join_all(kept.iter().map(|name| self.remove(name))).await;
        removed.into_iter().collect()
    }
}
