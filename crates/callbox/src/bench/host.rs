//! The machine that a benchmark ran on. Numbers without it mean nothing.

use std::fs;

use serde::Serialize;

/// Where the benchmark (and, on loopback, the dispatcher) ran.
#[derive(Debug, Serialize)]
pub struct Host {
    pub cpu: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
}

impl Host {
    /// From `/proc`; what is not there is `unknown` or 0.
    pub fn describe() -> Host {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let unknown = || "unknown".to_owned();
        let cpu = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown);
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        Host {
            cpu,
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get()),
            memory_mib: memory.as_deref().and_then(kibibytes).unwrap_or(0) / 1024,
            kernel: if kernel.is_empty() { unknown() } else { kernel },
        }
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

fn kibibytes(value: &str) -> Option<u64> {
    value.strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: A: B\nMemTotal:       2048 kB\n";
        assert_eq!(field(text, "model name").unwrap(), "A: B");
        assert_eq!(kibibytes(&field(text, "MemTotal").unwrap()), Some(2048));
        assert_eq!(field(text, "nothing"), None);
    }
}
