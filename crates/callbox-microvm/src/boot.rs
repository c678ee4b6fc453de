//! Bringing a QEMU to the point where its agent answers, and the calls that follow.
//!
//! ```text
//! spawn ──► QEMU runs ──┬─ cold ── the guest boots ──────────────────► agent answers the hello
//!                       └─ clone ─ restore: state in, `cont` ──► wake ──► the machine is itself
//! ```
//!
//! A try that fails ends its QEMU, and the second one begins from nothing. What is worth a second
//! try says [`Error::worth_a_retry`]; a machine that was destroyed meanwhile gets none.

use std::time::{Duration, Instant};

use callbox_link::{Link, LinkError, fresh_wake};
use callbox_protocol::agent::Prepare;
use serde_json::{Value, json};

use crate::config::HostConfig;
use crate::error::{Error, chain};
use crate::host::Host;
use crate::qemu::Invocation;
use crate::qemu::command::STATE_FD;
use crate::qmp::{Qmp, QmpError};
use crate::run::vm::{Launch, connect};
use crate::run::{Record, RunDir, Vm};
use crate::template::{Raw, Template};

/// On top of the bot's own time to become ready: the agent answers when that is over.
const PREPARE_GRACE: Duration = Duration::from_secs(5);
/// For one small file in the machine's memory.
const NAMES_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts of a boot that are the same for machines and for templates in the making.
pub(crate) struct Boot<'a> {
    pub host: &'a Host,
    pub directory: &'a RunDir,
    pub record: &'a Record,
    pub invocation: &'a Invocation,
    /// What it is a clone of.
    pub template: Option<&'a Template>,
    /// What it writes its memory to, if it becomes a template.
    pub becomes: Option<&'a Raw>,
}

impl Boot<'_> {
    /// Brings the machine up to its first acknowledged wake, from its template or from nothing.
    pub async fn up(
        &self,
        bot: &Prepare,
        name: &str,
        watch: &mut StopWatch,
    ) -> Result<(Vm, Link), Error> {
        if self.template.is_some() {
            return self.clone(name, watch).await;
        }
        let (vm, link) = self.cold(watch).await?;
        prepare(&vm, &link, bot).await?;
        watch.mark("prepare");
        wake(&vm, &link, name, &self.host.config).await?;
        watch.mark("wake");
        Ok((vm, link))
    }

    /// Boots until the agent answers, twice if need be.
    pub async fn cold(&self, watch: &mut StopWatch) -> Result<(Vm, Link), Error> {
        let mut first = true;
        loop {
            match self.cold_once(watch).await {
                Err(error) if first && self.again(&error) => first = false,
                outcome => return outcome,
            }
        }
    }

    async fn cold_once(&self, watch: &mut StopWatch) -> Result<(Vm, Link), Error> {
        watch.restart();
        let vm = self.spawn().await?;
        watch.mark("spawn");
        let limit = self.host.config.boot_timeout;
        let booting = async {
            let link = vm.within("boot", limit, hello(self.directory)).await?;
            tell_names(&vm, &link).await?;
            Ok(link)
        };
        let booted = booting.await;
        let link = or_kill(&vm, booted).await?;
        watch.mark("boot");
        Ok((vm, link))
    }

    /// Restores the template and wakes the clone, twice if need be.
    async fn clone(&self, name: &str, watch: &mut StopWatch) -> Result<(Vm, Link), Error> {
        let mut first = true;
        loop {
            match self.clone_once(name, watch).await {
                Err(error) if first && self.again(&error) => first = false,
                outcome => return outcome,
            }
        }
    }

    async fn clone_once(&self, name: &str, watch: &mut StopWatch) -> Result<(Vm, Link), Error> {
        watch.restart();
        let vm = self.spawn().await?;
        watch.mark("spawn");
        let waking = async {
            let config = &self.host.config;
            let restored = async {
                restore(self.directory).await?;
                Ok(Instant::now())
            };
            let both = async { tokio::try_join!(restored, hello(self.directory)) };
            let (restored_at, link) = vm.within("wake up", config.clone_timeout, both).await?;
            watch.mark_at("restore", restored_at);
            watch.mark("hello");
            tell_names(&vm, &link).await?;
            wake(&vm, &link, name, config).await?;
            watch.mark("wake");
            Ok(link)
        };
        let outcome = waking.await;
        let link = or_kill(&vm, outcome).await?;
        Ok((vm, link))
    }

    async fn spawn(&self) -> Result<Vm, Error> {
        self.launch().spawn().await
    }

    /// What this boot starts.
    pub fn launch(&self) -> Launch<'_> {
        Launch {
            qemu: &self.host.qemu,
            cage: &self.host.cage,
            networks: &self.host.networks,
            directory: self.directory,
            invocation: self.invocation,
            template: self.template,
            becomes: self.becomes,
            record: self.record,
        }
    }

    /// Whether to try again; not when the machine was destroyed meanwhile.
    fn again(&self, error: &Error) -> bool {
        let again = error.worth_a_retry() && self.directory.path().exists();
        if again {
            tracing::warn!(
                machine.name = self.directory.name(),
                error = %chain(error),
                "a boot failed and is tried once more"
            );
        }
        again
    }
}

