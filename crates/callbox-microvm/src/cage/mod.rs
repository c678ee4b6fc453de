//! The cage around a machine's QEMU: what a QEMU that was taken over by its guest can still do.
//!
//! ```text
//! dispatcher ─ fork ─► child: cgroup ─ namespaces ─ view ─ limits ─ no capability ─ own user id
//!                        └──────────────────────────── enter.rs ───────────────────────┘
//!                                                       │ exec
//!                                                       ▼
//!                                QEMU, behind its own system call filter, sees
//!                                itself, its libraries and firmware   (view.rs, read-only)
//!                                /m/kernel /m/initramfs /m/rootfs     (read-only)
//!                                the descriptors that it inherited    (sockets, sealed memory)
//! ```
//!
//! How much of it is possible is found out by trying: a QEMU is started in the cage when the host
//! is opened ([`Cage::find`]). As root everything is there; without root a user namespace gives
//! most of it, where the host allows one. What is missing is never silent: [`Cage::missing`] goes
//! into `doctor`, into the log at start, and onto every session.
//!
//! A cage is numbers (a user id, a cgroup), drawn before anything is made and written into the
//! machine's record first. They do not derive from the machine's name, as a reserve is given its
//! name only when it is claimed.

mod cgroup;
mod enter;
mod user;
mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

pub(crate) use cgroup::Cgroups;
pub(crate) use enter::{Entry, Mishap};
pub(crate) use view::{Access, Bound, View};

use crate::config::{Accelerator, CageChoice};
use crate::error::{Error, chain};
use crate::layout::Layout;
use crate::qemu::Invocation;
use crate::qemu::Qemu;
use crate::run::{Kind, Record, RunDir};

/// The run directory of a QEMU that is only tried out; our process id follows.
pub(crate) const TRIAL_PREFIX: &str = ".cage-";
/// How long a QEMU that is only tried out may take.
const TRIAL: Duration = Duration::from_secs(20);

/// What this host puts around its machines.
#[derive(Debug)]
pub(crate) struct Cage {
    view: Option<View>,
    cgroups: Option<Cgroups>,
    /// Whether each machine gets a user id of its own.
    users: bool,
    missing: Vec<String>,
}

/// The part of a cage that belongs to one machine, as it stands in its record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// The user and group id of its QEMU.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Its cgroup in each hierarchy.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
}

/// What one machine may use of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Memory in bytes: the guest's, the translation cache, and QEMU itself.
    pub memory_bytes: u64,
    /// Processors, in thousandths.
    pub cpu_milli: u64,
}

/// Threads and processes of one QEMU: a machine has a handful.
const MAX_PIDS: u64 = 128;

impl Cage {
    /// No cage at all.
    pub fn none(why: &str) -> Cage {
        Cage { view: None, cgroups: None, users: false, missing: vec![why.to_owned()] }
    }

    /// Finds out what is possible here, by trying.
    ///
    /// # Errors
    /// [`Error::Cage`] when the configuration insists on all of it and something is missing.
    pub async fn find(layout: &Layout, qemu: &Qemu, choice: CageChoice) -> Result<Cage, Error> {
        if choice == CageChoice::Off {
            return Ok(Cage::none("machines run without a cage, as the configuration says"));
        }
        let root = rustix::process::geteuid().is_root();
        let mut cage = Cage { view: None, cgroups: None, users: root, missing: Vec::new() };
        if root {
            match Cgroups::find(layout) {
                Ok(cgroups) => {
                    cage.missing.extend(cgroups.missing());
                    cage.cgroups = Some(cgroups);
                }
                Err(error) => cage.missing.push(format!(
                    "no cgroups: processors, memory and processes of machines are not bounded by the host ({})",
                    chain(&error)
                )),
            }
        } else {
            cage.missing.push(
                "not root: machines share the dispatcher's user id, so that one that was taken over \
                 sees and can end its processes, and they have no cgroup of their own"
                    .to_owned(),
            );
        }
        if root && !hides_processes() {
            cage.missing.push("a kernel before 5.8: machines see the host's processes".to_owned());
        }
        let mut tried = cage.try_view(layout, qemu).await;
        if tried.is_err()
            && let Some(view) = &cage.view
        {
            // It may be the view: one that was cut short by a power failure looks whole.
            view.forget()?;
            tried = cage.try_view(layout, qemu).await;
        }
        match tried {
            Ok(()) => {}
            Err(error) => {
                cage.view = None;
                cage.users = false;
                cage.missing.push(format!(
                    "no view of its own: qemu sees the host's files and runs as the dispatcher's user ({})",
                    chain(&error)
                ));
            }
        }
        if choice == CageChoice::Required && !cage.missing.is_empty() {
            return Err(Error::Cage { missing: cage.missing.join("; ") });
        }
        Ok(cage)
    }

