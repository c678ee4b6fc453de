//! How machines of this host can be given a network.

use std::path::{Path, PathBuf};

use super::nft::Nft;
use super::tap;
use crate::qemu::version::look_up;

/// The best way there is.
#[derive(Clone, Debug)]
pub enum Way {
    /// A namespace each.
    Namespaces(Nft),
    /// A process of this program each.
    Passt(PathBuf),
    /// Not at all, and why.
    None(String),
}

/// What passt lets through that a namespace would not.
pub const NOT_BY_PASST: &str = "rootless network (passt): a machine with a network reaches private \
    ranges, the cloud's metadata and this host's addresses other than loopback; its connections \
    are not bounded; allow-lists are refused";

/// Looks for it.
#[must_use]
pub fn way() -> Way {
    if rustix::process::geteuid().is_root() {
        return as_root().unwrap_or_else(Way::None);
    }
    match look_up(Path::new("passt"), std::env::var_os("PATH").as_deref()) {
        Some(program) => Way::Passt(program),
        None => Way::None(
            "it takes root, or the program passt; hint: on Debian, `apt-get install passt`".into(),
        ),
    }
}

fn as_root() -> Result<Way, String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (number, name) in [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")] {
        if !has_capability(&status, number) {
            return Err(format!("root lacks {name} here; hint: a container must be given it"));
        }
    }
    if !Path::new(tap::DEVICE).exists() {
        return Err(format!("there is no {}; hint: modprobe tun", tap::DEVICE));
    }
    let hint = "there is no nft; hint: on Debian, `apt-get install nftables`";
    Nft::find().map(Way::Namespaces).ok_or_else(|| hint.to_owned())
}

/// Whether a process with this `/proc/<pid>/status` may use a capability.
fn has_capability(status: &str, number: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << number) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_kernels_hexadecimals() {
        let docker = "Name:\tx\nCapEff:\t00000000a80425fb\n";
        assert!(!has_capability(docker, 12) && !has_capability(docker, 21));
        assert!(has_capability("CapEff:\t000001ffffffffff\n", 21));
        assert!(!has_capability("", 12));
    }
}