/// Calls that may fail leave no QEMU behind.
async fn or_kill<T>(vm: &Vm, outcome: Result<T, Error>) -> Result<T, Error> {
    if outcome.is_err()
        && let Err(error) = vm.kill().await
    {
        tracing::warn!(error = %chain(&error), "a failed boot's qemu does not end");
    }
    outcome
}

/// Opens a connection to the agent; waits as long as it takes.
pub(crate) async fn hello(directory: &RunDir) -> Result<Link, Error> {
    let carrier = connect(&directory.agent_socket()).await?;
    Link::open(Box::new(carrier)).await.map_err(link_error("reach the agent"))
}

/// Has QEMU take in the template's state and let the guest run.
async fn restore(directory: &RunDir) -> Result<(), Error> {
    let dialogue = async {
        let mut qmp = Qmp::connect(&directory.qmp_socket()).await?;
        let on = |capability: &str| json!({ "capability": capability, "state": true });
        let capabilities = [on("x-ignore-shared"), on("events")];
        qmp.execute("migrate-set-capabilities", json!({ "capabilities": capabilities })).await?;
        let uri = format!("fd:{STATE_FD}");
        qmp.execute("migrate-incoming", json!({ "uri": uri })).await?;
        // A state that cannot be taken in ends QEMU. Before it is in, `cont` would be lost.
        qmp.wait_event(|event| event.name == "MIGRATION" && event.data["status"] == "completed")
            .await?;
        qmp.execute("cont", Value::Null).await?;
        Ok::<_, QmpError>(())
    };
    dialogue.await.map_err(qmp_error("restore the template's state"))
}

pub(crate) async fn prepare(vm: &Vm, link: &Link, what: &Prepare) -> Result<(), Error> {
    let limit = Duration::from_millis(what.ready_timeout_ms) + PREPARE_GRACE;
    let call = async { link.prepare(what).await.map_err(link_error("prepare the bot")) };
    vm.within("prepare", limit, call).await.map(|_prepared| ())
}

/// A machine with an allow-list can ask nobody for the addresses of names: it is told them. What
/// it is told is its own and not its template's, but no secret, so it comes before the wake.
async fn tell_names(vm: &Vm, link: &Link) -> Result<(), Error> {
    let Some(hosts) = vm.hosts() else { return Ok(()) };
    let call = async { link.hosts(&hosts).await.map_err(link_error("tell the machine names")) };
    vm.within("take in names", NAMES_TIMEOUT, call).await
}

/// No session data before this: without a whole acknowledgement, [`Link::wake`] is an error.
pub(crate) async fn wake(
    vm: &Vm,
    link: &Link,
    name: &str,
    config: &HostConfig,
) -> Result<(), Error> {
    let call = async {
        // Made inside the future, right before it is sent: the clock in it must be fresh.
        link.wake(&fresh_wake(name)).await.map_err(link_error("wake the machine"))
    };
    vm.within("wake", config.wake_timeout, call).await.map(|_awake| ())
}

pub(crate) fn link_error(stage: &'static str) -> impl FnOnce(LinkError) -> Error {
    move |source| Error::Link { stage, source }
}

pub(crate) fn qmp_error(stage: &'static str) -> impl FnOnce(QmpError) -> Error {
    move |source| Error::Qmp { stage, source }
}

/// Measures stages that follow one another.
pub(crate) struct StopWatch {
    last: Instant,
    pub stages: Vec<(&'static str, Duration)>,
}

impl StopWatch {
    pub fn new() -> StopWatch {
        StopWatch { last: Instant::now(), stages: Vec::new() }
    }

    /// A stage ends now.
    pub fn mark(&mut self, stage: &'static str) {
        self.mark_at(stage, Instant::now());
    }

    /// A stage ended at a moment that was noted.
    pub fn mark_at(&mut self, stage: &'static str, at: Instant) {
        self.stages.push((stage, at.saturating_duration_since(self.last)));
        self.last = self.last.max(at);
    }

    /// A try begins. What a failed one before it took is one stage of its own.
    pub fn restart(&mut self) {
        let lost: Duration = self.stages.drain(..).map(|(_, took)| took).sum();
        let lost = lost + self.last.elapsed();
        if lost > Duration::from_millis(50) {
            self.stages.push(("failed try", lost));
        }
        self.last = Instant::now();
    }
}
