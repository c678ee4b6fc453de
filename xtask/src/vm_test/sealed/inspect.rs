//! What is around a machine's QEMU, by what the host's kernel says of it.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
};

use rustix::fs::{SealFlags, fcntl_get_seals};

use super::{
    machine::{Machine, field_of, own_namespace},
    report::Finding,
};

/// What a QEMU sees as `/`, and as `/m`.
const VIEW: &[&str] = &["dev", "lib", "lib64", "m", "proc", "usr"];
const FILES: &[&str] = &["initramfs", "kernel", "rootfs"];

/// Looks at all of them, beside each other.
pub fn inspect(machines: &[&Machine]) -> Vec<Finding> {
    let mut found: Vec<Finding> = machines.iter().flat_map(|machine| one(machine)).collect();
    for (what, of) in [
        ("a user id of its own", (|one| one.status("Uid")) as fn(&Machine) -> String),
        ("a cgroup of its own", |one| one.cgroup(&["cgroup.procs"]).unwrap_or_default()),
        ("a network namespace of its own", |one| format!("{:?}", one.namespace("net"))),
        ("a mount namespace of its own", |one| format!("{:?}", one.namespace("mnt"))),
    ] {
        let mut values: Vec<String> = machines.iter().map(|machine| of(machine)).collect();
        let said = values.join(", ").replace('\t', " ");
        values.sort();
        values.dedup();
        let ok = values.len() == machines.len() && !values.iter().any(String::is_empty);
        found.push(Finding::new("qemu", "one is not another", what, said, ok));
    }
    found
}

fn one(machine: &Machine) -> Vec<Finding> {
    let mut found = Found { all: Vec::new(), class: "rights" };
    let own = field_of("/proc/self/status".as_ref(), "Uid");
    let uid = machine.status("Uid");
    found.note("not our user", &uid, uid != own && !uid.starts_with("0\t"));
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        found.same(set, &[machine.status(set)], &["0000000000000000"]);
    }
    for (field, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        let threads = machine.of_threads(field);
        let ok = !threads.is_empty() && threads.iter().all(|of| of == value);
        found.note(&format!("{field} of each thread"), &threads.join(" "), ok);
    }
    let core = std::fs::read_to_string(machine.file("limits")).unwrap_or_default();
    let core = core.lines().find_map(|line| line.strip_prefix("Max core file size"));
    let core = core.unwrap_or_default().trim();
    found.note("no core file", core, core.starts_with('0'));

    found.class = "namespaces, view";
    for kind in ["mnt", "net", "ipc", "uts"] {
        let (own, its) = (own_namespace(kind), machine.namespace(kind));
        found.note(&format!("another {kind}"), &format!("{its:?}"), its.is_some() && its != own);
    }
    found.same("/", &machine.sees("/"), VIEW);
    found.same("/m", &machine.sees("/m"), FILES);
    found.same("network interfaces", &machine.devices(), &["lo"]);

    found.class = "bounds";
    for (what, files) in [
        ("memory", &["memory.max", "memory.limit_in_bytes"][..]),
        ("pids", &["pids.max"]),
        ("cpu", &["cpu.max", "cpu.cfs_quota_us"]),
    ] {
        let limit = machine.cgroup(files).unwrap_or_else(|| "there is none".to_owned());
        let number = machine.cgroup_number(files);
        found.note(what, &limit, number.is_some_and(|limit| limit > 0 && limit < 1 << 50));
    }
    found.class = "open files";
    for (number, target, writable) in machine.descriptors() {
        let (ok, said) = expected(machine, &number, &target, writable);
        found.note(&format!("{number}: {target}"), &said, ok);
    }
    found.all
}

/// Whether QEMU may hold this, and what it is.
fn expected(machine: &Machine, number: &str, target: &str, writable: bool) -> (bool, String) {
    let known = |said: &str| (true, said.to_owned());
    match target {
        _ if target.starts_with("/memfd:") => sealed(machine, number),
        _ if target.starts_with("socket:") => known("a socket that the dispatcher made"),
        _ if target.starts_with("anon_inode:") => known("of the kernel's event loop"),
        _ if number == "2" && target.starts_with("pipe:") => known("its complaints"),
        "/dev/null" | "/dev/net/tun" | "/dev/kvm" => known("a device that it needs"),
        _ if target.ends_with("rootfs") || target.ends_with("rootfs.erofs") => {
            (!writable, format!("the image, writable: {writable}"))
        }
        _ => (false, format!("nothing that a machine needs, writable: {writable}")),
    }
}

/// A template's memory or state: written by nobody, as is tried.
fn sealed(machine: &Machine, number: &str) -> (bool, String) {
    let path = machine.file("fd").join(number);
    let seals = File::open(&path).ok().and_then(|file| fcntl_get_seals(file).ok());
    let seals = seals.unwrap_or(SealFlags::empty());
    let write = OpenOptions::new().read(true).write(true).open(&path).and_then(|file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0)?;
        file.write_all_at(&byte, 0)
    });
    let ok = write.is_err() && seals.contains(SealFlags::WRITE);
    let tried = write.err().map_or("written".to_owned(), |error| error.to_string());
    (ok, format!("sealed {seals:?}; writing as root: {tried}"))
}

struct Found {
    all: Vec<Finding>,
    class: &'static str,
}

impl Found {
    fn note(&mut self, what: &str, said: &str, ok: bool) {
        self.all.push(Finding::new("qemu", self.class, what, said.replace('\t', " "), ok));
    }

    fn same(&mut self, what: &str, seen: &[String], expected: &[&str]) {
        self.note(what, &seen.join(" "), seen == expected);
    }
}
