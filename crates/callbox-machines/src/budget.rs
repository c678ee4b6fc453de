//! What this host has for machines, and what each costs: strictly, at its worst.
//!
//! A clone begins with almost no memory of its own, but may write to all of it; a machine that is
//! admitted on what it uses *now* is one that is killed, or makes its host swap, when its
//! neighbours grow. So each counts in full, and a host is full before it is in need. Who knows
//! their bots better raises `memory_overcommit`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Admission;

/// What the operator says about the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetConfig {
    /// Memory for machines in MiB; 0 for what the host has, without [`Self::reserve_mib`].
    pub memory_mib: u64,
    /// Memory that is left to the host and to ourselves, in MiB, where `memory_mib` is 0.
    pub reserve_mib: u64,
    /// Promised memory may be so many times what there is.
    pub memory_overcommit: f64,
    /// Promised processors may be so many times those there are.
    pub cpu_overcommit: f64,
    /// Machines that may start at once; 0 for as many as there are processors.
    pub max_starting: usize,
}

impl Default for BudgetConfig {
    /// No bound but what the host has.
    fn default() -> BudgetConfig {
        BudgetConfig {
            memory_mib: 0,
            reserve_mib: 0,
            memory_overcommit: 1.0,
            cpu_overcommit: f64::INFINITY,
            max_starting: 0,
        }
    }
}

/// What one machine takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Memory at its worst, in MiB.
    pub memory_mib: u64,
    /// Processors.
    pub cpus: u64,
}

impl Cost {
    /// What so many of them take.
    pub fn times(self, count: usize) -> Cost {
        let count = count as u64;
        Cost { memory_mib: self.memory_mib * count, cpus: self.cpus * count }
    }
}

/// What there is for all machines together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Memory that may be promised, in MiB.
    pub memory_mib: u64,
    /// Processors that may be promised.
    pub cpus: f64,
    /// Machines that may start at once.
    pub max_starting: usize,
}

impl Budget {
    /// Of this host, as our own control group lets us use it.
    pub fn of_host(config: &BudgetConfig) -> Budget {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let memory_mib = match config.memory_mib {
            0 => host_memory_mib().saturating_sub(config.reserve_mib),
            given => given,
        };
        Budget::new(config, memory_mib, cores)
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // far below 2^52
    #[allow(clippy::cast_sign_loss)] // factors are positive
    fn new(config: &BudgetConfig, memory_mib: u64, cores: usize) -> Budget {
        Budget {
            memory_mib: (memory_mib as f64 * config.memory_overcommit) as u64,
            cpus: cores as f64 * config.cpu_overcommit,
            max_starting: if config.max_starting == 0 { cores } else { config.max_starting },
        }
    }

    /// Whether `next` fits beside what is `held`.
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    pub fn admit(&self, held: impl IntoIterator<Item = Cost>, next: Cost) -> Admission {
        let mut taken = Cost::default();
        for cost in held {
            taken.memory_mib += cost.memory_mib;
            taken.cpus += cost.cpus;
        }
        let Budget { memory_mib, cpus, .. } = *self;
        let memory_detail = |taken| {
            format!("it needs {} MiB of memory, and {taken} of {memory_mib} MiB", next.memory_mib)
        };
        let cpu_detail =
            |taken| format!("it needs {} processors, and {taken} of {cpus}", next.cpus);
        if next.memory_mib > memory_mib {
            return Admission::Never { detail: format!("{} are taken", memory_detail(0)) };
        }
        if next.cpus as f64 > cpus {
            return Admission::Never { detail: format!("{} are taken", cpu_detail(0)) };
        }
        if taken.memory_mib + next.memory_mib > memory_mib {
            return Admission::Full {
                detail: format!("{} are promised", memory_detail(taken.memory_mib)),
            };
        }
        if (taken.cpus + next.cpus) as f64 > cpus {
            return Admission::Full { detail: format!("{} are promised", cpu_detail(taken.cpus)) };
        }
        Admission::Granted
    }
}

/// The host's memory, or what the control groups that we are in leave of it.
fn host_memory_mib() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let total = read(Path::new("/proc/meminfo")).and_then(|text| meminfo_total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups, Path::new("/sys/fs/cgroup"));
    // "max" (v2) is no number; v1 writes a number beyond all memory.
    let limits = limits.iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok());
    limits.chain(total).min().unwrap_or(0) / (1 << 20)
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The files with a limit of memory for us: of our own group and of all above it.
fn limit_files(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(group.ancestors().map(|above| base.join(above).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: Cost = Cost { memory_mib: 1024, cpus: 1 };

    fn budget(memory_mib: u64, cores: usize, cpu_overcommit: f64) -> Budget {
        Budget::new(&BudgetConfig { cpu_overcommit, ..BudgetConfig::default() }, memory_mib, cores)
    }

    #[test]
    fn memory_is_strict_and_processors_are_counted() {
        let memory = budget(4096, 2, 100.0);
        assert_eq!(memory.admit([GIB; 3], GIB), Admission::Granted);
        let Admission::Full { detail } = memory.admit([GIB; 4], GIB) else { panic!("it is full") };
        assert!(detail.contains("4096 of 4096 MiB are promised"), "{detail}");
        let cpus = budget(1 << 20, 2, 4.0);
        assert_eq!(cpus.admit([GIB; 7], GIB), Admission::Granted);
        assert!(matches!(cpus.admit([GIB; 8], GIB), Admission::Full { .. }));
        assert_eq!((cpus.max_starting, cpus.cpus), (2, 8.0));
    }

    #[test]
    fn what_can_never_fit_is_told_apart() {
        let budget = budget(1000, 1, 1.0);
        assert!(matches!(budget.admit([], GIB), Admission::Never { .. }));
        let wide = Cost { memory_mib: 1, cpus: 2 };
        assert!(matches!(budget.admit([], wide), Admission::Never { .. }));
    }

    #[test]
    fn overcommit_stretches_what_there_is() {
        let config = BudgetConfig { memory_overcommit: 1.5, ..BudgetConfig::default() };
        assert_eq!(Budget::new(&config, 2000, 4).memory_mib, 3000);
    }

    #[test]
    fn limits_of_all_groups_above_us_are_found() {
        let root = Path::new("/g");
        assert_eq!(
            limit_files("0::/a/b\n", root),
            ["/g/a/b/memory.max", "/g/a/memory.max", "/g/memory.max"].map(PathBuf::from)
        );
        let v1 = limit_files("5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n", root);
        let expected = [
            "/g/memory/x/memory.limit_in_bytes",
            "/g/memory/memory.limit_in_bytes",
            "/g/memory.max",
        ];
        assert_eq!(v1, expected.map(PathBuf::from));
    }

    #[test]
    fn this_host_has_memory() {
        assert!(host_memory_mib() > 64);
    }
}
