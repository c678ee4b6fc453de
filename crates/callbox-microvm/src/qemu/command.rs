//! The command line of a machine.
//!
//! The machine is as small as a bot allows: one disk, one serial port for the agent, a console,
//! and a network card only where the shape asks for one. Everything that QEMU would listen on is
//! a socket that *we* made and pass down as a file descriptor: it accepts connections before
//! QEMU has even started, so nobody ever waits for a socket to appear.
//!
//! The same value also yields the [`Invocation::fingerprint`] of a template: all that must be
//! equal between the machine that was frozen and its clones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Accelerator, MachineShape};
use crate::guest::tsc::Tsc;
use crate::net::{Wire, inner};

/// Descriptors under which QEMU finds what we pass down.
pub const QMP_FD: i32 = 3;
/// See [`QMP_FD`].
pub const AGENT_FD: i32 = 4;
/// See [`QMP_FD`].
pub const CONSOLE_FD: i32 = 5;
/// See [`QMP_FD`]; only for clones: the state of the devices.
pub const STATE_FD: i32 = 6;
/// See [`QMP_FD`]; for clones the template's memory, sealed against writing; for a template in the
/// making the memory that it writes.
pub const MEMORY_FD: i32 = 7;
/// See [`QMP_FD`].
pub const MEDIA_FD: i32 = 8;
/// See [`QMP_FD`]; only for machines with a network card.
pub const NET_FD: i32 = 9;

/// What is behind the guest's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Fresh pages.
    Fresh,
    /// What takes every write, behind [`MEMORY_FD`]: the memory of a template in the making.
    Shared,
    /// A template's memory behind [`MEMORY_FD`], copied page by page when written. The state of
    /// the devices comes in through [`STATE_FD`].
    CopyOnWrite,
}

/// All that decides about a command line.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The machine's run directory; it marks the process (see [`Invocation::mark`]).
    pub run_dir: PathBuf,
    /// What runs the instructions.
    pub accelerator: Accelerator,
    /// QEMU's name of the processor.
    pub cpu: String,
    /// Size of the translation cache under software emulation, in MiB.
    pub tb_size_mib: u32,
    /// Memory, processors, network.
    pub shape: MachineShape,
    /// What is behind the memory.
    pub memory: Memory,
    /// bzImage.
    pub kernel: PathBuf,
    /// Archive with the agent.
    pub initramfs: PathBuf,
    /// Kernel command line, from [`kernel_command_line`].
    pub append: String,
    /// Root file system; the probe guest has none.
    pub rootfs: Option<PathBuf>,
    /// What is behind [`NET_FD`], for a machine with a network card.
    pub wire: Wire,
}

impl Invocation {
    /// The argument that marks the process as the one of `run_dir`, so that it can be found even
    /// if we died before its pid was written down.
    #[must_use]
    pub fn mark(run_dir: &Path) -> String {
        format!("guest={}", escaped(run_dir))
    }

