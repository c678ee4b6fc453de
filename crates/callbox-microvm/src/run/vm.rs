//! One QEMU process: starting it, waiting with it, what it said.
//!
//! ```text
//!  we bind the four sockets of the directory ──► QEMU inherits the listeners
//!        │
//!        └─ connect at once: the kernel queues us until QEMU accepts
//! ```
//!
//! A wait for anything that QEMU or the guest must do goes through [`Vm::within`]: it ends with
//! the answer, with the end of QEMU, or with the deadline, whichever comes first, and the errors
//! carry the end of what QEMU and the guest said.
//!
//! Dropping a `Vm` kills its QEMU, so that a start that is given up leaves no process, unless it
//! was released ([`Vm::release`]); from then on the machine ends by [`super::RunDir::destroy`].

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use callbox_protocol::agent::Hosts;
use command_fds::{CommandFdExt, FdMapping};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::pidfd::Alive;
use super::process::Identity;
use super::{Record, RunDir, Tail};
use crate::cage::{Bounds, Cage};
use crate::error::Error;
use crate::net::{NetRecord, Networks, Wire};
use crate::qemu::command::{AGENT_FD, CONSOLE_FD, MEDIA_FD, MEMORY_FD, NET_FD, QMP_FD, STATE_FD};
use crate::qemu::{Invocation, Qemu};
use crate::template::{Raw, Template};

/// How much of what was said goes into an error, in bytes.
const SAID: usize = 600;

/// A QEMU process that we started.
pub struct Vm {
    alive: Alive,
    said: Said,
    directory: RunDir,
    network: Option<NetRecord>,
    released: bool,
}

/// Where the words of a machine come from.
#[derive(Clone)]
struct Said {
    console: Tail,
    stderr: Tail,
}

/// All that starting a QEMU needs.
pub(crate) struct Launch<'a> {
    pub qemu: &'a Qemu,
    pub cage: &'a Cage,
    pub networks: &'a Networks,
    pub directory: &'a RunDir,
    pub invocation: &'a Invocation,
    /// What it is a clone of.
    pub template: Option<&'a Template>,
    /// What it writes its memory to, if it becomes a template.
    pub becomes: Option<&'a Raw>,
    /// The record as it was written when the directory was made.
    pub record: &'a Record,
}

/// What a QEMU needs beside its guest's memory and its translation cache, in MiB: heap, buffers of
/// devices, tables. Measured with QEMU 7.2: 17 to 24 after a call. A machine that needs more is
/// ended by its cgroup.
pub const OWN_MEMORY_MIB: u32 = 64;

