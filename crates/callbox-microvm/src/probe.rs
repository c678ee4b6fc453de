//! Does KVM really work here?
//!
//! `/dev/kvm` can open, and machines can be created, and still no guest makes progress: inside
//! some clouds all time is spent in the host's kernel. Only a guest can tell. So a tiny one is
//! booted, and KVM works if the guest comes as far as its first program, the agent, in a few
//! seconds.
//!
//! ```text
//! verdict on file for this host kernel + QEMU + processor ──yes──► that
//!        │ no
//! /dev/kvm opens for reading and writing ──no──► unusable: why
//!        │ yes
//! probe guest with `-cpu host` ──the agent says so────► usable
//!        │ QEMU ends (it may refuse a register)
//! probe guest with `-cpu host,-arch-capabilities` ──► usable, or unusable: why
//! ```
//!
//! A verdict is kept until kernel, QEMU or processor change; a bad one for a day at most, as a
//! host that was very busy looks the same. That the device cannot be opened is not kept at all:
//! rights are mended without a reboot.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cage::TRIAL_PREFIX;
use crate::config::{Accelerator, MachineShape, Network};
use crate::error::{Error, chain};
use crate::host::{Host, Processor};
use crate::layout::Layout;
use crate::qemu::Memory;
use crate::run::vm::Launch;
use crate::run::{Kind, Record, RunDir};

/// The device.
const KVM: &str = "/dev/kvm";
/// What the agent prints when it was started with `callbox.probe`.
const PROOF: &str = "callbox-probe-ok";
/// Prefix of run directories of probes; the process follows. No machine's name can begin so.
const RUN_PREFIX: &str = ".probe-";
/// After this, a bad verdict is looked at again.
const BAD_VERDICT_LASTS: Duration = Duration::from_secs(24 * 60 * 60);
/// Names of the processor to try. Some hosts refuse to write the register behind
/// `arch-capabilities`, and QEMU aborts.
const CPUS: &[&str] = &["host", "host,-arch-capabilities"];

/// What was found out, on file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    host_kernel: String,
    qemu: String,
    host_cpu: String,
    /// The name of the processor with which it works.
    cpu: Option<String>,
    /// Why it does not work.
    reason: String,
    /// When it was found out, seconds since the epoch.
    found_at: u64,
}

/// The processor to use with KVM, or why there is none (the inner result).
pub(crate) async fn kvm(host: &Host) -> Result<Result<Processor, String>, Error> {
    if let Err(reason) = device_opens() {
        return Ok(Err(reason));
    }
    let verdict = match on_file(&host.layout, &host.qemu.version) {
        Some(verdict) => verdict,
        None => {
            let verdict = find_out(host).await?;
            keep(&host.layout, &verdict)?;
            verdict
        }
    };
    let Verdict { cpu, reason, .. } = verdict;
    Ok(cpu.map(|cpu| Processor { accelerator: Accelerator::Kvm, cpu }).ok_or(reason))
}

/// Whether this process may use the device; else why not, for people.
pub(crate) fn device_opens() -> Result<(), String> {
    match OpenOptions::new().read(true).write(true).open(KVM) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no {KVM}"),
            std::io::ErrorKind::PermissionDenied => format!("no rights on {KVM}"),
            _ => format!("{KVM} does not open: {error}"),
        }),
    }
}

/// The kept verdict, if it is about this host as it is now.
pub(crate) fn on_file(layout: &Layout, qemu: &str) -> Option<Verdict> {
    let text = fs::read(layout.probe().join("kvm.json")).ok()?;
    let verdict: Verdict = serde_json::from_slice(&text).ok()?;
    let fresh = Verdict::about(qemu);
    let same = verdict.host_kernel == fresh.host_kernel
        && verdict.qemu == fresh.qemu
        && verdict.host_cpu == fresh.host_cpu;
    let lasts = verdict.cpu.is_some()
        || fresh.found_at.saturating_sub(verdict.found_at) < BAD_VERDICT_LASTS.as_secs();
    (same && lasts).then_some(verdict)
}

impl Verdict {
    /// An open question about this host.
    fn about(qemu: &str) -> Verdict {
        let kernel = rustix::system::uname();
        Verdict {
            host_kernel: kernel.release().to_string_lossy().into_owned(),
            qemu: qemu.to_owned(),
            host_cpu: host_cpu(),
            cpu: None,
            reason: String::new(),
            found_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        }
    }

    /// `Ok` if KVM works, else the reason.
    pub(crate) fn outcome(&self) -> Result<(), String> {
        if self.cpu.is_some() { Ok(()) } else { Err(self.reason.clone()) }
    }
}

/// A digest of the processor's model and features, as a guest under KVM would see them.
pub(crate) fn host_cpu() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let telling: Vec<&str> = first
        .lines()
        .filter(|line| {
            ["vendor_id", "cpu family", "model", "stepping", "flags"]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .collect();
    hex::encode(&Sha256::digest(telling.join("\n"))[..16])
}

fn keep(layout: &Layout, verdict: &Verdict) -> Result<(), Error> {
    let path = layout.probe().join("kvm.json");
    let new = layout.probe().join(format!("kvm.json.{}", std::process::id()));
    let text = serde_json::to_vec_pretty(verdict).expect("plain strings are always json");
    fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).map_err(Error::io("write", &path))
}

