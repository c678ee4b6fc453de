//! The life of one machine: its task looks at the state and does what it calls for.
//!
//! ```text
//!            build            start           ended
//!  created ────────▶ starting ─────▶ started ───────▶ stopped | restarting | destroying
//!     │ skip_launch                    │ suspend
//!     └────────▶ stopped               └────────▶ suspended
//! ```
//!
//! Passing states: `starting`, `stopping`, `suspending`, `restarting`, `replacing`,
//! `launch_failed`, `destroying`; each has work here that ends it. When a call changes the state
//! meanwhile (`turn`), the work is dropped and the state is looked at again: what a call wants
//! is always in the state, so none can be missed.

use std::sync::Arc;
use std::time::Duration;

use callbox_fly::limits;
use callbox_fly::wire::{RestartPolicy, State};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::backend::{Backend, Boot, Exit, Spec};
use super::record::{Ending, Seen, exit_request};
use super::trouble::Fate;
use super::world::{Inner, World};

/// Pause before a backend that could not destroy is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Pause before a program is tried again by its restart policy. Fly's is not known.
const RETRY: Duration = Duration::from_secs(1);

/// Lives until the machine is destroyed.
pub async fn live(world: Arc<World>, backend: Arc<dyn Backend>, id: String) {
    let Some(mut watch) = world.lock().machines.get(&id).map(|one| one.watch.subscribe()) else {
        return;
    };
    loop {
        let Some(now) = Look::at(&world, &id) else { return };
        if now.state == State::Destroyed {
            return;
        }
        let work = Work { world: &world, backend: backend.as_ref(), now: &now };
        tokio::select! {
            biased;
            gone = turned(&mut watch, now.turn) => if gone { return },
            () = work.do_it() => {}
        }
    }
}

/// Waits for a change that a call made. `true` when the machine is forgotten.
async fn turned(watch: &mut watch::Receiver<Seen>, turn: u64) -> bool {
    watch.wait_for(|seen| seen.turn != turn).await.is_err()
}

/// A machine at one moment.
struct Look {
    state: State,
    turn: u64,
    spec: Spec,
    boot: Boot,
    launch: bool,
    launched: bool,
    retries: bool,
    ending: Ending,
    fate: Fate,
    host_lost: bool,
}

impl Look {
    fn at(world: &World, id: &str) -> Option<Look> {
        let inner = world.lock();
        let one = inner.machines.get(id)?;
        Some(Look {
            state: one.state.clone(),
            turn: one.turn,
            spec: one.spec(),
            boot: one.boot,
            launch: one.launch,
            launched: one.launched,
            retries: !one.tries.is_empty(),
            ending: one.ending.clone(),
            fate: one.fate.clone(),
            host_lost: one.host_lost,
        })
    }
}

struct Work<'a> {
    world: &'a World,
    backend: &'a dyn Backend,
    now: &'a Look,
}

