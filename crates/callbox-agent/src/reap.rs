//! Children and orphans. PID 1 inherits every process whose parent ended, so it waits for
//! *any* child, and nobody may wait for one by itself: the status would be gone.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "it exited with code {code}"),
            (_, Some(signal)) => write!(f, "signal {signal} ended it"),
            _ => write!(f, "it ended"),
        }
    }
}

/// Tells when a process has ended.
pub(crate) type ExitWatch = watch::Receiver<Option<Exit>>;

/// Starts processes and collects them, and all orphans with them.
pub(crate) struct Reaper {
    waiting: Mutex<HashMap<Pid, watch::Sender<Option<Exit>>>>,
}

impl Reaper {
    /// Starts collecting. Must be called inside the runtime.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let mut ended = signal(SignalKind::child())?;
        let reaper = Arc::new(Self { waiting: Mutex::default() });
        let collecting = Arc::clone(&reaper);
        tokio::spawn(async move {
            while ended.recv().await.is_some() {
                collecting.collect();
            }
        });
        Ok(reaper)
    }

    /// Starts a process. Never call `wait` on the child.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Pid, ExitWatch)> {
        // Held while spawning: where the program cannot be executed, the standard library
        // waits for its child, and panics if somebody else did.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (sender, exit) = watch::channel(None);
        waiting.insert(pid, sender);
        Ok((child, pid, exit))
    }

    fn collect(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(sender) = waiting.remove(&pid) {
                sender.send_replace(Some(exit(status)));
            }
        }
    }
}

fn exit(status: WaitStatus) -> Exit {
    Exit { code: status.exit_status(), signal: status.terminating_signal() }
}
