//! Network namespaces without a name: when nobody holds one any more, the kernel removes it with
//! all that is in it, however we ended.

use std::{fs::File, os::fd::AsRawFd as _};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns, unshare};

use crate::steps::command;

/// A network namespace of our own.
pub struct Place {
    namespace: File,
}

impl Place {
    pub fn new() -> anyhow::Result<Place> {
        let make = || -> anyhow::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            ip("link set lo up")?;
            File::open("/proc/thread-self/ns/net").context("cannot open the new namespace")
        };
        Ok(Place { namespace: apart(make)? })
    }

    /// Does `work` in this place; what it starts and opens belongs to it.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        apart(|| {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("cannot enter a namespace")?;
            work()
        })
    }

    /// Runs `ip` in this place.
    pub fn ip(&self, arguments: &str) -> anyhow::Result<()> {
        self.run(|| ip(arguments))
    }

    /// For `ip … netns <path>`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd())
    }
}

/// A namespace belongs to a thread, so the work gets one of its own.
fn apart<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let status = command("ip", &arguments).status().context("cannot run ip")?;
    if !status.success() {
        bail!("ip {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
