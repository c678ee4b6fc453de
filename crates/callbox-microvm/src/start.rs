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

use std::time::Duration;

use callbox_link::Link;
use callbox_protocol::agent::Prepare;

use crate::boot::{Boot, StopWatch};
use crate::config::{Accelerator, MachineShape};
use crate::error::{Error, chain};
use crate::host::Host;
use crate::image::Image;
use crate::layout::check_name;
use crate::qemu::Memory;
use crate::run::{Kind, Record, RunDir};
use crate::template::Template;

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
        let template = start.template();
        if let Some(template) = template {
            template.check(&self.manifest(&start.shape, &start.image, &start.prepare))?;
        }
        let directory = self.make_directory(&start.name, Kind::Machine, template)?;
        let outcome = self.bring_up(&directory, &start).await;
        if outcome.is_err()
            && let Err(error) = RunDir::destroy(&self.layout, &start.name).await
        {
            tracing::warn!(machine.name = start.name, error = %chain(&error), "a machine that failed to start is left over");
        }
        outcome
    }

    /// The run directory of a new machine, with the intention of its cage in its record.
    pub(crate) fn make_directory(
        &self,
        name: &str,
        kind: Kind,
        template: Option<&Template>,
    ) -> Result<(RunDir, Record), Error> {
        let template = template.map(|template| template.id().to_owned());
        let record = Record::new(kind, self.accelerator(), template, self.cage.assign()?);
        Ok((RunDir::create(&self.layout, name, &record)?, record))
    }

    async fn bring_up(
        &self,
        (directory, record): &(RunDir, Record),
        start: &Start,
    ) -> Result<Started, Error> {
        let mut watch = StopWatch::new();
        let template = start.template();
        let memory = template.map_or(Memory::Fresh, |_| Memory::CopyOnWrite);
        let invocation =
            self.invocation(directory, &start.shape, memory, Some(&start.image.rootfs));
        let boot = Boot {
            host: self,
            directory,
            record,
            invocation: &invocation,
            template,
            becomes: None,
        };
        let (vm, link) = boot.up(&start.prepare, &start.name, &mut watch).await?;
        vm.release();
        Ok(Started { link, accelerator: self.accelerator(), stages: watch.stages })
    }
}

impl Start {
    pub(crate) fn template(&self) -> Option<&Template> {
        match &self.from {
            From::Cold => None,
            From::Clone(template) => Some(template),
        }
    }
}
