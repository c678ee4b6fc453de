//! The door of this crate: one host, one data directory.
//!
//! Opening finds QEMU and a kernel, decides on the accelerator and clears what dead processes
//! left half done. It leaves running machines alone: whose they are, the caller must say
//! ([`Host::list`], then [`Host::connect`] or [`Host::destroy`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use callbox_link::Link;
use callbox_protocol::agent::Prepare;
use serde_json::Value;

use crate::boot;
use crate::cage::Cage;
use crate::config::{Accelerator, AcceleratorChoice, HostConfig, MachineShape, Network};
use crate::error::Error;
use crate::guest::{BootFiles, Kernel, tsc};
use crate::image::Image;
use crate::layout::{Layout, check_name};
use crate::net::{Networks, Wire};
use crate::probe;
use crate::qemu::command::kernel_command_line;
use crate::qemu::{Invocation, Memory, Qemu};
use crate::qmp::Qmp;
use crate::reserve::MONITOR;
use crate::run::{Kind, RunDir};
use crate::template::{Manifest, Template};

/// A host that can run machines.
#[derive(Debug)]
pub struct Host {
    pub(crate) config: HostConfig,
    pub(crate) layout: Layout,
    pub(crate) qemu: Qemu,
    pub(crate) cage: Cage,
    pub(crate) networks: Networks,
    /// Templates that are held in memory, by id.
    pub(crate) opened: Mutex<BTreeMap<String, Template>>,
    /// Held while one is opened: reading the same template twice at once would hold it twice.
    pub(crate) opening: tokio::sync::Mutex<()>,
    files: BootFiles,
    processor: Processor,
}

/// What runs the guest's instructions, and how it looks to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    pub accelerator: Accelerator,
    /// QEMU's name for it.
    pub cpu: String,
}

/// One machine of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Whether its QEMU runs. What does not must still be destroyed.
    pub alive: bool,
    /// What runs its instructions; unknown if its record was never written.
    pub accelerator: Option<Accelerator>,
    /// The template it is a clone of.
    pub template: Option<String>,
    /// When it was made.
    pub created_at: SystemTime,
}

