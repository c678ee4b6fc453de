//! Cgroups of machines: processors, memory and processes are bounded, and all of a machine is
//! killed at once. Version 2, version 1, and hosts that have both.
//!
//! ```text
//! <mount>/callbox/<data directory>/<machine>        one per hierarchy that bounds something
//! ```
//!
//! They lie at the top and not below the dispatcher's own cgroup: a service manager that ends the
//! dispatcher ends everything below that one, and machines outlive their dispatcher. Directories,
//! plain files and the kernel's words for them are all there is to it, so no library is needed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::Bounds;
use crate::error::Error;
use crate::layout::Layout;
use crate::run::process::Identity;

/// Who made it, below the mount point.
const OURS: &str = "callbox";
/// What bounds a machine.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// How long the processes of a cgroup may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// What the kernel says of a cgroup that is being removed.
const GONE: i32 = rustix::io::Errno::NODEV.raw_os_error();
/// A machine past its bound is ended; it does not fill the host's swap first.
const SWAP_2: &str = "memory.swap.max";
/// Memory and swap together, in version 1.
const SWAP_1: &str = "memory.memsw.limit_in_bytes";
/// Period of the processor's bound, in microseconds.
const PERIOD_US: u64 = 100_000;

/// The hierarchies of this host.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// Our directory in each hierarchy of version 1, by what it bounds there.
    v1: BTreeMap<&'static str, PathBuf>,
    /// Version 2.
    v2: Option<V2>,
}

#[derive(Debug)]
struct V2 {
    mount: PathBuf,
    ours: PathBuf,
    /// What it bounds there.
    bounds: Vec<&'static str>,
}

