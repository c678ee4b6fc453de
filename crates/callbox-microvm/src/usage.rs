//! What a machine uses of this host.
//!
//! From the kernel's running counters (`/proc/<pid>/status`, `/proc/<pid>/stat`) and not from
//! `smaps_rollup`, for three reasons. They cost nothing: no walk over a gigabyte of page tables
//! beside a call. Everybody may read them, also of a process with another user id and no
//! capabilities. And `smaps` counts a template's pages as *private* to a clone as long as that
//! clone is the only one that has them mapped; a counter of anonymous pages does not: a page of
//! the template becomes anonymous when, and only when, the clone has written to it.

use std::fs;
use std::io;
use std::time::Duration;

use crate::error::Error;
use crate::host::Host;
use crate::layout::check_name;
use crate::run::RunDir;

/// What a machine uses, as measured at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that nobody else has: what it wrote to, its own structures, its translation cache;
    /// in RAM or swapped out. Free again when it ends.
    pub unique_bytes: u64,
    /// Memory in RAM that it maps from files and from its template.
    pub shared_bytes: u64,
    /// Time of processors since its process began.
    pub cpu: Duration,
}

impl Host {
    /// Bound of a machine's cache of translated code under software emulation, in MiB.
    #[must_use]
    pub fn translation_cache_mib(&self) -> u32 {
        self.config.tb_size_mib
    }

    /// What the machine uses now.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no such machine runs.
    pub fn usage(&self, name: &str) -> Result<Usage, Error> {
        check_name(name)?;
        let not_found = || Error::NotFound(name.to_owned());
        let directory = RunDir::at(&self.layout, name);
        let process = directory.record().and_then(|record| record.process).ok_or_else(not_found)?;
        let measured = of_process(process.pid);
        // Afterwards: then it was this process that was measured, and no later one of its number.
        if !process.runs().unwrap_or(false) {
            return Err(not_found());
        }
        measured.map_err(Error::io("measure the process of", directory.path()))
    }
}

fn of_process(pid: i32) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&status, &stat, rustix::param::clock_ticks_per_second())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no memory any more"))
}

fn parse(status: &str, stat: &str, ticks_per_second: u64) -> Option<Usage> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    // The name in field 2 may contain anything; fields 14 and 15 are the times.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = user.checked_add(system)?;
    Some(Usage {
        unique_bytes: bytes("RssAnon")? + bytes("VmSwap").unwrap_or(0),
        shared_bytes: bytes("RssFile")? + bytes("RssShmem")?,
        cpu: Duration::from_millis(ticks.saturating_mul(1000) / ticks_per_second.max(1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_behind_any_name() {
        let status = "Name:\tq) R 1\nVmRSS:\t  300 kB\nRssAnon:\t  100 kB\nRssFile:\t  150 kB\n\
                      RssShmem:\t  50 kB\nVmSwap:\t  7 kB\n";
        let stat = "7 (q) R 1) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 9 9 20 0 1 0 4242 9 9";
        let expected = Usage {
            unique_bytes: 107 * 1024,
            shared_bytes: 200 * 1024,
            cpu: Duration::from_secs(3),
        };
        assert_eq!(parse(status, stat, 100), Some(expected));
        assert_eq!(parse("Name:\tzombie\n", stat, 100), None, "the dead have no memory");
    }

    #[test]
    fn what_is_written_is_unique_and_what_is_only_read_is_not() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let before = of_process(pid).expect("we run");
        let written = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = of_process(pid).expect("we run");
        let grown = after.unique_bytes.saturating_sub(before.unique_bytes);
        assert!(grown > 48 << 20, "{grown} bytes more after writing {}", written.len());
        assert!(after.shared_bytes > 0, "our program's own pages");
    }
}
