//! Machines that are made before anybody asks, each for one session.
//!
//! ```text
//! park:   spawn ── restore + hello ── wake, as often as it gets quicker ── stop      (nobody waits)
//! claim:  rename the run directory ── cont ── wake ──► Started                       (a client waits)
//! ```
//!
//! A parked machine is complete: its QEMU runs, its cage and network are made, its bot is ready,
//! its agent is connected. It is woken before it is parked so that everything a wake needs is
//! warm, above all the translated code under software emulation; then its processors are stopped,
//! and it costs memory and nothing else. What a wake brings is used up by that wake: at the claim
//! the machine is woken again, with entropy, a generation id and a time of its own, and only an
//! acknowledgement of *that* wake makes it somebody's.
//!
//! The claim is the rename. It succeeds once, for one session, whoever tries; from then on the
//! machine is found under its session's name, whatever becomes of us.
//!
//! A parked machine whose dispatcher died stands still, so it cannot end itself. The next
//! dispatcher or `callbox sweep` removes it ([`Host::clear_reserves`]).

use std::time::{Duration, Instant};

use callbox_link::Link;
use serde_json::Value;

use crate::boot::{Boot, StopWatch, qmp_error, wake};
use crate::error::{Error, chain};
use crate::host::Host;
use crate::layout::check_name;
use crate::qemu::Memory;
use crate::qmp::Qmp;
use crate::run::{Kind, Record, RunDir, Vm};
use crate::start::{Start, Started};

/// Prefix of run directories of parked machines. No machine's name can begin so.
const PREFIX: &str = ".rv-";
/// How often a machine is woken before it is parked, at most.
const REHEARSALS: usize = 4;
/// A rehearsal that is not this much quicker than the one before was the last.
const GAIN: f64 = 0.85;
/// How long QEMU may take to stop or to go on.
pub(crate) const MONITOR: Duration = Duration::from_secs(5);

/// A machine that waits for its session.
pub struct Parked {
    directory: RunDir,
    record: Record,
    vm: Vm,
    link: Link,
    qmp: Qmp,
    made_at: Instant,
    took: Duration,
    stages: Vec<(&'static str, Duration)>,
}

impl Parked {
    /// How long it has waited.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.made_at.elapsed()
    }

    /// How long it took to make.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// How long each part of making it took.
    #[must_use]
    pub fn stages(&self) -> &[(&'static str, Duration)] {
        &self.stages
    }

    /// The template that it is a clone of.
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        self.record.template.as_deref()
    }

    /// Its name, until it is claimed.
    #[must_use]
    pub fn name(&self) -> &str {
        self.directory.name()
    }

    /// Whether its QEMU is gone: it is of no use any more.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        // The port ends with QEMU; a machine that stands still does not close it.
        self.link.is_closed()
    }
}

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parked").field("name", &self.directory.name()).finish_non_exhaustive()
    }
}

