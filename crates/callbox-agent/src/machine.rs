//! The machine's life: how far it has come, and who is in it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use callbox_protocol::agent::{Health, Phase, Prepare};
use callbox_protocol::join::Rejoin;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::bot::{Bot, Launch, LaunchError};
use crate::events::Events;
use crate::logs::Logs;
use crate::place::Place;
use crate::reap::Reaper;
use crate::refusal::Refusal;
use crate::tunnel::Inward;

/// How many of the bot's last lines go with a refusal.
const TAIL: usize = 50;
/// How long the bot's output is waited for once it has ended. What it left behind may hold its
/// pipes open for ever.
const OUTPUT_PATIENCE: Duration = Duration::from_millis(500);

/// Everything the agent knows.
pub(crate) struct Machine {
    pub place: Place,
    pub logs: Arc<Logs>,
    pub events: Arc<Events>,
    pub inward: Inward,
    reaper: Arc<Reaper>,
    phase: watch::Sender<Phase>,
    hosts: watch::Sender<usize>,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    prepare: Option<Arc<Prepare>>,
    bot: Option<Arc<Bot>>,
    session: Option<(String, u32)>,
    /// What opens the next connection, of a machine that dials its host.
    rejoin: Option<Rejoin>,
    /// The call that is under way, of those that change the phase.
    busy: Option<&'static str>,
}

impl Machine {
    /// A machine that has just booted. Must be called inside the runtime.
    pub(crate) fn new(place: Place) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            place,
            logs: Arc::new(Logs::new()),
            events: Arc::new(Events::new()),
            inward: Inward::default(),
            reaper: Reaper::start()?,
            phase: watch::Sender::new(Phase::Booted),
            hosts: watch::Sender::new(0),
            life: Mutex::default(),
        }))
    }

    pub(crate) fn health(&self) -> Health {
        let uptime = clock_gettime(ClockId::Boottime);
        Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: self.phase(),
            uptime_ms: uptime.tv_sec as u64 * 1000 + uptime.tv_nsec as u64 / 1_000_000,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to `phase`, never back.
    pub(crate) fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let further = phase as u8 > *current as u8;
            if further {
                *current = phase;
            }
            further
        });
    }

    /// Waits until the machine has come as far as `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender is a part of this machine, so it cannot be gone.
        let _ = phases.wait_for(|current| *current as u8 >= phase as u8).await;
    }

    /// Begins a call that changes the phase. There is one at a time, and only in `phases`.
    pub(crate) fn begin(
        self: &Arc<Self>,
        call: &'static str,
        phases: &[Phase],
    ) -> Result<Turn, Refusal> {
        let phase = self.phase();
        if phase == Phase::Over && !phases.contains(&phase) {
            let message = format!("{call} is not possible: the bot has ended");
            return Err(Refusal::bot_exited(message, self.tail()));
        }
        let mut life = self.life();
        if !phases.contains(&phase) || life.busy.is_some() {
            return Err(Refusal::wrong_phase(call, phase));
        }
        life.busy = Some(call);
        Ok(Turn(Arc::clone(self)))
    }

    /// What the bot was prepared with.
    pub(crate) fn prepared(&self) -> Option<Arc<Prepare>> {
        self.life().prepare.clone()
    }

    pub(crate) fn set_prepared(&self, prepare: Prepare) {
        self.life().prepare = Some(Arc::new(prepare));
        self.advance(Phase::Prepared);
    }

    /// The session, with the number of its machine.
    pub(crate) fn session(&self) -> Option<(String, u32)> {
        self.life().session.clone()
    }

    pub(crate) fn set_session(&self, session_id: String, incarnation: u32) {
        self.life().session = Some((session_id, incarnation));
        self.advance(Phase::InSession);
    }

    /// What opens the next connection to the host.
    #[cfg(feature = "join")]
    pub(crate) fn rejoin(&self) -> Option<Rejoin> {
        self.life().rejoin.clone()
    }

    pub(crate) fn set_rejoin(&self, rejoin: Rejoin) {
        self.life().rejoin = Some(rejoin);
    }

    pub(crate) fn bot(&self) -> Option<Arc<Bot>> {
        self.life().bot.clone()
    }

    /// Starts the bot's process; its end ends the machine's usefulness.
    pub(crate) fn launch(
        self: &Arc<Self>,
        prepare: &Prepare,
        argv: &[String],
        env: &BTreeMap<String, String>,
    ) -> Result<Arc<Bot>, LaunchError> {
        let launch = Launch { argv, env, cwd: &prepare.cwd, uid: prepare.uid, gid: prepare.gid };
        let mut bot = Bot::launch(&launch, self.place.is_machine(), &self.reaper, &self.logs)?;
        let output = bot.take_output();
        let bot = Arc::new(bot);
        self.life().bot = Some(Arc::clone(&bot));
        tokio::spawn(Arc::clone(self).await_end(Arc::clone(&bot), output));
        Ok(bot)
    }

    /// Who starts and collects processes.
    pub(crate) fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    /// The bot's last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.logs.tail(TAIL)
    }

    /// Counts a connected host until the guard is dropped.
    pub(crate) fn host_connected(self: &Arc<Self>) -> HostGuard {
        self.hosts.send_modify(|hosts| *hosts += 1);
        HostGuard(Arc::clone(self))
    }

    /// How many hosts are connected.
    pub(crate) fn hosts(&self) -> watch::Receiver<usize> {
        self.hosts.subscribe()
    }

    async fn await_end(self: Arc<Self>, bot: Arc<Bot>, output: Vec<JoinHandle<()>>) {
        let exit = bot.exit().await;
        // Its last lines come before the news of its end.
        let _ = timeout(OUTPUT_PATIENCE, futures::future::join_all(output)).await;
        let out_of_memory = bot.out_of_memory() && exit.signal == Some(9);
        self.logs.say(&format!("the bot ended: {exit}"));
        if self.session().is_some() {
            self.events.not_ready(format!("the bot ended before it was ready: {exit}"));
        }
        self.events.over(exit.code, exit.signal, out_of_memory);
        self.advance(Phase::Over);
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to change the phase, until it is dropped.
pub(crate) struct Turn(Arc<Machine>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.life().busy = None;
    }
}

/// A host that is connected.
pub(crate) struct HostGuard(Arc<Machine>);

impl Drop for HostGuard {
    fn drop(&mut self) {
        self.0.hosts.send_modify(|hosts| *hosts -= 1);
    }
}
