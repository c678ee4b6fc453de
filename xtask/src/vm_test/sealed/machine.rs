//! A machine's QEMU, as the host's kernel sees it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::Value;

/// A machine that runs.
pub struct Machine {
    pub pid: u32,
    /// Its address between host and namespace, and the names of its cgroups.
    record: Value,
}

impl Machine {
    /// The machine of a session.
    pub fn of(data_dir: &Path, session: &Value) -> anyhow::Result<Machine> {
        let name = session["machine"].as_str().context("the session has no machine")?;
        let path = data_dir.join("run").join(name).join("machine.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let record: Value = serde_json::from_slice(&text)?;
        let pid = record["process"]["pid"].as_u64().context("the record has no process")?;
        Ok(Machine { pid: u32::try_from(pid)?, record })
    }

    pub fn address(&self) -> Option<String> {
        Some(self.record["network"]["namespace"]["address"].as_str()?.to_owned())
    }

    pub fn alive(&self) -> bool {
        // What has ended and was not waited for has no command line.
        fs::read(self.file("cmdline")).is_ok_and(|line| !line.is_empty())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    pub fn status(&self, field: &str) -> String {
        field_of(&self.file("status"), field)
    }

    /// The same of each of its threads.
    pub fn of_threads(&self, field: &str) -> Vec<String> {
        let threads = fs::read_dir(self.file("task")).into_iter().flatten().flatten();
        threads.map(|thread| field_of(&thread.path().join("status"), field)).collect()
    }

    pub fn namespace(&self, kind: &str) -> Option<u64> {
        namespace(&self.file("ns"), kind)
    }

    /// What it sees in a directory of its own view.
    pub fn sees(&self, directory: &str) -> Vec<String> {
        let path = self.file("root").join(directory.trim_start_matches('/'));
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Its open descriptors: number, what is behind, whether it may be written to.
    pub fn descriptors(&self) -> Vec<(String, String, bool)> {
        let entries = fs::read_dir(self.file("fd")).into_iter().flatten().flatten();
        let one = |entry: fs::DirEntry| {
            let number = entry.file_name().to_string_lossy().into_owned();
            let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            let flags = field_of(&self.file("fdinfo").join(&number), "flags");
            let flags = u32::from_str_radix(&flags, 8).ok()?;
            Some((number, target, flags & 3 != 0))
        };
        entries.filter_map(one).collect()
    }

    /// Network interfaces that its process has.
    pub fn devices(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("net/dev")).unwrap_or_default();
        let lines = text.lines().skip(2).filter_map(|line| line.split_once(':'));
        lines.map(|(name, _)| name.trim().to_owned()).collect()
    }

    /// The first of these files of its cgroups that there is; version 1 and 2 have other names.
    pub fn cgroup(&self, files: &[&str]) -> Option<String> {
        let directories = self.record["cell"]["cgroups"].as_array()?.iter();
        let directories = directories.filter_map(|path| Some(Path::new(path.as_str()?)));
        let mut paths = directories.flat_map(|path| files.iter().map(move |file| path.join(file)));
        paths.find_map(|path| Some(fs::read_to_string(path).ok()?.trim().to_owned()))
    }

    pub fn cgroup_number(&self, files: &[&str]) -> Option<u64> {
        self.cgroup(files)?.split_whitespace().next()?.parse().ok()
    }

    /// Its cgroups that there still are.
    pub fn cgroups(&self) -> Vec<&str> {
        let all = self.record["cell"]["cgroups"].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).filter(|path| Path::new(path).exists()).collect()
    }
}

/// The namespace of our own.
pub fn own_namespace(kind: &str) -> Option<u64> {
    namespace(Path::new("/proc/self/ns"), kind)
}

fn namespace(directory: &Path, kind: &str) -> Option<u64> {
    Some(fs::metadata(directory.join(kind)).ok()?.ino())
}

/// A field of a file of lines `name: value`; empty when it is not there.
pub fn field_of(path: &Path, field: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| *name == field);
    found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
