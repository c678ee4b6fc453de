//! What of ours is on this host, and whose it is.
//!
//! Looked up by means of the operating system alone: what the program forgets is found as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Something that belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leak {
    pub kind: &'static str,
    pub name: String,
}

/// Who may have something here.
#[derive(Default)]
pub struct Owners {
    /// Sessions that live.
    pub sessions: BTreeSet<String>,
    /// The dispatcher, and since when it runs: reserves that are older are nobody's.
    pub dispatcher: Option<(i32, u64)>,
}

/// Looks at a home.
pub struct Looker {
    home: PathBuf,
    /// Directories of cgroups, as machines' records name them.
    hierarchies: BTreeSet<PathBuf>,
    /// The group of our network links, likewise.
    links: BTreeSet<String>,
    /// The most that was there at once, by kind: who never saw anything is no witness.
    pub most: BTreeMap<&'static str, usize>,
}

/// What there is at a moment.
pub struct Seen {
    /// Processes of QEMU, and the run directory that each was started in.
    machines: Vec<(i32, String)>,
    /// Processes of relays, and their sessions.
    relays: Vec<(i32, String)>,
    /// Other processes of our program.
    others: Vec<(i32, String)>,
    /// Run directories by name, with their records.
    runs: BTreeMap<String, Value>,
    cgroups: Vec<String>,
    links: Vec<String>,
    relay_files: Vec<String>,
    /// Temporary files, and sockets in places where none should be.
    files: Vec<String>,
}

impl Looker {
    pub fn new(home: &Path) -> Looker {
        Looker {
            home: home.to_owned(),
            hierarchies: BTreeSet::new(),
            links: BTreeSet::new(),
            most: BTreeMap::new(),
        }
    }

    /// Objects before the records that own them: what has none then, has none.
    pub fn look(&mut self) -> Seen {
        let data = self.home.join("d");
        let mut seen = Seen {
            machines: Vec::new(),
            relays: Vec::new(),
            others: Vec::new(),
            runs: BTreeMap::new(),
            cgroups: self.hierarchies.iter().flat_map(|path| directories(path)).collect(),
            links: links()
                .into_iter()
                .filter(|(_, g)| self.links.contains(g))
                .map(|l| l.0)
                .collect(),
            relay_files: names(&data.join("relays")),
            files: files(&self.home),
        };
        self.processes(&mut seen);
        for name in names(&data.join("run")) {
            let record = fs::read(data.join("run").join(&name).join("machine.json"));
            let record = record.ok().and_then(|text| serde_json::from_slice(&text).ok());
            seen.runs.insert(name, record.unwrap_or_default());
        }
        self.learn(&seen);
        for (kind, count) in seen.counts() {
            let most = self.most.entry(kind).or_default();
            *most = count.max(*most);
        }
        seen
    }

    fn processes(&self, seen: &mut Seen) {
        let ours = self.home.display().to_string();
        let mark = format!("guest={ours}/d/run/");
        for pid in names(Path::new("/proc")).iter().filter_map(|name| name.parse::<i32>().ok()) {
            let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).into_owned();
            let arguments: Vec<&str> = line.split('\0').collect();
            if let Some(name) = arguments.iter().find_map(|one| one.strip_prefix(&mark)) {
                seen.machines.push((pid, name.to_owned()));
                continue;
            }
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if !program.starts_with(&self.home) {
                continue;
            }
            match arguments.as_slice() {
                [_, "relay", session, ..] => seen.relays.push((pid, (*session).to_owned())),
                _ => seen.others.push((pid, arguments.join(" "))),
            }
        }
    }

    fn learn(&mut self, seen: &Seen) {
        let all = links();
        for record in seen.runs.values() {
            let cgroups = record["cell"]["cgroups"].as_array().into_iter().flatten();
            let paths = cgroups.filter_map(|path| Some(Path::new(path.as_str()?)));
            self.hierarchies.extend(paths.filter_map(|path| Some(path.parent()?.to_owned())));
            let group = link_of(record).and_then(|link| all.get(&link));
            self.links.extend(group.cloned());
        }
    }

    /// One of our directories of cgroups, once a machine was seen in it.
    pub fn hierarchy(&self) -> Option<&Path> {
        self.hierarchies.first().map(PathBuf::as_path)
    }

    /// The cgroups' own directories stay; this is for the end of the test.
    pub fn remove_hierarchies(&self) {
        for path in &self.hierarchies {
            let _ = fs::remove_dir(path);
        }
    }
}