impl Launch<'_> {
    /// Starts QEMU and writes its process into the record. Returns as soon as the process exists.
    ///
    /// # Errors
    /// When cage, sockets or the process cannot be made, or [`Error::Destroyed`] if the directory
    /// went away meanwhile; then there is no process left.
    pub async fn spawn(&self) -> Result<Vm, Error> {
        let outcome = self.try_spawn().await;
        if outcome.is_err() && !self.directory.path().exists() {
            // Destroyed meanwhile: whoever did it may have looked before the cgroup was made.
            Cage::clear(&self.record.cell).await?;
        }
        outcome
    }

    async fn try_spawn(&self) -> Result<Vm, Error> {
        let directory = self.directory;
        let mut descriptors = vec![
            listen(&directory.qmp_socket(), QMP_FD)?,
            listen(&directory.agent_socket(), AGENT_FD)?,
            listen(&directory.media_socket(), MEDIA_FD)?,
            listen(&directory.console_socket(), CONSOLE_FD)?,
        ];
        if let Some(template) = self.template {
            descriptors.extend(inherited(template)?);
        }
        if let Some(raw) = self.becomes {
            let parent_fd = raw.descriptor();
            let parent_fd =
                parent_fd.map_err(Error::io("open", Path::new("a machine's memory")))?;
            descriptors.push(FdMapping { parent_fd, child_fd: MEMORY_FD });
        }
        let plug = self.networks.make(&self.invocation.shape.network).await?;
        let wire = plug.as_ref().map_or(Wire::Tap, |plug| plug.wire);
        let mut network = None;
        if let Some(plug) = plug {
            // From here on the network lives as long as QEMU.
            descriptors.push(FdMapping { parent_fd: plug.card, child_fd: NET_FD });
            network = Some(plug.record);
        }
        let console = connect(&directory.console_socket()).await?;
        let mut child = self.start(descriptors, wire)?;
        let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
        let said = Said { console: Tail::follow(console), stderr: Tail::follow(stderr) };
        let (identity, alive) = match identify(&child) {
            Ok(found) => found,
            Err(error) => {
                // It ended at once (bad arguments, no memory): let it say why.
                let _ = child.kill().await;
                tracing::debug!(%error, "qemu ended at once");
                return Err(Error::Ended { stage: "start", said: said.last().await });
            }
        };
        expose_to_oom(&identity);
        let record =
            Record { process: Some(identity), network: network.clone(), ..self.record.clone() };
        if let Err(error) = directory.write(&record) {
            let _ = child.kill().await;
            return Err(error);
        }
        reap(directory.name().to_owned(), child, said.clone());
        Ok(Vm { alive, said, directory: directory.clone(), network, released: false })
    }

    fn start(&self, descriptors: Vec<FdMapping>, wire: Wire) -> Result<Child, Error> {
        let (cage, cell) = (self.cage, &self.record.cell);
        cage.build(cell, self.bounds())?;
        let (mut invocation, bound) = cage.place(self.invocation);
        invocation.wire = wire;
        let mut command = Command::new(cage.program(self.qemu));
        command
            .arg0("qemu-system-x86_64")
            .args(invocation.arguments())
            // Nothing of the dispatcher's environment, where secrets are, belongs into QEMU.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Its own group: Ctrl-C at the dispatcher's terminal is not for the machines.
            .process_group(0)
            .kill_on_drop(false);
        // Before the descriptors: they are moved over numbers that the way in may use.
        let mishap = cage.enter(&mut command, cell, bound)?;
        command.fd_mappings(descriptors).expect("every descriptor has a number of its own");
        command.spawn().map_err(|error| mishap.explain(error))
    }

    fn bounds(&self) -> Bounds {
        let Invocation { shape, tb_size_mib, .. } = self.invocation;
        let memory_mib = shape.memory_mib + tb_size_mib + OWN_MEMORY_MIB;
        // Half a processor more than it has, for QEMU's own thread.
        let cpu_milli = u64::from(self.invocation.processors()) * 1000 + 500;
        Bounds { memory_bytes: u64::from(memory_mib) << 20, cpu_milli }
    }
}

/// A template's memory and state, for a clone.
fn inherited(template: &Template) -> Result<[FdMapping; 2], Error> {
    let of = |sealed: &crate::template::Sealed, child_fd| {
        let parent_fd = sealed.descriptor();
        let parent_fd = parent_fd.map_err(Error::io("open", Path::new("a template's memory")))?;
        Ok::<_, Error>(FdMapping { parent_fd, child_fd })
    };
    Ok([of(&template.state, STATE_FD)?, of(&template.memory, MEMORY_FD)?])
}

impl Vm {
    /// The machine is complete: its QEMU lives on without us.
    pub fn release(mut self) {
        self.released = true;
    }

    /// Waits for `work`, but no longer than QEMU lives and no longer than `limit`. `stage` says
    /// in an error what was waited for ("boot", "wake").
    ///
    /// # Errors
    /// What `work` fails with; [`Error::Ended`]; [`Error::Deadline`].
    pub async fn within<T>(
        &self,
        stage: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let outcome = tokio::select! {
            // What was achieved before QEMU ended was achieved.
            biased;
            outcome = tokio::time::timeout(limit, work) => outcome,
            () = self.alive.ended() => {
                return Err(Error::Ended { stage, said: self.said.last().await });
            }
        };
        match outcome {
            Ok(Ok(value)) => Ok(value),
            // A dying QEMU closes its sockets before it is gone: the end is the better answer.
            Ok(Err(error)) if may_be_the_end(&error) && self.ends_now().await => {
                tracing::debug!(error = %crate::error::chain(&error), "qemu hung up");
                Err(Error::Ended { stage, said: self.said.last().await })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Deadline { stage, after: limit, said: self.said.now() }),
        }
    }