impl Host {
    /// Opens `config.data_dir`, creating it if needed. The first time on a host this takes
    /// seconds: a kernel is obtained, KVM is tried out.
    ///
    /// # Errors
    /// When QEMU, a kernel or the agent is missing; [`Error::KvmUnusable`] if the configuration
    /// insists on KVM.
    pub async fn open(config: HostConfig) -> Result<Host, Error> {
        let preparing = config.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let config = preparing;
            let layout = Layout::create(&config.data_dir)?;
            let qemu = Qemu::find(&config.qemu)?;
            let kernel = Kernel::obtain(&layout, config.kernel.as_deref())?;
            let files = BootFiles::make(&layout, kernel, &config.agent)?;
            Ok::<_, Error>((layout, qemu, files))
        });
        let (layout, qemu, files) = prepared.await.expect("preparing a host does not panic")?;
        let networks = Networks::open(layout.root(), config.network.clone())?;
        let processor = Processor { accelerator: Accelerator::Tcg, cpu: "max".to_owned() };
        let cage = Cage::find(&layout, &qemu, config.cage).await?;
        let (opened, opening) = (Mutex::default(), tokio::sync::Mutex::default());
        let mut host =
            Host { config, layout, qemu, cage, networks, opened, opening, files, processor };
        if host.config.accelerator != AcceleratorChoice::Tcg {
            match probe::kvm(&host).await? {
                Ok(processor) => host.processor = processor,
                Err(reason) if host.config.accelerator == AcceleratorChoice::Kvm => {
                    return Err(Error::KvmUnusable(reason));
                }
                Err(reason) => {
                    tracing::warn!(reason, "no kvm: machines run under software emulation")
                }
            }
        }
        probe::clear_dead(&host.layout).await?;
        host.clear_dead_bakes().await?;
        Ok(host)
    }

    /// What runs the machines' instructions.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.processor.accelerator
    }

    /// The exact build of QEMU.
    #[must_use]
    pub fn qemu_version(&self) -> &str {
        &self.qemu.version
    }

    /// The release of the guests' kernel.
    #[must_use]
    pub fn kernel_release(&self) -> &str {
        &self.files.kernel.release
    }

    /// The data directory, absolute.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.layout.root()
    }

    /// Ends the machine and removes all that is left of it on this host. Destroying what is not
    /// there is success.
    ///
    /// # Errors
    /// When its process cannot be killed or its files cannot be removed.
    pub async fn destroy(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        RunDir::destroy(&self.layout, name).await
    }

    /// The networks of this deployment, for those who look after them.
    #[must_use]
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// All machines of the data directory, whoever started them, alive or not.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn list(&self) -> Result<Vec<Running>, Error> {
        let directories = RunDir::all(&self.layout)?;
        Ok(directories
            .iter()
            .filter(|found| check_name(found.name()).is_ok())
            .map(running)
            .collect())
    }

    /// The names of all machines; quicker than [`Host::list`].
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let directories = RunDir::all(&self.layout)?;
        let names = directories.iter().map(|found| found.name().to_owned());
        Ok(names.filter(|name| check_name(name).is_ok()).collect())
    }

    /// Whether there is a machine of this name, whatever its state; no more than a look.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        check_name(name).is_ok() && RunDir::at(&self.layout, name).path().exists()
    }

    /// The machine of this name, whatever its state.
    ///
    /// # Errors
    /// [`Error::Name`] if no machine can be called so.
    pub fn find(&self, name: &str) -> Result<Option<Running>, Error> {
        check_name(name)?;
        let directory = RunDir::at(&self.layout, name);
        Ok(directory.path().exists().then(|| running(&directory)))
    }

    /// Opens a new connection to a running machine: after a restart of the dispatcher. The agent
    /// serves one connection at a time; another one that still lives keeps this one waiting.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no such machine runs; [`Error::Deadline`] if its agent does not
    /// answer.
    pub async fn connect(&self, name: &str) -> Result<Link, Error> {
        check_name(name)?;
        let directory = RunDir::at(&self.layout, name);
        let not_found = || Error::NotFound(name.to_owned());
        if !running(&directory).alive {
            return Err(not_found());
        }
        let limit = self.config.clone_timeout;
        tokio::time::timeout(limit, boot::hello(&directory)).await.map_err(|_| Error::Deadline {
            stage: "answer a new connection",
            after: limit,
            said: "another connection may still be open".to_owned(),
        })?
    }

    /// Lets a machine's processors stand still: it keeps its memory, and no time passes in it.
    /// Nobody ends it by itself then, so whoever does this has to end it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no such machine runs; [`Error::Deadline`] if QEMU does not answer.
    pub async fn pause(&self, name: &str) -> Result<(), Error> {
        self.tell(name, "stop", "stop a machine's processors").await
    }

    /// Lets a machine that stands still go on where it was.
    ///
    /// # Errors
    /// As [`Host::pause`].
    pub async fn go_on(&self, name: &str) -> Result<(), Error> {
        self.tell(name, "cont", "let a machine go on").await
    }

    async fn tell(&self, name: &str, command: &str, stage: &'static str) -> Result<(), Error> {
        check_name(name)?;
        let directory = RunDir::at(&self.layout, name);
        if !running(&directory).alive {
            return Err(Error::NotFound(name.to_owned()));
        }
        let telling = async {
            let mut qmp =
                Qmp::connect(&directory.qmp_socket()).await.map_err(boot::qmp_error(stage))?;
            qmp.execute(command, Value::Null).await.map_err(boot::qmp_error(stage))?;
            Ok(())
        };
        let late = |_| Error::Deadline { stage, after: MONITOR, said: String::new() };
        tokio::time::timeout(MONITOR, telling).await.map_err(late)?
    }

    /// Where a machine's media port is, for processes of the same user. Whether the machine runs
    /// is not looked at.
    ///
    /// # Errors
    /// When no machine can have this name.
    pub fn media_socket(&self, name: &str) -> Result<std::path::PathBuf, Error> {
        check_name(name)?;
        Ok(RunDir::at(&self.layout, name).media_socket())
    }

    /// The command line for a machine in `directory`.
    pub(crate) fn invocation(
        &self,
        directory: &RunDir,
        shape: &MachineShape,
        memory: Memory,
        rootfs: Option<&Path>,
    ) -> Invocation {
        self.invocation_on(&self.processor, directory.path(), shape, memory, rootfs)
    }

    pub(crate) fn invocation_on(
        &self,
        processor: &Processor,
        run_dir: &Path,
        shape: &MachineShape,
        memory: Memory,
        rootfs: Option<&Path>,
    ) -> Invocation {
        let emulated = processor.accelerator == Accelerator::Tcg;
        Invocation {
            run_dir: run_dir.to_path_buf(),
            accelerator: processor.accelerator,
            cpu: processor.cpu.clone(),
            tb_size_mib: self.config.tb_size_mib,
            shape: shape.clone(),
            memory,
            kernel: self.files.kernel.image.clone(),
            initramfs: self.files.initramfs.clone(),
            append: kernel_command_line(
                emulated.then(tsc::of_host).flatten(),
                shape,
                self.config.orphan_after,
            ),
            rootfs: rootfs.map(Path::to_path_buf),
            wire: Wire::Tap,
        }
    }

    /// What a template of this shape, image and bot is of, on this host as it is now.
    pub(crate) fn manifest(
        &self,
        shape: &MachineShape,
        image: &Image,
        prepare: &Prepare,
    ) -> Manifest {
        let nowhere = RunDir::at(&self.layout, "template");
        let invocation = self.invocation(&nowhere, shape, Memory::Fresh, Some(&image.rootfs));
        Manifest {
            format: Manifest::FORMAT,
            qemu: self.qemu.version.clone(),
            arguments: invocation.fingerprint(),
            kernel: self.files.kernel.digest.clone(),
            initramfs: self.files.initramfs_digest.clone(),
            image: image.digest.clone(),
            host_cpu: (self.accelerator() == Accelerator::Kvm).then(probe::host_cpu),
            prepare: prepare.clone(),
        }
    }

    /// What is not enforced around this host's machines, in words; empty when nothing is missing.
    #[must_use]
    pub fn not_enforced(&self) -> &[String] {
        self.cage.missing()
    }

    /// The same for machines with this network.
    #[must_use]
    pub fn not_enforced_with(&self, network: &Network) -> Vec<String> {
        let missing = self.not_enforced().iter().map(String::as_str);
        missing.chain(self.networks.not_enforced(network)).map(str::to_owned).collect()
    }

    /// Whether a template of this manifest was made by a host like this one is now.
    pub(crate) fn is_like(&self, manifest: &Manifest) -> bool {
        manifest.same_host(&Manifest {
            format: Manifest::FORMAT,
            qemu: self.qemu.version.clone(),
            kernel: self.files.kernel.digest.clone(),
            initramfs: self.files.initramfs_digest.clone(),
            host_cpu: (self.accelerator() == Accelerator::Kvm).then(probe::host_cpu),
            ..manifest.clone()
        })
    }
}

fn running(directory: &RunDir) -> Running {
    let record = directory.record().filter(|record| record.kind == Kind::Machine);
    let process = record.as_ref().and_then(|record| record.process.as_ref());
    let created = record.as_ref().map_or(0, |record| record.created_ms);
    Running {
        name: directory.name().to_owned(),
        // What cannot be looked at is taken to be alive: it must not be forgotten.
        alive: process.is_some_and(|process| process.runs().unwrap_or(true)),
        accelerator: record.as_ref().map(|record| record.accelerator),
        template: record.as_ref().and_then(|record| record.template.clone()),
        created_at: UNIX_EPOCH + Duration::from_millis(created),
    }
}