impl Seen {
    fn counts(&self) -> [(&'static str, usize); 6] {
        [
            ("run-directory", self.runs.len()),
            ("machine-process", self.machines.len()),
            ("relay", self.relays.len()),
            ("relay-file", self.relay_files.len()),
            ("cgroup", self.cgroups.len()),
            ("network", self.links.len()),
        ]
    }

    /// What nobody owns.
    pub fn leaks(&self, owners: &Owners) -> Vec<Leak> {
        let lives =
            |session: Option<String>| session.is_some_and(|id| owners.sessions.contains(&id));
        let owned = |name: &str, record: &Value| match session_of(name) {
            Some(session) => lives(Some(session)),
            None => owners.dispatcher.is_some_and(|(_, since)| {
                // A directory without a record is being made, or it was left in the making.
                name.starts_with(".rv-")
                    && record["created_ms"].as_u64().is_some_and(|at| at >= since)
            }),
        };
        let mut leaks = Vec::new();
        let mut leak = |kind, name: String| leaks.push(Leak { kind, name });
        let (kept, left): (Vec<_>, Vec<_>) = self.runs.iter().partition(|(n, r)| owned(n, r));
        left.iter().for_each(|(name, _)| leak("run-directory", (*name).clone()));
        for (pid, name) in &self.machines {
            if !kept.iter().any(|(_, record)| record["process"]["pid"] == *pid) {
                leak("machine-process", format!("pid {pid} of {name}"));
            }
        }
        for (pid, session) in &self.relays {
            if !lives(Some(session.clone())) {
                leak("relay", format!("pid {pid} of {session}"));
            }
        }
        for (pid, line) in &self.others {
            if owners.dispatcher.is_none_or(|(dispatcher, _)| dispatcher != *pid) {
                leak("process", format!("pid {pid}: {line}"));
            }
        }
        for path in &self.cgroups {
            let of = |record: &Value| {
                record["cell"]["cgroups"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|p| p == path))
            };
            if !kept.iter().any(|(_, record)| of(record)) {
                leak("cgroup", path.clone());
            }
        }
        for link in &self.links {
            if !kept.iter().any(|(_, record)| link_of(record).as_ref() == Some(link)) {
                leak("network", link.clone());
            }
        }
        for file in &self.relay_files {
            if !lives(file.split('.').next().map(str::to_owned)) {
                leak("relay-file", file.clone());
            }
        }
        self.files.iter().for_each(|file| leak("file", file.clone()));
        leaks
    }

    /// Sessions with more than one machine: two directories, or two processes.
    pub fn doubled(&self) -> BTreeSet<String> {
        let mut machines: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in self.runs.keys().filter(|name| !name.starts_with('.')) {
            if let Some(session) = session_of(name) {
                machines.entry(session).or_default().insert(name.clone());
            }
        }
        let mut processes: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for (pid, _) in &self.machines {
            if let Some(session) = self.session_of_process(*pid) {
                processes.entry(session).or_default().insert(*pid);
            }
        }
        let twice = machines.into_iter().filter(|(_, names)| names.len() > 1).map(|one| one.0);
        let two = processes.into_iter().filter(|(_, pids)| pids.len() > 1).map(|one| one.0);
        twice.chain(two).collect()
    }

    /// Whose machine a QEMU is: by the record that has it, or by its own mark.
    pub fn session_of_process(&self, pid: i32) -> Option<String> {
        let record = self.runs.iter().find(|(_, record)| record["process"]["pid"] == pid);
        let mark = || self.machines.iter().find(|(one, _)| *one == pid).map(|(_, name)| name);
        session_of(record.map(|(name, _)| name).or_else(mark)?)
    }

    /// Machines of sessions first: whoever strikes at random should hit those.
    pub fn machine_pids(&self) -> Vec<i32> {
        let all = self.machines.iter().map(|(pid, _)| *pid);
        let of_sessions: Vec<i32> =
            all.clone().filter(|pid| self.session_of_process(*pid).is_some()).collect();
        if of_sessions.is_empty() { all.collect() } else { of_sessions }
    }

    pub fn relays(&self) -> &[(i32, String)] {
        &self.relays
    }
}

