//! Waiting for any process, not only for children, by its pidfd.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that was alive when this was made, held so that its number cannot be used again
/// unnoticed.
pub struct Alive {
    pidfd: AsyncFd<OwnedFd>,
}

impl Alive {
    /// Opens the process that has this pid now; `None` if none does. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no pidfds.
    pub fn open(pid: Pid) -> io::Result<Option<Alive>> {
        match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => Ok(Some(Alive { pidfd: watched(pidfd)? })),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends SIGKILL; a process that has ended meanwhile is fine.
    ///
    /// # Errors
    /// When the process belongs to another user.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the process has ended (reaped or not).
    pub async fn ended(&self) {
        // The only error is a runtime that shuts down; then nobody waits any more.
        let _ = self.pidfd.readable().await;
    }
}

/// tokio asks for a promise here that it cannot check: that the descriptor stays open, and the
/// same, while it is registered.
#[allow(unsafe_code)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and always the same number. It is moved
    // into the `AsyncFd`, which deregisters before it drops it; `Alive` lends it out by shared
    // reference only, never replaces it and never takes it out again.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}
