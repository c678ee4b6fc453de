//! A process that may outlive us, and may have been replaced by another one with its number.
//!
//! A pid alone is no name: the kernel uses it again. With the time the process started, and the
//! boot of the host in which it did, it is one. Every signal goes through a pidfd that was opened
//! *before* the identity was checked, so that nothing can change in between.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::pidfd::Alive;

/// How long a killed QEMU may take to end. It has nothing to save; only the kernel's work on its
/// memory takes time.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// What names one process for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Clock ticks from the host's boot to the start of the process.
    pub started: u64,
    /// The kernel's random id of this boot.
    pub boot_id: String,
}

impl Identity {
    /// The identity of the process that has this pid now; `None` if none does.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Option<Identity>> {
        let Some(started) = started(pid)? else { return Ok(None) };
        Ok(Some(Identity { pid, started, boot_id: boot_id()? }))
    }

    /// Opens the process if it still runs. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no pidfds or `/proc` cannot be read.
    pub fn open(&self) -> io::Result<Option<Alive>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let Some(alive) = Alive::open(pid)? else { return Ok(None) };
        Ok((Identity::of(self.pid)?.as_ref() == Some(self)).then_some(alive))
    }

    /// Kills the process and waits until it is gone; one that has ended already is fine.
    ///
    /// # Errors
    /// When it belongs to another user or does not end.
    pub async fn end(&self) -> io::Result<()> {
        let Some(alive) = self.open()? else { return Ok(()) };
        alive.kill()?;
        tokio::time::timeout(KILL_TIMEOUT, alive.ended()).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("pid {} does not end", self.pid))
        })
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn runs(&self) -> io::Result<bool> {
        Ok(Identity::of(self.pid)?.as_ref() == Some(self))
    }
}

/// Finds processes by an exact argument of theirs. Slow (reads all of `/proc`): for the case
/// that a crash left no pid.
pub fn with_argument(argument: &str) -> Vec<Identity> {
    with_arguments(|found| found == argument.as_bytes())
}

/// As [`with_argument`], but for arguments that begin so.
pub fn with_argument_like(beginning: &str) -> Vec<Identity> {
    with_arguments(|found| found.starts_with(beginning.as_bytes()))
}

fn with_arguments(wanted: impl Fn(&[u8]) -> bool) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(&wanted))
        })
        .filter_map(|pid| Identity::of(pid).ok().flatten())
        .collect()
}

/// Field 22 of `/proc/<pid>/stat`; `None` for processes that are gone or zombies.
fn started(pid: i32) -> io::Result<Option<u64>> {
    let text = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // The process ended between open and read.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(parse_started(&text))
}

/// The name in field 2 may contain anything, so counting starts after its closing parenthesis.
fn parse_started(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = |state| {
            format!("7 (a) b (c) {state} 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 9 9")
        };
        assert_eq!(parse_started(&stat("S")), Some(4242));
        assert_eq!(parse_started(&stat("Z")), None, "a zombie does not run");
        assert_eq!(parse_started("7 (short) S 1"), None);
    }

    #[tokio::test]
    async fn a_process_is_killed_once_and_a_reused_pid_is_left_alone() {
        let mut child = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep is everywhere");
        let pid = i32::try_from(child.id()).expect("small");
        let identity = Identity::of(pid).expect("proc").expect("runs");
        assert!(identity.runs().expect("proc"));

        let impostor = Identity { started: identity.started + 1, ..identity.clone() };
        assert!(impostor.open().expect("proc").is_none(), "another start time: not ours");
        let earlier_boot = Identity { boot_id: "x".into(), ..identity.clone() };
        assert!(earlier_boot.open().expect("proc").is_none(), "another boot: not ours");
        assert!(identity.runs().expect("proc"), "looking at it did not hurt it");

        let alive = identity.open().expect("proc").expect("runs");
        alive.kill().expect("ours");
        alive.ended().await;
        assert!(!identity.runs().expect("proc"), "a zombie counts as ended");
        child.wait().expect("reaped");
        assert!(identity.open().expect("proc").is_none());
        alive.kill().expect("killing the dead is fine");
    }

    #[test]
    fn processes_are_found_by_argument() {
        let argument = format!("600.{}", std::process::id());
        let mut child = Command::new("sleep").arg(&argument).spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("small");
        // The arguments show up a moment after `spawn` has returned.
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut found = Vec::new();
        while found.is_empty() && Instant::now() < deadline {
            found = with_argument(&argument);
        }
        child.kill().expect("ours");
        child.wait().expect("reaped");
        assert_eq!(found.iter().map(|found| found.pid).collect::<Vec<_>>(), [pid]);
    }
}
