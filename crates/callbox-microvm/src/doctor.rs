//! What this host has and lacks, for people: the facts behind `callbox doctor`.
//!
//! Looks only: starts no guest, downloads nothing, creates no directory. The verdict on KVM is
//! the one on file.

mod network;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{AcceleratorChoice, HostConfig};
use crate::error::chain;
use crate::guest::Kernel;
use crate::guest::tsc::{self, Tsc};
use crate::layout::Layout;
use crate::probe;
use crate::qemu::Qemu;
use crate::qemu::version::look_up;

/// Free space below which image builds and templates will fail soon.
const ENOUGH_DISK: u64 = 5 << 30;

/// One fact about the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, a few lower-case words.
    pub name: &'static str,
    /// Whether machines can run as far as this is concerned.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it, where there is something to do.
    pub hint: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Check {
        Check { name, ok: true, detail: detail.into(), hint: None }
    }

    fn bad(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
        Check { name, ok: false, detail: detail.into(), hint: Some(hint.into()) }
    }

    fn with_hint(self, hint: &str) -> Check {
        Check { hint: Some(hint.to_owned()), ..self }
    }
}

/// Looks at everything that machines on this host need.
#[must_use]
pub fn checks(config: &HostConfig) -> Vec<Check> {
    let qemu = Qemu::find(&config.qemu);
    let version = qemu.as_ref().map(|qemu| qemu.version.clone()).unwrap_or_default();
    let mut checks = vec![
        processor(),
        match qemu {
            Ok(qemu) => Check::ok("qemu", format!("{} ({})", qemu.version, qemu.path.display())),
            Err(error) => {
                Check::bad("qemu", chain(&error), "on Debian: apt-get install qemu-system-x86")
            }
        },
        device(),
        kvm(config, &version),
        agent(&config.agent),
        kernel(config),
        tool("mkfs.erofs", "erofs-utils", "images cannot be built"),
        tool("mmdebstrap", "mmdebstrap", "images cannot be built from Debian packages"),
        data_dir(&config.data_dir),
        disk(&config.data_dir),
        memory(),
        rights(),
    ];
    checks.extend(network::checks(&config.network));
    checks
}

fn processor() -> Check {
    if cfg!(not(target_arch = "x86_64")) {
        let hint = "use an x86-64 host, or a provider other than local";
        return Check::bad("processor", std::env::consts::ARCH, hint);
    }
    match tsc::of_host() {
        Some(Tsc { khz, steady: true }) => {
            Check::ok("processor", format!("x86-64, time stamp counter {khz} kHz"))
        }
        Some(Tsc { khz, steady: false }) => {
            Check::ok("processor", format!("x86-64, time stamp counter {khz} kHz, not steady"))
                .with_hint("clocks of machines under software emulation may be late by seconds")
        }
        None => Check::ok("processor", "x86-64, frequency of the time stamp counter unknown")
            .with_hint("boots under software emulation may hang and be tried twice"),
    }
}

fn device() -> Check {
    match probe::device_opens() {
        Ok(()) => Check::ok("/dev/kvm", "opens for reading and writing"),
        Err(reason) => {
            let hint = if reason.contains("rights") {
                "add the user to the group `kvm` and log in again"
            } else {
                "enable virtualisation (VT-x, AMD-V), or nested virtualisation in a cloud"
            };
            Check { ok: true, ..Check::bad("/dev/kvm", reason, hint) }
        }
    }
}

/// Software emulation is slow but complete, so lacking KVM is only then bad when it is insisted on.
fn kvm(config: &HostConfig, qemu: &str) -> Check {
    let name = "kvm";
    if config.accelerator == AcceleratorChoice::Tcg {
        return Check::ok(name, "not wanted: the configuration asks for software emulation");
    }
    let slow = "machines run under software emulation: fit for development, 5 to 50 times slower";
    let must = config.accelerator == AcceleratorChoice::Kvm;
    let unusable = |reason: String| Check { ok: !must, ..Check::bad(name, reason, slow) };
    if let Err(reason) = probe::device_opens() {
        return unusable(reason);
    }
    let verdict = existing(&config.data_dir).and_then(|layout| probe::on_file(&layout, qemu));
    match verdict.map(|verdict| verdict.outcome()) {
        Some(Ok(())) => Check::ok(name, "a probe guest ran under it"),
        Some(Err(reason)) => unusable(reason),
        None => Check::ok(name, "not tried yet")
            .with_hint("the first start of the dispatcher on this host boots a probe guest"),
    }
}