    /// The arguments, without the program.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut line = Line::default();
        line.add("-name", Invocation::mark(&self.run_dir));
        line.add("-sandbox", SANDBOX);
        line.add("-M", "microvm,acpi=on,memory-backend=mem,dump-guest-core=off");
        line.add("-accel", self.accel());
        line.add("-cpu", self.cpu.clone());
        line.add("-smp", self.processors().to_string());
        line.add("-m", format!("{}M", self.shape.memory_mib));
        line.add("-object", self.memory_backend());
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            line.0.push(flag.to_owned());
        }
        line.add("-display", "none");
        line.add("-chardev", socket("qmp", QMP_FD));
        line.add("-mon", "chardev=qmp,mode=control");
        line.add("-chardev", socket("console", CONSOLE_FD));
        line.add("-serial", "chardev:console");
        line.add("-chardev", socket("agent", AGENT_FD));
        line.add("-device", "virtio-serial-device,id=serial");
        let port = callbox_protocol::agent::AGENT_PORT_NAME;
        line.add("-device", format!("virtserialport,bus=serial.0,chardev=agent,name={port}"));
        line.add("-chardev", socket("media", MEDIA_FD));
        let port = callbox_protocol::agent::MEDIA_PORT_NAME;
        line.add("-device", format!("virtserialport,bus=serial.0,chardev=media,name={port}"));
        if let Some(rootfs) = &self.rootfs {
            let file = escaped(rootfs);
            line.add(
                "-blockdev",
                format!(
                    "driver=raw,node-name=image,read-only=on,file.driver=file,file.filename={file}"
                ),
            );
            line.add("-device", "virtio-blk-device,drive=image");
        }
        if self.shape.network.has_card() {
            line.add("-netdev", netdev(self.wire));
            let mac = inner::written(&inner::GUEST_MAC);
            line.add("-device", format!("virtio-net-device,netdev=network,mac={mac}"));
        }
        line.add("-kernel", self.kernel.to_string_lossy());
        line.add("-initrd", self.initramfs.to_string_lossy());
        line.add("-append", self.append.clone());
        if self.memory == Memory::CopyOnWrite {
            // Nothing comes in before the monitor has said how (see `start::restore`).
            line.add("-incoming", "defer");
        }
        line.0
    }

    /// The arguments as far as they must be equal for a clone: without paths (the manifest has
    /// digests for what is behind them) and without what a clone has and its template had not.
    #[must_use]
    pub fn fingerprint(&self) -> Vec<String> {
        let anonymous = Invocation {
            run_dir: PathBuf::from("run"),
            kernel: PathBuf::from("kernel"),
            initramfs: PathBuf::from("initramfs"),
            rootfs: self.rootfs.as_ref().map(|_| PathBuf::from("rootfs")),
            memory: Memory::Shared,
            // The card looks the same whatever is behind it.
            wire: Wire::Tap,
            ..self.clone()
        };
        anonymous.arguments()
    }

    fn accel(&self) -> String {
        match self.accelerator {
            Accelerator::Kvm => "kvm".to_owned(),
            Accelerator::Tcg => format!("tcg,tb-size={}", self.tb_size_mib),
        }
    }

    /// Virtual processors that the machine gets.
    #[must_use]
    pub fn processors(&self) -> u8 {
        match self.accelerator {
            Accelerator::Kvm => self.shape.vcpus,
            Accelerator::Tcg => 1,
        }
    }

    fn memory_backend(&self) -> String {
        let size = self.shape.memory_mib;
        let share = match &self.memory {
            Memory::Fresh => return format!("memory-backend-ram,id=mem,size={size}M"),
            Memory::Shared => "on",
            Memory::CopyOnWrite => "off",
        };
        let path = format!("/proc/self/fd/{MEMORY_FD}");
        format!("memory-backend-file,id=mem,size={size}M,mem-path={path},share={share}")
    }
}

/// QEMU's own cage. No new programs, no new privileges, no change of priorities; outdated system
/// calls are denied too. All that a machine needs comes in as open descriptors or is opened
/// before the cage matters.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The guest kernel's command line.
///
/// `tsc` is passed under software emulation only, see [`crate::guest::tsc`]; `panic=-1 reboot=t` with QEMU's `-no-reboot` make every end of the
/// guest an end of QEMU. The rest is for the agent.
#[must_use]
pub fn kernel_command_line(
    tsc: Option<Tsc>,
    shape: &MachineShape,
    orphan_after: Duration,
) -> String {
    let mut line = "console=ttyS0 quiet panic=-1 reboot=t rdinit=/init".to_owned();
    if let Some(Tsc { khz, steady }) = tsc {
        line.push_str(&format!(" tsc_early_khz={khz}"));
        line.push_str(if steady { " tsc=reliable" } else { "" });
    }
    line.push_str(&format!(" callbox.disk_mib={}", shape.disk_mib));
    line.push_str(&format!(" callbox.orphan_s={}", orphan_after.as_secs()));
    if shape.network.has_card() {
        let (guest, prefix) = (inner::GUEST, inner::PREFIX);
        line.push_str(&format!(" callbox.ip={guest}/{prefix}"));
        line.push_str(&format!(" callbox.gateway={}", inner::GATEWAY));
        line.push_str(&format!(" callbox.dns={}", inner::RESOLVER));
    }
    line
}

/// No offloads and no kernel threads (vhost): a call's traffic needs neither.
fn netdev(wire: Wire) -> String {
    match wire {
        Wire::Tap => format!("tap,id=network,fd={NET_FD},vhost=off"),
        Wire::Stream => format!("stream,id=network,server=off,addr.type=fd,addr.str={NET_FD}"),
    }
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }
}

fn socket(id: &str, fd: i32) -> String {
    format!("socket,id={id},fd={fd},server=on,wait=off")
}