    async fn try_view(&mut self, layout: &Layout, qemu: &Qemu) -> Result<(), Error> {
        self.view = Some(View::make(layout, qemu)?);
        let cell = self.assign()?;
        // Written down like any machine: whoever dies over it leaves something that can be found.
        let drawn = callbox_link::fresh_wake("").generation_id;
        let name = format!("{TRIAL_PREFIX}{}-{}", std::process::id(), &drawn[..8]);
        let record = Record::new(Kind::Probe, Accelerator::Tcg, None, cell.clone());
        let directory = RunDir::create(layout, &name, &record)?;
        let built = self.build(&cell, Bounds { memory_bytes: 1 << 30, cpu_milli: 1000 });
        let outcome = match built {
            Ok(()) => self.trial(&cell, qemu, &Invocation::mark(directory.path())).await,
            Err(error) => Err(error),
        };
        RunDir::destroy(layout, &name).await?;
        outcome
    }

    /// Has a QEMU start in the cage, with its firmware and its emulator, and quit.
    async fn trial(&self, cell: &Cell, qemu: &Qemu, mark: &str) -> Result<(), Error> {
        const WORDS: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
        let mut command = Command::new(self.program(qemu));
        command
            .args([
                "-name",
                mark,
                "-M",
                "microvm",
                "-accel",
                "tcg",
                "-m",
                "128M",
                "-S",
                "-nodefaults",
            ])
            .args(["-no-user-config", "-display", "none", "-qmp", "stdio"])
            .env_clear()
            .kill_on_drop(true)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        let mishap = self.enter(&mut command, cell, Vec::new())?;
        let mut child = command.spawn().map_err(|error| mishap.explain(error))?;
        let mut stdin = child.stdin.take().expect("asked for as a pipe");
        let talk = async {
            use tokio::io::AsyncWriteExt;
            // One that has ended already says why on its stderr.
            let _ = stdin.write_all(WORDS).await;
            child.wait_with_output().await
        };
        let failed = |said: String| Error::Unusable(format!("qemu does not run in a cage: {said}"));
        match tokio::time::timeout(TRIAL, talk).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(failed(format!("{} {said}", output.status)))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("it did not end within {TRIAL:?}"))),
        }
    }

    /// What a machine could still do, in words; empty when nothing is missing.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Draws the numbers of one machine's cell; nothing is made yet.
    ///
    /// # Errors
    /// When the host's processes cannot be looked at.
    pub fn assign(&self) -> Result<Cell, Error> {
        let uid = if self.users { Some(user::draw()?) } else { None };
        let name = user::cell_name(uid);
        let cgroups = self.cgroups.as_ref().map(|found| found.paths(&name)).unwrap_or_default();
        Ok(Cell { uid, cgroups })
    }

    /// Makes the cgroups of a cell.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn build(&self, cell: &Cell, bounds: Bounds) -> Result<(), Error> {
        match &self.cgroups {
            Some(cgroups) => cgroups.make(&cell.cgroups, bounds, MAX_PIDS),
            None => Ok(()),
        }
    }

    /// The machine's program and files, as its QEMU will see them, and what must be bound for it.
    pub fn place(&self, invocation: &Invocation) -> (Invocation, Vec<Bound>) {
        match &self.view {
            Some(view) => view.place(invocation),
            None => (invocation.clone(), Vec::new()),
        }
    }

    /// The program to run.
    pub fn program(&self, qemu: &Qemu) -> PathBuf {
        match &self.view {
            Some(view) => view.program.clone(),
            None => qemu.path.clone(),
        }
    }

    /// Has `command` enter the cage before it becomes QEMU. The answer explains a spawn that fails.
    ///
    /// # Errors
    /// When what the child needs cannot be made ready.
    pub fn enter(
        &self,
        command: &mut Command,
        cell: &Cell,
        bound: Vec<Bound>,
    ) -> Result<Mishap, Error> {
        if cell.uid.is_some() {
            for file in bound.iter().filter(|bound| bound.access == Access::Read) {
                make_readable(&file.from)?;
            }
        }
        let base = self.view.as_ref().map(|view| view.base.as_path());
        Entry::prepare(base, cell, bound)?.register(command)
    }

    /// Ends whatever is left in the cell and removes it.
    ///
    /// # Errors
    /// When it does not go away.
    pub async fn clear(cell: &Cell) -> Result<(), Error> {
        cgroup::clear(&cell.cgroups).await
    }
}

/// Whether the kernel can show a machine its own processes only (Linux 5.8).
fn hides_processes() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 8)
}

/// For the machines' users; other users do not reach the data directory.
fn make_readable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::metadata(path).map_err(Error::io("look at", path))?.permissions();
    if permissions.mode() & 0o004 != 0 {
        return Ok(());
    }
    let readable = std::fs::Permissions::from_mode(permissions.mode() | 0o444);
    std::fs::set_permissions(path, readable).map_err(Error::io("make readable", path))
}