impl Cgroups {
    /// Finds the hierarchies and makes our directory in each.
    pub fn find(layout: &Layout) -> Result<Cgroups, Error> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(path).map_err(Error::io("read", path))?;
        let data_dir = layout.root().as_os_str().as_encoded_bytes();
        let ours = Path::new(OURS).join(hex::encode(&Sha256::digest(data_dir)[..6]));
        Cgroups::at(&mounts, &ours)
    }

    fn at(mounts: &str, ours: &Path) -> Result<Cgroups, Error> {
        let mut found = Cgroups { v1: BTreeMap::new(), v2: None };
        for (kind, mount, options) in mounts.lines().filter_map(parse_mount) {
            if kind == "cgroup2" {
                let bounds = delegate(&mount, ours);
                found.v2 = Some(V2 { ours: mount.join(ours), mount, bounds });
            } else {
                for controller in CONTROLLERS {
                    if options.split(',').any(|option| option == controller) {
                        found.v1.insert(controller, mount.join(ours));
                    }
                }
            }
        }
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(Error::Unusable("no cgroup hierarchy is mounted".to_owned()));
        }
        Ok(found)
    }

    /// What is not bounded here, in words.
    pub fn missing(&self) -> Vec<String> {
        let bounded = |name: &&str| {
            self.v1.contains_key(*name)
                || self.v2.as_ref().is_some_and(|v2| v2.bounds.contains(name))
        };
        let open = CONTROLLERS.iter().filter(|name| !bounded(name));
        open.map(|name| format!("no cgroup bounds the {name} of machines")).collect()
    }

    /// The directories that a machine of this name would have.
    pub fn paths(&self, name: &str) -> Vec<PathBuf> {
        self.roots().into_iter().map(|root| root.join(name)).collect()
    }

    /// Makes them, with their bounds.
    pub fn make(&self, paths: &[PathBuf], bounds: Bounds, pids: u64) -> Result<(), Error> {
        for path in paths {
            self.create(path).map_err(Error::io("create the cgroup", path))?;
            let root = path.parent().unwrap_or(path);
            match &self.v2 {
                Some(v2) if v2.ours == root => {
                    for (controller, file, text) in version_2(bounds, pids) {
                        if v2.bounds.contains(&controller) {
                            set(&path.join(file), &text)?;
                        }
                    }
                }
                _ => {
                    for (controller, file, text) in version_1(bounds, pids) {
                        if self.v1.get(controller).is_some_and(|ours| ours == root) {
                            set(&path.join(file), &text)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Creates one, and what is above it: the last machine takes our own directories along.
    fn create(&self, path: &Path) -> io::Result<()> {
        for _ in 0..8 {
            let root = path.parent().unwrap_or(path);
            if let Some(v2) = self.v2.as_ref().filter(|v2| v2.ours == root && !root.exists()) {
                // Controllers are passed down anew.
                let ours = v2.ours.strip_prefix(&v2.mount).unwrap_or(&v2.ours);
                delegate(&v2.mount, ours);
            }
            match fs::create_dir_all(path) {
                // Somebody has just taken it along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => return outcome,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Every machine's directory of ours, whether or not its machine is known.
    pub fn all(&self) -> Vec<PathBuf> {
        let entries = self.roots().into_iter().filter_map(|root| fs::read_dir(root).ok()).flatten();
        let directories =
            entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.map(|entry| entry.path()).collect()
    }

    /// Our directories, each once: version 1 may bound several things in one hierarchy.
    fn roots(&self) -> Vec<&PathBuf> {
        let mut roots: Vec<&PathBuf> = self.v1.values().collect();
        roots.extend(self.v2.iter().map(|v2| &v2.ours));
        roots.sort();
        roots.dedup();
        roots
    }
}

/// Ends what is in these cgroups and removes them. Gone already is fine.
pub(super) async fn clear(paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        let emptied = tokio::time::timeout(KILL_TIMEOUT, empty(path)).await;
        let outcome = emptied.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(Error::io("end the processes of the cgroup", path))?;
        match fs::remove_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove the cgroup", path)(error));
            }
            _ => {}
        }
        // Ours, and that of all deployments, if this was the last.
        for above in path.ancestors().skip(1).take(2) {
            let _ = fs::remove_dir(above);
        }
    }
    Ok(())
}

/// Kills until nothing is left. Zombies leave their cgroup by themselves.
async fn empty(path: &Path) -> io::Result<()> {
    loop {
        let processes = match fs::read_to_string(path.join("cgroup.procs")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A cgroup that is being removed.
            Err(error) if error.raw_os_error() == Some(GONE) => return Ok(()),
            Err(error) => return Err(error),
        };
        let pids: Vec<i32> =
            processes.lines().filter_map(|line| line.trim().parse().ok()).collect();
        if pids.is_empty() {
            return Ok(());
        }
        // All at once where the kernel can (version 2), one by one elsewhere.
        if fs::write(path.join("cgroup.kill"), "1").is_err() {
            for pid in &pids {
                let alive = Identity::of(*pid)?.map(|identity| identity.open()).transpose()?;
                // Looked at again: it must still be in here, or it is somebody else's.
                if let Some(Some(alive)) = alive
                    && fs::read_to_string(path.join("cgroup.procs"))
                        .is_ok_and(|now| now.lines().any(|line| line == pid.to_string()))
                {
                    alive.kill()?;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn version_2(bounds: Bounds, pids: u64) -> Vec<(&'static str, &'static str, String)> {
    let quota = bounds.cpu_milli * PERIOD_US / 1000;
    vec![
        ("cpu", "cpu.max", format!("{quota} {PERIOD_US}")),
        ("memory", "memory.max", bounds.memory_bytes.to_string()),
        ("memory", "memory.oom.group", "1".to_owned()),
        ("memory", SWAP_2, "0".to_owned()),
        ("pids", "pids.max", pids.to_string()),
    ]
}

fn version_1(bounds: Bounds, pids: u64) -> Vec<(&'static str, &'static str, String)> {
    let quota = bounds.cpu_milli * PERIOD_US / 1000;
    vec![
        ("cpu", "cpu.cfs_period_us", PERIOD_US.to_string()),
        ("cpu", "cpu.cfs_quota_us", quota.to_string()),
        ("memory", "memory.limit_in_bytes", bounds.memory_bytes.to_string()),
        ("memory", SWAP_1, bounds.memory_bytes.to_string()),
        ("pids", "pids.max", pids.to_string()),
    ]
}

fn set(path: &Path, text: &str) -> Result<(), Error> {
    // A kernel that does not count swap has no such file.
    let counts_swap = path.ends_with(SWAP_1) || path.ends_with(SWAP_2);
    if counts_swap && !path.exists() {
        return Ok(());
    }
    fs::write(path, text).map_err(Error::io("set", path))
}

/// Passes the controllers that there are down to our directory; tells which arrived.
fn delegate(mount: &Path, ours: &Path) -> Vec<&'static str> {
    let mut directory = mount.to_path_buf();
    let mut parts: Vec<_> = ours.iter().collect();
    parts.push(".".as_ref());
    for part in parts {
        for controller in CONTROLLERS {
            // Not there, or bound to version 1: then it is missing, and said so.
            let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        directory = directory.join(part);
        if fs::create_dir_all(&directory).is_err() {
            return Vec::new();
        }
    }
    let passed = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
    let is_there = |name: &&str| passed.split_whitespace().any(|it| it.trim_matches('+') == *name);
    CONTROLLERS.into_iter().filter(is_there).collect()
}

/// Kind, mount point and options of a line of `/proc/self/mountinfo`, if it is a cgroup's.
fn parse_mount(line: &str) -> Option<(String, PathBuf, String)> {
    let (before, after) = line.split_once(" - ")?;
    let mount = before.split(' ').nth(4)?;
    let mut fields = after.split(' ');
    let kind = fields.next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
    let options = fields.nth(1)?;
    Some((kind.to_owned(), PathBuf::from(mount), options.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { memory_bytes: 512 << 20, cpu_milli: 1500 };

    /// Hierarchies of plain directories: what is written is what is read.
    fn find(base: &Path, lines: &[(&str, &str, &str)]) -> Cgroups {
        let mounts: String = lines
            .iter()
            .map(|(kind, at, options)| {
                let mount = base.join(at);
                fs::create_dir_all(&mount).expect("created");
                format!("30 20 0:1 / {} rw - {kind} none {options}\n", mount.display())
            })
            .collect();
        Cgroups::at(&mounts, Path::new("callbox/x")).expect("found")
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn version_1_bounds_each_thing_in_its_hierarchy() {
        let base = tempfile::tempdir().expect("tempdir");
        let found = find(
            base.path(),
            &[
                ("cgroup", "cpu", "rw,cpu,cpuacct"),
                ("cgroup", "memory", "rw,memory"),
                ("tmpfs", "t", "rw"),
            ],
        );
        assert_eq!(found.missing(), ["no cgroup bounds the pids of machines"]);
        let paths = found.paths("m1");
        assert_eq!(found.all(), [""; 0].map(PathBuf::from), "nothing before the first machine");
        found.make(&paths, BOUNDS, 64).expect("made");
        let at = |path: &str| base.path().join(path);
        assert_eq!(read(at("cpu/callbox/x/m1/cpu.cfs_quota_us")), "150000");
        assert_eq!(read(at("memory/callbox/x/m1/memory.limit_in_bytes")), "536870912");
        assert!(!at("cpu/callbox/x/m1/memory.limit_in_bytes").exists());
        assert_eq!(found.all(), paths);
    }

    #[test]
    fn version_2_bounds_what_was_passed_down() {
        let base = tempfile::tempdir().expect("tempdir");
        let ours = base.path().join("u/callbox/x");
        fs::create_dir_all(&ours).expect("created");
        let found = find(base.path(), &[("cgroup2", "u", "rw")]);
        // A plain file keeps the last word written to it.
        assert_eq!(found.missing().len(), 2, "{:?}", found.missing());
        let paths = found.paths("m1");
        found.make(&paths, BOUNDS, 64).expect("made");
        assert_eq!(read(ours.join("m1/pids.max")), "64");
        assert!(!ours.join("m1/cpu.max").exists(), "it was not passed down");
    }

    #[test]
    fn other_mounts_are_none_of_ours() {
        let line = "25 20 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";
        let (kind, mount, _) = parse_mount(line).expect("a cgroup");
        assert_eq!((kind.as_str(), mount), ("cgroup2", PathBuf::from("/sys/fs/cgroup/unified")));
        assert!(parse_mount("25 20 0:22 / /tmp rw - tmpfs tmpfs rw,cpu").is_none());
    }
}