/// The layout, if there is a data directory already.
fn existing(data_dir: &Path) -> Option<Layout> {
    data_dir.join("probe").is_dir().then(|| Layout::create(data_dir).ok())?
}

fn agent(path: &Path) -> Check {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            Check::ok("agent", format!("{} ({} KiB)", path.display(), metadata.len() >> 10))
        }
        _ => Check::bad(
            "agent",
            format!("there is no file {}", path.display()),
            "build it: cargo build -p callbox-agent --profile agent --target x86_64-unknown-linux-musl",
        ),
    }
}

fn kernel(config: &HostConfig) -> Check {
    let name = "guest kernel";
    if let Some(kernel) = Kernel::described(&config.data_dir) {
        return Check::ok(name, kernel)
            .with_hint("to take a newer one, remove kernel/current from the data directory");
    }
    if let Some(given) = &config.kernel {
        return if given.join("boot").is_dir() {
            Check::ok(name, format!("will be taken from {}", given.display()))
        } else {
            let detail = format!("{} has no directory boot", given.display());
            Check::bad(name, detail, "name a directory with boot/vmlinuz-* and lib/modules/*")
        };
    }
    let path = std::env::var_os("PATH");
    let found = |program: &str| look_up(Path::new(program), path.as_deref()).is_some();
    if found("apt-get") && found("dpkg-deb") {
        Check::ok(name, "will be downloaded with apt and unpacked, not installed")
    } else {
        Check::ok(name, "no apt here: the host's own kernel will be used")
    }
}

fn tool(program: &'static str, package: &str, without: &str) -> Check {
    match look_up(Path::new(program), std::env::var_os("PATH").as_deref()) {
        Some(path) => Check::ok(program, path.display().to_string()),
        None => Check::bad(
            program,
            format!("not installed: {without}"),
            format!("on Debian: apt-get install {package}"),
        ),
    }
}

fn data_dir(path: &Path) -> Check {
    let name = "data directory";
    // Nothing is created here, so its nearest existing parent answers for it.
    let Some(existing) = nearest(path) else {
        return Check::bad(name, format!("{} is nowhere", path.display()), "name another one");
    };
    if rustix::fs::access(&existing, rustix::fs::Access::WRITE_OK).is_err() {
        let detail = format!("{} cannot be written", existing.display());
        return Check::bad(name, detail, "run as its owner, or name another one");
    }
    match Layout::check_depth(path) {
        Ok(()) => Check::ok(name, format!("{}, short enough for sockets", path.display())),
        Err(error) => Check::bad(name, chain(&error), "choose a shorter path"),
    }
}

fn disk(path: &Path) -> Check {
    let name = "disk space";
    let Some(stat) = nearest(path).and_then(|path| rustix::fs::statvfs(&path).ok()) else {
        return Check::bad(name, "cannot be looked at", "name another data directory");
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let detail = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
    if free >= ENOUGH_DISK {
        Check::ok(name, detail)
    } else {
        Check::bad(
            name,
            detail,
            "an image takes about 1 GiB, a template as much as its bot's memory",
        )
    }
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or_default();
    let detail = format!("{} MiB available", available >> 10);
    if available >= 1 << 20 {
        Check::ok("memory", detail)
    } else {
        Check::bad("memory", detail, "a machine takes some 80 MiB beside what its bot needs")
    }
}

fn rights() -> Check {
    if rustix::process::geteuid().is_root() {
        Check::ok("rights", "root: each machine can be shut in by the kernel as well")
    } else {
        Check::ok("rights", "not root: enough to run machines, not to shut them in twice")
    }
}

fn nearest(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find(|path| path.exists()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_bad_and_comes_with_a_hint() {
        let base = tempfile::tempdir().expect("tempdir");
        let mut config = HostConfig::new(base.path().join("d".repeat(100)), "/no/agent");
        config.qemu = "no-such-qemu".into();
        config.accelerator = AcceleratorChoice::Tcg;
        let checks = checks(&config);
        for name in ["qemu", "agent", "data directory"] {
            let check = checks.iter().find(|check| check.name == name).expect(name);
            assert!(!check.ok && check.hint.is_some(), "{check:?}");
        }
        assert!(!config.data_dir.exists(), "looking creates nothing");
    }
}
