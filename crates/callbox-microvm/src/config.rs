//! What the host is told, and what a machine looks like.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::net::{Allow, NetConfig};

/// How this host runs machines.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Where everything is kept. Short, because unix sockets live in it; on a real disk.
    pub data_dir: PathBuf,
    /// The agent's binary, statically linked for the guest.
    pub agent: PathBuf,
    /// `qemu-system-x86_64`, as a path or a name to look up in `PATH`.
    pub qemu: PathBuf,
    /// Which accelerator to use.
    pub accelerator: AcceleratorChoice,
    /// A directory with `boot/vmlinuz-*` and `lib/modules/*`; `None` finds one.
    pub kernel: Option<PathBuf>,
    /// Size of the translation cache of a machine under software emulation, in MiB. It is most
    /// of a clone's private memory; too small, and code is translated again and again.
    pub tb_size_mib: u32,
    /// From the start of QEMU to the agent's first answer, for one try of a cold boot.
    pub boot_timeout: Duration,
    /// From the start of QEMU to the agent's first answer, for one try of a clone.
    pub clone_timeout: Duration,
    /// How long a wake may take: reseeding of the kernel, the clock and the bot.
    pub wake_timeout: Duration,
    /// How long a machine that is awake lives without a connection from a dispatcher, before it
    /// ends itself. Longer than a restart of the dispatcher takes.
    pub orphan_after: Duration,
    /// How long the probe guest may take to prove that KVM works.
    pub probe_timeout: Duration,
    /// What to do about machines that cannot be caged.
    pub cage: CageChoice,
    /// How machines that have a network get it.
    pub network: NetConfig,
}

impl HostConfig {
    /// The defaults, for this data directory and this agent.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, agent: impl Into<PathBuf>) -> HostConfig {
        HostConfig {
            data_dir: data_dir.into(),
            agent: agent.into(),
            qemu: PathBuf::from("qemu-system-x86_64"),
            accelerator: AcceleratorChoice::Auto,
            kernel: None,
            tb_size_mib: 128,
            boot_timeout: Duration::from_secs(30),
            clone_timeout: Duration::from_secs(10),
            wake_timeout: Duration::from_secs(15),
            orphan_after: Duration::from_secs(120),
            probe_timeout: Duration::from_secs(6),
            cage: CageChoice::Auto,
            network: NetConfig::default(),
        }
    }
}

/// Which accelerator the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcceleratorChoice {
    /// KVM if a probe guest makes progress under it, else software emulation.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// What the configuration asks for around each machine's QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CageChoice {
    /// As much as this host allows; what is missing is said.
    #[default]
    Auto,
    /// All of it, or no machine.
    Required,
    /// Nothing.
    Off,
}

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's software emulation: 5 to 50 times slower.
    Tcg,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        })
    }
}

/// What a machine has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineShape {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors. Under software emulation a machine always has one: more hang more
    /// often at boot and gain little.
    pub vcpus: u8,
    /// Bound of the writable layer over the image, in MiB. It lives in the machine's memory.
    pub disk_mib: u32,
    /// What the machine reaches.
    pub network: Network,
}

impl MachineShape {
    /// Whether such a machine can be.
    ///
    /// # Errors
    /// [`Error::Shape`] with what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        if !(128..=65_536).contains(&self.memory_mib) {
            return Err(Error::Shape(format!("{} MiB of memory (128 to 65536)", self.memory_mib)));
        }
        if !(1..=64).contains(&self.vcpus) {
            return Err(Error::Shape(format!("{} processors (1 to 64)", self.vcpus)));
        }
        if self.disk_mib == 0 || self.disk_mib >= self.memory_mib {
            return Err(Error::Shape(format!(
                "a writable layer of {} MiB in {} MiB of memory",
                self.disk_mib, self.memory_mib
            )));
        }
        Ok(())
    }
}

/// What a machine reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Nothing: the machine has no network card. Its bot is reached through the agent.
    #[default]
    None,
    /// The internet, and never this host, its neighbours or other machines (see [`crate::net`]).
    Internet {
        /// What of it; empty is all of it.
        allow: Vec<Allow>,
    },
}

impl Network {
    /// Whether the machine has a network card. That is all that its template knows of it: what is
    /// reached through it is decided outside.
    #[must_use]
    pub fn has_card(&self) -> bool {
        matches!(self, Network::Internet { .. })
    }
}

/// Told about what takes long.
pub trait Progress: Send + Sync {
    /// A stage begins.
    fn stage(&self, name: &str);
}

/// For callers that do not watch.
impl Progress for () {
    fn stage(&self, _name: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_shapes_are_refused_in_words() {
        let good = MachineShape { memory_mib: 512, vcpus: 1, disk_mib: 64, network: Network::None };
        good.check().expect("possible");
        for bad in [
            MachineShape { memory_mib: 16, ..good.clone() },
            MachineShape { vcpus: 0, ..good.clone() },
            MachineShape { disk_mib: 512, ..good },
        ] {
            assert!(matches!(bad.check(), Err(Error::Shape(_))), "{bad:?}");
        }
    }
}