impl Host {
    /// Makes a machine for a session that nobody has asked for yet. `what.name` is not used.
    ///
    /// Given up in the middle, its QEMU is killed, and [`Host::clear_reserves`] removes the rest.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn park(&self, what: &Start) -> Result<Parked, Error> {
        what.shape.check()?;
        let began = Instant::now();
        let name = format!("{PREFIX}{}", &callbox_link::fresh_wake("").generation_id[..16]);
        let template = what.template();
        if let Some(template) = template {
            template.check(&self.manifest(&what.shape, &what.image, &what.prepare))?;
        }
        let (directory, record) = self.make_directory(&name, Kind::Reserve, template)?;
        let memory = template.map_or(Memory::Fresh, |_| Memory::CopyOnWrite);
        let invocation = self.invocation(&directory, &what.shape, memory, Some(&what.image.rootfs));
        let boot = Boot {
            host: self,
            directory: &directory,
            record: &record,
            invocation: &invocation,
            template,
            becomes: None,
        };
        let mut watch = StopWatch::new();
        let parking = async {
            let (vm, link) = boot.up(&what.prepare, &name[1..], &mut watch).await?;
            self.rehearse(&vm, &link, &mut watch).await?;
            let pausing = async {
                let stage = "stop a machine of the reserve";
                let mut qmp =
                    Qmp::connect(&directory.qmp_socket()).await.map_err(qmp_error(stage))?;
                qmp.execute("stop", Value::Null).await.map_err(qmp_error(stage))?;
                Ok(qmp)
            };
            let qmp = vm.within("stop", MONITOR, pausing).await?;
            // Written by the spawn: with its process.
            let record = directory.record().unwrap_or_else(|| record.clone());
            Ok::<_, Error>((vm, link, qmp, record))
        };
        match parking.await {
            Ok((vm, link, qmp, record)) => {
                let (made_at, took) = (Instant::now(), began.elapsed());
                Ok(Parked { directory, record, vm, link, qmp, made_at, took, stages: watch.stages })
            }
            Err(error) => {
                if let Err(left) = RunDir::destroy(&self.layout, &name).await {
                    tracing::warn!(error = %chain(&left), "a machine of the reserve is left over");
                }
                Err(error)
            }
        }
    }

    /// Wakes the machine again and again, as long as that makes the next wake quicker.
    async fn rehearse(&self, vm: &Vm, link: &Link, watch: &mut StopWatch) -> Result<(), Error> {
        let mut last = f64::INFINITY;
        for _ in 0..REHEARSALS {
            let began = Instant::now();
            wake(vm, link, "rehearsal", &self.config).await?;
            watch.mark("rehearsal");
            let took = began.elapsed().as_secs_f64();
            if took > last * GAIN {
                break;
            }
            last = took;
        }
        Ok(())
    }

    /// Gives a parked machine to the session whose machine is called `name`.
    ///
    /// Dropped in the middle, [`Host::destroy`] of `name` leaves nothing of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if somebody removed it, [`Error::Exists`] if the name is taken; else it
    /// did not go on or did not acknowledge its wake. Nothing is left of it then.
    pub async fn claim(&self, parked: Parked, name: &str) -> Result<Started, Error> {
        check_name(name)?;
        let mut watch = StopWatch::new();
        let Parked { directory, record, vm, link, mut qmp, .. } = parked;
        let directory = match directory.rename(&self.layout, name) {
            Ok(renamed) => renamed,
            Err(error) => {
                drop(vm);
                RunDir::destroy(&self.layout, directory.name()).await?;
                return Err(error);
            }
        };
        let claiming = async {
            watch.mark("claim");
            let going_on = async {
                let outcome = qmp.execute("cont", Value::Null).await;
                outcome.map(|_| ()).map_err(qmp_error("let a machine of the reserve go on"))
            };
            vm.within("go on", MONITOR, going_on).await?;
            watch.mark("resume");
            wake(&vm, &link, name, &self.config).await?;
            // Only now is it a machine that a dispatcher may adopt: until here it was awake from
            // a rehearsal, and whoever finds it like that destroys it.
            directory.write(&Record { kind: Kind::Machine, ..record })?;
            watch.mark("wake");
            Ok(())
        };
        match claiming.await {
            Ok(()) => {
                vm.release();
                Ok(Started { link, accelerator: self.accelerator(), stages: watch.stages })
            }
            Err(error) => {
                drop(vm);
                if let Err(left) = RunDir::destroy(&self.layout, name).await {
                    tracing::warn!(machine.name = name, error = %chain(&left), "a machine of the reserve is left over");
                }
                Err(error)
            }
        }
    }

    /// Ends a machine that nobody claimed.
    ///
    /// # Errors
    /// As [`Host::destroy`].
    pub async fn discard(&self, parked: Parked) -> Result<(), Error> {
        let name = parked.directory.name().to_owned();
        drop(parked);
        RunDir::destroy(&self.layout, &name).await
    }

    /// The names of all parked machines of this data directory, whoever holds them.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn parked(&self) -> Result<Vec<String>, Error> {
        let directories = RunDir::all(&self.layout)?;
        let names = directories.iter().map(|directory| directory.name().to_owned());
        Ok(names.filter(|name| name.starts_with(PREFIX)).collect())
    }

    /// Removes a parked machine by name; nothing else is ever removed by this.
    ///
    /// # Errors
    /// As [`Host::destroy`].
    pub async fn remove_parked(&self, name: &str) -> Result<(), Error> {
        if name.starts_with(PREFIX) { RunDir::destroy(&self.layout, name).await } else { Ok(()) }
    }

    /// Removes parked machines that nobody holds any more: those of a dispatcher that died, and
    /// those whose making was given up. The caller must hold none.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub async fn clear_reserves(&self) -> Result<usize, Error> {
        let parked = self.parked()?;
        for name in &parked {
            self.remove_parked(name).await?;
        }
        Ok(parked.len())
    }
}