/// In QEMU's option lists a comma ends a value, and a doubled comma is one.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    const INTERNET: Network = Network::Internet { allow: Vec::new() };

    fn sample() -> Invocation {
        let shape =
            MachineShape { memory_mib: 256, vcpus: 4, disk_mib: 32, network: Network::None };
        Invocation {
            run_dir: "/data/run/a,b".into(),
            accelerator: Accelerator::Tcg,
            cpu: "max".into(),
            tb_size_mib: 64,
            memory: Memory::Fresh,
            kernel: "/data/kernel/vmlinuz".into(),
            initramfs: "/data/kernel/initramfs".into(),
            append: kernel_command_line(
                Some(Tsc { khz: 2_600_000, steady: true }),
                &shape,
                Duration::from_secs(60),
            ),
            rootfs: Some("/data/images/x/rootfs.erofs".into()),
            wire: Wire::Tap,
            shape,
        }
    }

    fn value<'a>(line: &'a [String], option: &str) -> Vec<&'a str> {
        line.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn a_cold_machine_has_one_disk_two_ports_and_no_network() {
        let line = sample().arguments();
        assert_eq!(value(&line, "-name"), ["guest=/data/run/a,,b"]);
        assert_eq!(value(&line, "-smp"), ["1"], "one processor under software emulation");
        assert_eq!(value(&line, "-accel"), ["tcg,tb-size=64"]);
        assert_eq!(value(&line, "-object"), ["memory-backend-ram,id=mem,size=256M"]);
        assert_eq!(
            value(&line, "-device"),
            [
                "virtio-serial-device,id=serial",
                "virtserialport,bus=serial.0,chardev=agent,name=callbox.agent",
                "virtserialport,bus=serial.0,chardev=media,name=callbox.media",
                "virtio-blk-device,drive=image",
            ]
        );
        assert_eq!(
            value(&line, "-append"),
            [
                "console=ttyS0 quiet panic=-1 reboot=t rdinit=/init tsc_early_khz=2600000 tsc=reliable callbox.disk_mib=32 callbox.orphan_s=60"
            ]
        );
        assert!(line.iter().all(|argument| !argument.contains("netdev")));
        assert!(value(&line, "-sandbox")[0].contains("spawn=deny"));
        assert!(value(&line, "-incoming").is_empty());
    }

    #[test]
    fn a_network_card_is_a_descriptor_and_its_addresses_are_told_to_the_agent() {
        let shape = MachineShape { network: INTERNET, ..sample().shape };
        let append = kernel_command_line(None, &shape, Duration::from_secs(60));
        assert!(append.ends_with("callbox.dns=10.0.2.3") && !append.contains("tsc"), "{append}");
        let tap = Invocation { shape, append, ..sample() };
        assert_eq!(value(&tap.arguments(), "-netdev"), ["tap,id=network,fd=9,vhost=off"]);
        let stream = Invocation { wire: Wire::Stream, ..tap.clone() };
        assert!(value(&stream.arguments(), "-netdev")[0].starts_with("stream,"));
        assert_eq!(tap.fingerprint(), stream.fingerprint(), "one template serves both");
        let allow = vec!["203.0.113.7:443".parse().expect("an address")];
        let fingerprint = tap.fingerprint();
        let mut some = tap;
        some.shape.network = Network::Internet { allow };
        assert_eq!(fingerprint, some.fingerprint(), "what is reached is decided outside");
    }

    #[test]
    fn a_clone_differs_from_its_template_in_memory_and_incoming_only() {
        let template = Invocation { memory: Memory::Shared, ..sample() };
        let clone = Invocation { memory: Memory::CopyOnWrite, ..sample() };
        let line = clone.arguments();
        assert_eq!(
            value(&line, "-object"),
            ["memory-backend-file,id=mem,size=256M,mem-path=/proc/self/fd/7,share=off"]
        );
        assert_eq!(value(&line, "-incoming"), ["defer"]);
        assert_eq!(template.fingerprint(), clone.fingerprint());
        let elsewhere = Invocation { run_dir: "/other".into(), ..sample() };
        assert_eq!(elsewhere.fingerprint(), clone.fingerprint());
    }

    #[test]
    fn what_a_clone_cannot_change_is_in_the_fingerprint() {
        let base = sample();
        let shape = |shape| Invocation { shape, ..base.clone() };
        let others = [
            Invocation { cpu: "qemu64".into(), ..base.clone() },
            Invocation { append: "other".into(), ..base.clone() },
            Invocation { accelerator: Accelerator::Kvm, ..base.clone() },
            shape(MachineShape { memory_mib: 512, ..base.shape.clone() }),
            shape(MachineShape { network: INTERNET, ..base.shape.clone() }),
        ];
        for other in others {
            assert_ne!(other.fingerprint(), base.fingerprint(), "{other:?}");
        }
    }
}