/// The session that a machine of this name has, as clients write it.
fn session_of(name: &str) -> Option<String> {
    let name = name.strip_prefix(".gone-").unwrap_or(name).strip_prefix("cb-")?;
    let hex = name.get(..32)?;
    let part = |from: usize, to: usize| hex.get(from..to);
    Some(format!(
        "{}-{}-{}-{}-{}",
        part(0, 8)?,
        part(8, 12)?,
        part(12, 16)?,
        part(16, 20)?,
        part(20, 32)?
    ))
}

fn link_of(record: &Value) -> Option<String> {
    record["network"]["namespace"]["link"].as_str().map(str::to_owned)
}

/// Network links that could be ours, by name, and the group of each.
fn links() -> BTreeMap<String, String> {
    let class = Path::new("/sys/class/net");
    let ours = names(class).into_iter().filter(|name| name.starts_with("cbx-"));
    ours.filter_map(|name| {
        let group = fs::read_to_string(class.join(&name).join("netdev_group")).ok()?;
        Some((name, group.trim().to_owned()))
    })
    .collect()
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn directories(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path().display().to_string()).collect()
}

/// Temporary files, and sockets outside of `run` and `relays`, which have owners of their own.
fn files(home: &Path) -> Vec<String> {
    let temporary = names(&home.join("tmp")).into_iter().map(|name| format!("tmp/{name}"));
    let mut found: Vec<String> = temporary.collect();
    let mut below = vec![home.to_owned()];
    while let Some(directory) = below.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            let owned = ["d/run", "d/relays", "d/cage"].iter().any(|part| path == home.join(part));
            if kind.is_socket() {
                found.push(path.display().to_string());
            } else if kind.is_dir() && !owned {
                below.push(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "e769f0b5-4351-444d-bf5b-e62734f6c895";
    const NAME: &str = "cb-e769f0b54351444dbf5be62734f6c895-1";

    fn seen() -> Seen {
        let record = |pid: i32, cgroup: &str, link: &str| {
            json!({
                "created_ms": 100, "process": { "pid": pid }, "cell": { "cgroups": [cgroup] },
                "network": { "namespace": { "link": link } },
            })
        };
        Seen {
            machines: vec![(7, ".rv-1".into()), (8, ".rv-2".into())],
            relays: vec![(9, ID.into())],
            others: vec![(1, "serve".into())],
            runs: [
                (NAME.into(), record(7, "/c/a", "cbx-1")),
                (".rv-2".into(), record(8, "/c/b", "cbx-2")),
            ]
            .into(),
            cgroups: vec!["/c/a".into(), "/c/b".into()],
            links: vec!["cbx-1".into(), "cbx-2".into()],
            relay_files: vec![format!("{ID}.sock")],
            files: Vec::new(),
        }
    }

    fn kinds(leaks: &[Leak]) -> Vec<&'static str> {
        leaks.iter().map(|leak| leak.kind).collect()
    }

    #[test]
    fn everything_has_an_owner_or_is_named() {
        let owners = |sessions: &[&str], since| Owners {
            sessions: sessions.iter().map(|id| (*id).to_owned()).collect(),
            dispatcher: Some((1, since)),
        };
        assert_eq!(seen().leaks(&owners(&[ID], 100)), []);
        let old_reserve = seen().leaks(&owners(&[ID], 101));
        assert_eq!(kinds(&old_reserve), ["run-directory", "machine-process", "cgroup", "network"]);
        let all = seen().leaks(&Owners::default());
        assert_eq!(all.len(), 11, "{all:#?}");
        let mut orphan = seen();
        orphan.runs.remove(NAME);
        let left = orphan.leaks(&owners(&[ID], 100));
        assert_eq!(kinds(&left), ["machine-process", "cgroup", "network"]);
    }

    #[test]
    fn two_machines_of_one_session_are_seen_however_they_came_about() {
        assert!(seen().doubled().is_empty());
        let mut second = seen();
        second.runs.insert("cb-e769f0b54351444dbf5be62734f6c895-2".into(), Value::Null);
        assert_eq!(second.doubled(), [ID.to_owned()].into());
        let mut forgotten = seen();
        forgotten.machines.push((10, NAME.into()));
        assert_eq!(forgotten.doubled(), [ID.to_owned()].into());
    }
}