impl Work<'_> {
    async fn do_it(&self) {
        match self.now.state {
            State::Destroying => self.destroy().await,
            // Nobody reaches the host: nothing goes on but a destroy.
            _ if self.now.host_lost => std::future::pending().await,
            State::Created | State::Creating => self.build().await,
            State::Starting => self.start().await,
            State::Started => self.run().await,
            State::Stopping => self.stop().await,
            State::Suspending => self.suspend().await,
            State::Restarting => self.restart().await,
            State::Replacing | State::Updating => self.replace().await,
            State::LaunchFailed => {
                self.then(|inner, id| inner.enter(id, State::Destroying, "destroy"))
            }
            State::Stopped
            | State::Suspended
            | State::Failed
            | State::Destroyed
            | State::Replaced
            | State::Migrated
            | State::Unknown(_) => std::future::pending().await,
        }
    }

    fn id(&self) -> &str {
        &self.now.spec.id
    }

    /// Changes the machine, unless a call changed it meanwhile.
    fn then(&self, change: impl FnOnce(&mut Inner, &str)) {
        let mut inner = self.world.lock();
        let turn = inner.machines.get(self.id()).map(|one| one.turn);
        if turn == Some(self.now.turn) {
            change(&mut inner, self.id());
        }
    }

    async fn build(&self) {
        if self.now.fate.stuck {
            return std::future::pending().await;
        }
        sleep(Duration::from_millis(self.now.fate.build_extra_ms)).await;
        let built = self.backend.build(&self.now.spec).await;
        let next = match built {
            Err(why) => {
                tracing::warn!(fly.machine = self.id(), why, "cannot be built");
                (State::LaunchFailed, "exit")
            }
            Ok(()) if self.now.fate.launch_fails => (State::LaunchFailed, "exit"),
            Ok(()) if self.now.launch => (State::Starting, "start"),
            Ok(()) => (State::Stopped, "stop"),
        };
        self.then(|inner, id| inner.enter(id, next.0, next.1));
    }

    async fn start(&self) {
        if self.now.retries {
            sleep(RETRY).await;
        }
        match self.backend.start(&self.now.spec, self.now.boot).await {
            Ok(_) => self.then(|inner, id| {
                if let Some(one) = inner.machines.get_mut(id) {
                    one.launched = true;
                }
                inner.enter(id, State::Started, "start");
            }),
            Err(why) => {
                tracing::warn!(fly.machine = self.id(), why, "cannot be started");
                self.backend.kill(self.id()).await;
                // Whoever asked for the first boot hears of its end; later ones can be tried again.
                let failed = if self.now.launched { State::Failed } else { State::LaunchFailed };
                self.then(|inner, id| inner.enter(id, failed, "exit"));
            }
        }
    }

    async fn run(&self) {
        let fate = &self.now.fate;
        let after = |ms: Option<u64>| async move {
            match ms {
                Some(ms) => sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        let exit = tokio::select! {
            biased;
            exit = self.backend.ended(self.id()) => exit,
            () = after(fate.host_lost_after_ms) => {
                // Losing it is a turn, which drops this work: so it comes last.
                self.backend.kill(self.id()).await;
                self.world.lock().lose_host(self.id());
                return;
            }
            () = after(fate.exits_after.map(|(ms, _)| ms)) => {
                Exit::code(fate.exits_after.map(|(_, code)| code).unwrap_or_default())
            }
        };
        self.backend.kill(self.id()).await;
        self.then(|inner, id| exited(inner, id, &exit));
    }

    /// Signal, grace, and then the end.
    async fn end(&self) -> Exit {
        let Ending { signal, grace } = &self.now.ending;
        self.backend.signal(self.id(), signal).await;
        let exit = timeout(*grace, self.backend.ended(self.id())).await;
        self.backend.kill(self.id()).await;
        exit.unwrap_or_else(|_| Exit::killed())
    }

    async fn stop(&self) {
        let exit = self.end().await;
        let now = self.world.now();
        self.then(|inner, id| {
            // With `auto_destroy` the end of the program is the machine's, whoever asked for it.
            let next = if is_for_once(inner, id) { State::Destroying } else { State::Stopped };
            inner.enter_with(id, next, "exit", exit_request(&exit, true, false, now));
        });
    }

    async fn suspend(&self) {
        match self.backend.suspend(&self.now.spec).await {
            Ok(()) => self.then(|inner, id| inner.enter(id, State::Suspended, "suspend")),
            Err(why) => {
                tracing::warn!(fly.machine = self.id(), why, "cannot be suspended");
                self.then(|inner, id| inner.enter(id, State::Started, "start"));
            }
        }
    }

    async fn restart(&self) {
        let exit = self.end().await;
        let now = self.world.now();
        self.then(|inner, id| {
            let request = exit_request(&exit, true, true, now);
            inner.enter_with(id, State::Starting, "exit", request);
        });
    }

    async fn replace(&self) {
        self.end().await;
        if let Err(why) = self.backend.build(&self.now.spec).await {
            tracing::warn!(fly.machine = self.id(), why, "cannot be built anew");
            return self.then(|inner, id| inner.enter(id, State::Failed, "exit"));
        }
        let launch = self.now.launch;
        self.then(|inner, id| match launch {
            true => inner.enter(id, State::Starting, "start"),
            false => inner.enter(id, State::Stopped, "stop"),
        });
    }

    async fn destroy(&self) {
        self.backend.kill(self.id()).await;
        while let Err(why) = self.backend.destroy(self.id()).await {
            tracing::warn!(fly.machine = self.id(), why, "cannot be destroyed yet");
            sleep(AGAIN).await;
        }
        self.then(|inner, id| inner.enter(id, State::Destroyed, "destroy"));
    }
}

fn is_for_once(inner: &Inner, id: &str) -> bool {
    inner.machines.get(id).is_some_and(|one| one.config.auto_destroy.unwrap_or_default())
}

/// What follows the end of a main process that nobody asked for (fly.md section 2.2).
fn exited(inner: &mut Inner, id: &str, exit: &Exit) {
    let now = inner.clock.now();
    let again = is_tried_again(inner, id, exit);
    let next = match again {
        true => State::Starting,
        false if is_for_once(inner, id) => State::Destroying,
        false => State::Stopped,
    };
    if again && let Some(one) = inner.machines.get_mut(id) {
        one.boot = Boot::Cold;
    }
    inner.enter_with(id, next, "exit", exit_request(exit, false, again, now));
}

fn is_tried_again(inner: &mut Inner, id: &str, exit: &Exit) -> bool {
    let Some(one) = inner.machines.get_mut(id) else { return false };
    let restart = one.config.restart.clone().unwrap_or_default();
    let most = match restart.policy.unwrap_or(RestartPolicy::OnFailure) {
        RestartPolicy::Always => u32::MAX,
        RestartPolicy::OnFailure if exit.code != 0 => {
            restart.max_retries.unwrap_or(limits::RESTART_TRIES)
        }
        _ => return false,
    };
    let now = Instant::now();
    one.tries.retain(|at| now.saturating_duration_since(*at) < limits::RESTART_WINDOW);
    if one.tries.len() >= most as usize {
        return false;
    }
    one.tries.push(now);
    true
}