    /// Waits until QEMU has ended by itself.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub async fn ended(&self, stage: &'static str, limit: Duration) -> Result<(), Error> {
        tokio::time::timeout(limit, self.alive.ended()).await.map_err(|_| Error::Deadline {
            stage,
            after: limit,
            said: self.said.now(),
        })
    }

    /// Kills QEMU and waits until it is gone, but leaves the directory for another try.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill(&self) -> Result<(), Error> {
        self.alive.kill().map_err(Error::io("kill the qemu of", self.directory.path()))?;
        self.ended("end when killed", Duration::from_secs(10)).await
    }

    /// Waits until the guest's console shows `needle`. Other than with [`Vm::within`], the guest
    /// may have ended right after it.
    ///
    /// # Errors
    /// [`Error::Ended`], [`Error::Deadline`].
    pub async fn console_shows(
        &self,
        stage: &'static str,
        limit: Duration,
        needle: &str,
    ) -> Result<(), Error> {
        match tokio::time::timeout(limit, self.said.console.shows(needle)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Ended { stage, said: self.said.last().await }),
            Err(_) => Err(Error::Deadline { stage, after: limit, said: self.said.now() }),
        }
    }

    /// The machine's directory.
    #[must_use]
    pub fn directory(&self) -> &RunDir {
        &self.directory
    }

    /// What the machine must be told of names, if it has a network.
    #[must_use]
    pub fn hosts(&self) -> Option<Hosts> {
        self.network.as_ref().map(NetRecord::told)
    }

    /// Whether QEMU ends in the next moment.
    async fn ends_now(&self) -> bool {
        tokio::time::timeout(Duration::from_millis(200), self.alive.ended()).await.is_ok()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !self.released
            && let Err(error) = self.alive.kill()
        {
            tracing::warn!(machine.name = self.directory.name(), %error, "qemu cannot be killed");
        }
    }
}

impl Said {
    /// Everything to the end, once QEMU has ended.
    async fn last(&self) -> String {
        let both = async {
            self.stderr.ended().await;
            self.console.ended().await;
        };
        // Both end with the process; the limit is for the case that one does not.
        let _ = tokio::time::timeout(Duration::from_secs(1), both).await;
        self.now()
    }

    fn now(&self) -> String {
        let or_nothing = |text: String| if text.is_empty() { "nothing".to_owned() } else { text };
        format!(
            "qemu said {}; the console shows {}",
            or_nothing(self.stderr.last(SAID)),
            or_nothing(self.console.last(SAID))
        )
    }
}

/// Errors that a dying QEMU causes; not the agent's own words.
fn may_be_the_end(error: &Error) -> bool {
    error.worth_a_retry() || matches!(error, Error::Io { .. })
}

/// Connects to a socket that we listen on ourselves or QEMU does.
pub async fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).await.map_err(Error::io("connect to", path))
}

fn listen(path: &PathBuf, child_fd: i32) -> Result<FdMapping, Error> {
    let bind = || {
        // A first try may have left its socket.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // QEMU accepts in its main loop and must not block there.
        listener.set_nonblocking(true)?;
        Ok(OwnedFd::from(listener))
    };
    let parent_fd = bind().map_err(Error::io("listen on", path))?;
    Ok(FdMapping { parent_fd, child_fd })
}

fn identify(child: &Child) -> io::Result<(Identity, Alive)> {
    let ended = || io::Error::from(io::ErrorKind::NotFound);
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(ended)?;
    let identity = Identity::of(pid)?.ok_or_else(ended)?;
    let alive = identity.open()?.ok_or_else(ended)?;
    Ok((identity, alive))
}

/// When the host runs out of memory all the same, one machine ends, not the dispatcher of all.
/// Best effort: where it fails, the machine runs as well.
fn expose_to_oom(identity: &Identity) {
    let path = format!("/proc/{}/oom_score_adj", identity.pid);
    if let Err(error) = fs::write(path, "500") {
        tracing::debug!(%error, "a machine's process is not first in line when memory ends");
    }
}

/// Collects the exit status, as long as we are the parent, and tells the log how it ended.
fn reap(name: String, mut child: Child, said: Said) {
    tokio::spawn(async move {
        let status = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let said = said.last().await;
        tracing::debug!(machine.name = name, status, said, "qemu ended");
    });
}
