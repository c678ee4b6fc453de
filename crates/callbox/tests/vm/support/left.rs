//! What a test leaves behind: nothing.

use std::{
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// All that may be in a data directory in which nothing runs.
const KEPT: [&str; 15] = [
    "deployment",
    "replica",
    "clock",
    "callbox.db",
    "callbox.db-shm",
    "callbox.db-wal",
    "callbox.lock",
    "cage",
    "images",
    "kernel",
    "logs",
    "probe",
    "relays",
    "run",
    "templates",
];

/// The processes that run machines below this directory. Each has its run directory in its
/// command line.
pub fn machines(home: &Path) -> Vec<Pid> {
    let mark = home.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).into_owned();
        let qemu = command.split('\0').next()?.contains("qemu-system");
        (qemu && command.contains(mark)).then(|| Pid::from_raw(pid))?
    });
    pids.collect()
}

/// The processes that carry calls below this directory, also those whose files are gone: each
/// has a socket of that path open.
pub fn relays(home: &Path) -> Vec<Pid> {
    let mark = format!("{}/d/relays/", home.display());
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let sockets: Vec<String> = table
        .lines()
        .filter(|line| line.contains(&mark))
        .filter_map(|line| line.split_ascii_whitespace().nth(6))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let relay = command.split(|byte| *byte == 0).nth(1)? == b"relay";
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let ours = relay
            && files.any(|file| {
                fs::read_link(file.path())
                    .is_ok_and(|target| sockets.iter().any(|s| target.as_os_str() == s.as_str()))
            });
        ours.then(|| Pid::from_raw(pid))?
    });
    pids.collect()
}

/// Kills every machine.
pub fn end_machines(home: &Path) {
    for pid in machines(home) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// For tests that failed: their processes end with them.
pub fn end_processes(home: &Path) {
    end_machines(home);
    for pid in relays(home) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// For tests that failed: whatever else is left goes as its users would remove it.
pub fn sweep(home: &Path) {
    let _ = std::process::Command::new(env!("CARGO_BIN_EXE_callbox"))
        .args(["sweep", "--all", "--config"])
        .arg(home.join("callbox.toml"))
        .stdin(std::process::Stdio::null())
        .output();
}

/// Nothing runs below `home`, and no file lies about.
#[track_caller]
pub fn assert_nothing(home: &Path) {
    assert_eq!(machines(home), [], "machines are left");
    assert_eq!(relays(home), [], "relays are left");
    let data = home.join("d");
    assert_eq!(names(&data.join("run")), [""; 0], "run directories are left");
    assert_eq!(names(&data.join("relays")), [""; 0], "files of relays are left");
    assert_eq!(names(&home.join("tmp")), [""; 0], "temporary files are left");
    let surplus: Vec<String> =
        names(&data).into_iter().filter(|name| !KEPT.contains(&name.as_str())).collect();
    assert_eq!(surplus, [""; 0], "files are left in the data directory");
    assert_eq!(sockets(home), Vec::<PathBuf>::new(), "sockets are left");
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Does not follow links: what is shared is not ours.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_socket() {
            found.push(entry.path());
        } else if kind.is_dir() {
            found.extend(sockets(&entry.path()));
        }
    }
    found
}
