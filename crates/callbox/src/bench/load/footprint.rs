//! What a process takes of its host, from `/proc`.

use std::io;
use std::time::Duration;

use serde::Serialize;

/// One look at a process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Footprint {
    /// Memory that is in RAM, pages that it shares with others included.
    pub rss_bytes: u64,
    /// The same, what is shared divided among those that share it.
    pub pss_bytes: u64,
    pub open_files: usize,
    pub threads: u64,
    /// Processor time since it began.
    #[serde(skip)]
    pub cpu: Duration,
}

/// Looks at this process.
pub fn of(pid: u32) -> io::Result<Footprint> {
    let read = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}"));
    let status = read("status")?;
    let missing = || io::Error::other("what /proc says is not understood");
    Ok(Footprint {
        rss_bytes: field(&status, "VmRSS:").ok_or_else(missing)? * 1024,
        pss_bytes: field(&read("smaps_rollup")?, "Pss:").ok_or_else(missing)? * 1024,
        open_files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        threads: field(&status, "Threads:").ok_or_else(missing)?,
        cpu: cpu(&read("stat")?).ok_or_else(missing)?,
    })
}

/// Processor time of this process since it began.
pub fn own_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    cpu(&stat).unwrap_or_default()
}

/// Memory of this process that is in RAM, in bytes.
pub fn own_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "VmRSS:").unwrap_or_default() * 1024
}

/// Processes that wanted to run, on average over the last minute.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time, fields 14 and 15; the name before them may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let a_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis(ticks * 1000 / a_second.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_process_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 250 150 0 0 20 0 1 0 5 6 7";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu(stat), Some(Duration::from_millis(400 * 1000 / ticks)));
        assert_eq!(field("VmHWM:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(field("x", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_a_footprint() {
        let ours = of(std::process::id()).expect("/proc is there");
        assert!(ours.rss_bytes > 0 && ours.pss_bytes > 0 && ours.pss_bytes <= ours.rss_bytes * 2);
        assert!(ours.open_files > 2 && ours.threads > 0);
    }
}
