//! Bringing up one machine, until it has acknowledged that it is itself.
//!
//! ```text
//! cold:   spawn ── boot ─────────────── prepare ── wake ──► Started
//!           └──── one retry ────┘
//! clone:  spawn ── restore + hello ── wake ──► Started
//!           └──────── one retry ────────┘
//! ```
//!
//! *boot* and *hello* end with the agent's answer; *restore* ends when QEMU says that the guest
//! runs. Restore and hello go on side by side: the hello waits in the socket until the guest reads
//! it. Every stage has a deadline. Boots hang now and then under software emulation, so a boot,
//! or all of a clone (it has no bot's work in it), is tried twice; the first try's QEMU is gone
//! before the second begins.
//!
//! When a start fails, nothing of it is left. When its future is dropped, its QEMU is killed and
//! its directory stays, as the future may have been a moment from success: destroy it by name.

use std::fs::File;
use std::time::{Duration, Instant};

use callbox_link::{Link, LinkError, fresh_wake};
use callbox_protocol::agent::Prepare;
use serde_json::{Value, json};

use crate::config::{Accelerator, HostConfig, MachineShape};
use crate::error::{Error, chain};
use crate::host::Host;
use crate::image::Image;
use crate::layout::check_name;
use crate::lock::FileLock;
use crate::qemu::command::STATE_FD;
use crate::qemu::{Invocation, Memory};
use crate::qmp::{Qmp, QmpError};
use crate::run::vm::connect;
use crate::run::{Kind, Record, RunDir, Vm};
use crate::template::Template;

/// On top of the bot's own time to become ready: the agent answers when that is over.
const PREPARE_GRACE: Duration = Duration::from_secs(5);

/// What to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The machine's name, new on this host.
    pub name: String,
    /// Where it comes from.
    pub from: From,
    /// What it has.
    pub shape: MachineShape,
    /// Its root file system.
    pub image: Image,
    /// Its bot.
    pub prepare: Prepare,
}

/// Where a machine comes from.
#[derive(Clone, Debug)]
pub enum From {
    /// From nothing: kernel, bot, everything.
    Cold,
    /// From this template, which must be of the same shape, image and bot.
    Clone(Template),
}

/// A machine that is awake and waits for its session.
#[derive(Debug)]
pub struct Started {
    /// The connection to its agent.
    pub link: Link,
    /// What runs its instructions.
    pub accelerator: Accelerator,
    /// How long each stage took, in order.
    pub stages: Vec<(&'static str, Duration)>,
}

impl Host {
    /// Starts a machine and waits until its agent has acknowledged the wake.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken; [`Error::Template`] if the template is of
    /// something else or gone; else what the failing stage says.
    pub async fn start(&self, start: Start) -> Result<Started, Error> {
        check_name(&start.name)?;
        start.shape.check()?;
        let template = match &start.from {
            From::Cold => None,
            From::Clone(template) => Some(template),
        };
        let record =
            Record::new(Kind::Machine, self.accelerator(), template.map(|t| t.id().to_owned()));
        let directory = {
            let _kept = match template {
                Some(template) => Some(self.keep(template, &start).await?),
                None => None,
            };
            RunDir::create(&self.layout, &start.name, &record)?
        };
        let outcome = self.bring_up(&directory, &record, &start, template).await;
        if outcome.is_err()
            && let Err(error) = RunDir::destroy(&self.layout, &start.name).await
        {
            tracing::warn!(machine.name = start.name, error = %chain(&error), "a machine that failed to start is left over");
        }
        outcome
    }

    async fn bring_up(
        &self,
        directory: &RunDir,
        record: &Record,
        start: &Start,
        template: Option<&Template>,
    ) -> Result<Started, Error> {
        let mut watch = StopWatch::new();
        let memory = template.map_or(Memory::Fresh, |t| Memory::CopyOnWrite(t.memory()));
        let invocation =
            self.invocation(directory, &start.shape, memory, Some(&start.image.rootfs));
        let boot = Boot { host: self, directory, record, invocation: &invocation };
        let link = match template {
            Some(template) => boot.clone_of(template, &start.name, &mut watch).await?,
            None => {
                let (vm, link) = boot.cold(&mut watch).await?;
                prepare(&vm, &link, &start.prepare).await?;
                watch.mark("prepare");
                wake(&vm, &link, &start.name, &self.config).await?;
                watch.mark("wake");
                vm.release();
                link
            }
        };
        Ok(Started { link, accelerator: self.accelerator(), stages: watch.stages })
    }

    /// Makes sure that `template` is what `start` wants, and that it stays until the machine's
    /// record names it.
    async fn keep(&self, template: &Template, start: &Start) -> Result<FileLock, Error> {
        let manifest = self.manifest(&start.shape, &start.image, &start.prepare);
        template.check(&manifest)?;
        let path = self.template_lock(template.id());
        let lock = tokio::task::spawn_blocking(move || FileLock::shared(&path));
        let lock = lock.await.expect("locking a file does not panic")?;
        template.check_present()?;
        Ok(lock)
    }
}

/// The parts of a boot that are the same for machines and for templates in the making.
pub(crate) struct Boot<'a> {
    pub host: &'a Host,
    pub directory: &'a RunDir,
    pub record: &'a Record,
    pub invocation: &'a Invocation,
}

impl Boot<'_> {
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
        let vm = self.spawn(None).await?;
        watch.mark("spawn");
        let link = vm.within("boot", self.host.config.boot_timeout, hello(self.directory)).await;
        let link = or_kill(&vm, link).await?;
        watch.mark("boot");
        Ok((vm, link))
    }

    async fn clone_of(
        &self,
        template: &Template,
        name: &str,
        watch: &mut StopWatch,
    ) -> Result<Link, Error> {
        let mut first = true;
        loop {
            match self.clone_once(template, name, watch).await {
                Err(error) if first && self.again(&error) => first = false,
                outcome => return outcome,
            }
        }
    }

    async fn clone_once(
        &self,
        template: &Template,
        name: &str,
        watch: &mut StopWatch,
    ) -> Result<Link, Error> {
        watch.restart();
        let state = template.open_state()?;
        let vm = self.spawn(Some(state)).await?;
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
            wake(&vm, &link, name, config).await?;
            watch.mark("wake");
            Ok(link)
        };
        let outcome = waking.await;
        let link = or_kill(&vm, outcome).await?;
        vm.release();
        Ok(link)
    }

    async fn spawn(&self, state: Option<File>) -> Result<Vm, Error> {
        let program = &self.host.qemu.path;
        Vm::spawn(self.directory, program, self.invocation, state, self.record.clone()).await
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

/// No session data before this: without a whole acknowledgement, [`Link::wake`] is an error.
async fn wake(vm: &Vm, link: &Link, name: &str, config: &HostConfig) -> Result<(), Error> {
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