async fn find_out(host: &Host) -> Result<Verdict, Error> {
    let mut verdict = Verdict::about(&host.qemu.version);
    for cpu in CPUS {
        tracing::info!(cpu, "trying out kvm with a probe guest");
        let processor = Processor { accelerator: Accelerator::Kvm, cpu: (*cpu).to_owned() };
        match probe(host, &processor).await {
            Ok(()) => {
                verdict.cpu = Some(processor.cpu);
                return Ok(verdict);
            }
            Err(error @ Error::Ended { .. }) => verdict.reason = chain(&error),
            Err(error @ Error::Deadline { .. }) => {
                // It started and stood still: another name for the processor changes nothing.
                verdict.reason = chain(&error);
                return Ok(verdict);
            }
            // All else says nothing about KVM and must not be kept.
            Err(error) => return Err(error),
        }
    }
    Ok(verdict)
}

/// Boots a guest that has nothing but a kernel and the initramfs.
async fn probe(host: &Host, processor: &Processor) -> Result<(), Error> {
    // Several processes may probe at once; each has a directory of its own.
    let name = format!("{RUN_PREFIX}{}", std::process::id());
    RunDir::destroy(&host.layout, &name).await?;
    let record = Record::new(Kind::Probe, Accelerator::Kvm, None, host.cage.assign()?);
    let directory = RunDir::create(&host.layout, &name, &record)?;
    let outcome = async {
        let shape =
            MachineShape { memory_mib: 256, vcpus: 1, disk_mib: 16, network: Network::None };
        let path = directory.path();
        let mut invocation = host.invocation_on(processor, path, &shape, Memory::Fresh, None);
        // The kernel's own lines tell how far it came, if it did not come far enough.
        invocation.append = format!("{} callbox.probe", invocation.append)
            .replace(" quiet ", " loglevel=7 ignore_loglevel ");
        let launch = Launch {
            qemu: &host.qemu,
            cage: &host.cage,
            networks: &host.networks,
            directory: &directory,
            invocation: &invocation,
            template: None,
            becomes: None,
            record: &record,
        };
        let vm = launch.spawn().await?;
        let stage = "start its first program under kvm";
        vm.console_shows(stage, host.config.probe_timeout, PROOF).await
    };
    let outcome = outcome.await;
    RunDir::destroy(&host.layout, &name).await?;
    outcome
}

/// Removes what probes, and trials of the cage, of dead processes left behind.
pub(crate) async fn clear_dead(layout: &Layout) -> Result<(), Error> {
    for directory in RunDir::all(layout)? {
        let mut prefixes = [RUN_PREFIX, TRIAL_PREFIX].into_iter();
        let rest = prefixes.find_map(|prefix| directory.name().strip_prefix(prefix));
        let Some(process) = rest.and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(process).exists() {
            RunDir::destroy(layout, directory.name()).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cage::Cell;

    #[tokio::test]
    async fn probes_of_dead_processes_are_cleared_and_others_left() {
        let data = tempfile::tempdir().expect("tempdir");
        let layout = Layout::create(data.path()).expect("layout");
        let record = Record::new(Kind::Probe, Accelerator::Kvm, None, Cell::default());
        let living = format!("{RUN_PREFIX}{}", std::process::id());
        let trying = format!("{TRIAL_PREFIX}{}-0", std::process::id());
        // Larger than any pid.
        for name in [living.as_str(), &trying, ".probe-99999999", ".cage-99999999-0"] {
            RunDir::create(&layout, name, &record).expect("free");
        }
        clear_dead(&layout).await.expect("cleared");
        let left = RunDir::all(&layout).expect("listed");
        let mut left: Vec<_> = left.iter().map(RunDir::name).collect();
        left.sort_unstable();
        assert_eq!(left, [trying, living]);
    }

    #[test]
    fn a_verdict_is_about_one_kernel_and_one_qemu() {
        let data = tempfile::tempdir().expect("tempdir");
        let layout = Layout::create(data.path()).expect("layout");
        assert_eq!(on_file(&layout, "7.2"), None);
        let verdict = Verdict { reason: "stands still".into(), ..Verdict::about("7.2") };
        keep(&layout, &verdict).expect("kept");
        assert_eq!(on_file(&layout, "7.2"), Some(verdict.clone()));
        assert_eq!(verdict.outcome(), Err("stands still".to_owned()));
        assert_eq!(on_file(&layout, "8.0"), None, "another qemu must be tried again");
        let old = Verdict { found_at: verdict.found_at - 2 * 24 * 60 * 60, ..verdict.clone() };
        keep(&layout, &old).expect("kept");
        assert_eq!(on_file(&layout, "7.2"), None, "a bad verdict must be looked at again");
        let good = Verdict { cpu: Some("host".into()), ..old };
        keep(&layout, &good).expect("kept");
        assert_eq!(on_file(&layout, "7.2"), Some(good), "a good one lasts");
        let elsewhere = Verdict { host_kernel: "another".into(), ..verdict };
        keep(&layout, &elsewhere).expect("kept");
        assert_eq!(on_file(&layout, "7.2"), None, "another kernel must be tried again");
    }
}
