//! The directory of one machine. The life cycle is drawn in the module header.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::process::{self, Identity};
use crate::cage::{Cage, Cell};
use crate::config::Accelerator;
use crate::error::Error;
use crate::layout::Layout;
use crate::net::{self, NetRecord};
use crate::qemu::Invocation;

/// Prefix of a directory whose machine is being destroyed.
const GONE: &str = ".gone-";
/// What stands in `machine.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the machine is for.
    pub kind: Kind,
    /// What runs its instructions.
    pub accelerator: Accelerator,
    /// The template it is a clone of.
    pub template: Option<String>,
    /// When its directory was made, milliseconds since the epoch.
    pub created_ms: u64,
    /// Its part of the cage: drawn, and written here, before anything of it is made.
    #[serde(default)]
    pub cell: Cell,
    /// Its QEMU, once started.
    pub process: Option<Identity>,
    /// Its network, once made.
    #[serde(default)]
    pub network: Option<NetRecord>,
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// To be used by somebody.
    Machine,
    /// To become a template.
    Bake,
    /// To find out about KVM.
    Probe,
    /// To be given to a session later.
    Reserve,
}

impl Record {
    /// The record of a machine that is made now.
    #[must_use]
    pub fn new(
        kind: Kind,
        accelerator: Accelerator,
        template: Option<String>,
        cell: Cell,
    ) -> Record {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Record { kind, accelerator, template, created_ms, cell, process: None, network: None }
    }
}

/// The directory of one machine.
#[derive(Clone, Debug)]
pub struct RunDir {
    name: String,
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory with its record.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken.
    pub fn create(layout: &Layout, name: &str, record: &Record) -> Result<RunDir, Error> {
        let directory = RunDir::at(layout, name);
        if directory.gone(layout).exists() {
            return Err(Error::Exists(name.to_owned()));
        }
        fs::create_dir(&directory.path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists(name.to_owned()),
            _ => Error::io("create", &directory.path)(error),
        })?;
        directory.write(record)?;
        Ok(directory)
    }

    /// The directory that a machine of this name has or would have.
    #[must_use]
    pub fn at(layout: &Layout, name: &str) -> RunDir {
        RunDir { name: name.to_owned(), path: layout.run().join(name) }
    }

    /// All directories, also those whose destruction was cut short.
    ///
    /// # Errors
    /// When `run/` cannot be listed.
    pub fn all(layout: &Layout) -> Result<Vec<RunDir>, Error> {
        let run = layout.run();
        let entries = fs::read_dir(&run).map_err(Error::io("list", &run))?;
        let mut all: Vec<RunDir> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let file = path.file_name()?.to_str()?;
                let name = file.strip_prefix(GONE).unwrap_or(file).to_owned();
                Some(RunDir { name, path })
            })
            .collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// QEMU's monitor.
    #[must_use]
    pub fn qmp_socket(&self) -> PathBuf {
        self.path.join("qmp.sock")
    }
    /// The agent's serial port.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.path.join("agent.sock")
    }
    /// The agent's second port, for whoever carries a call's media.
    #[must_use]
    pub fn media_socket(&self) -> PathBuf {
        self.path.join("media.sock")
    }
    /// What the guest prints.
    #[must_use]
    pub fn console_socket(&self) -> PathBuf {
        self.path.join("console.sock")
    }

    /// The record; `None` if there is none (we died while making the directory) or none that
    /// can be read.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path.join("machine.json")).ok()?).ok()
    }

    /// Replaces the record in one step.
    ///
    /// # Errors
    /// [`Error::Destroyed`] if the directory is gone: somebody destroys the machine.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let new = self.path.join("machine.json.new");
        let text = serde_json::to_vec_pretty(record).expect("plain values are always json");
        let written =
            fs::write(&new, text).and_then(|()| fs::rename(&new, self.path.join("machine.json")));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Destroyed(self.name.clone()),
            _ => Error::io("write", &new)(error),
        })
    }

    /// Gives the machine another name in one step: whoever comes second finds it gone.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is gone, [`Error::Exists`] if the name is taken.
    pub fn rename(&self, layout: &Layout, name: &str) -> Result<RunDir, Error> {
        let renamed = RunDir::at(layout, name);
        if renamed.gone(layout).exists() {
            return Err(Error::Exists(name.to_owned()));
        }
        // A directory of that name cannot be replaced, as it is never empty.
        fs::rename(&self.path, &renamed.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound(self.name.clone()),
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                Error::Exists(name.to_owned())
            }
            _ => Error::io("rename", &self.path)(error),
        })?;
        Ok(renamed)
    }

    /// Kills the machine's process, if any, and removes the directory. Idempotent.
    ///
    /// # Errors
    /// When the process belongs to somebody else or does not end, or files cannot be removed.
    pub async fn destroy(layout: &Layout, name: &str) -> Result<(), Error> {
        let directory = RunDir::at(layout, name);
        let gone = directory.gone(layout);
        // An earlier attempt goes first: its place is needed, and it may still have a process.
        end_and_remove(&directory, &gone).await?;
        match fs::rename(&directory.path, &gone) {
            Ok(()) => end_and_remove(&directory, &gone).await,
            // Nothing there, or somebody else has just retired it: then it must be gone when we
            // say so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                end_and_remove(&directory, &gone).await
            }
            Err(error) => Err(Error::io("retire", &directory.path)(error)),
        }
    }

    fn gone(&self, layout: &Layout) -> PathBuf {
        layout.run().join(format!("{GONE}{}", self.name))
    }
}

async fn end_and_remove(directory: &RunDir, gone: &Path) -> Result<(), Error> {
    if !gone.exists() {
        return Ok(());
    }
    let retired = RunDir { name: directory.name.clone(), path: gone.to_path_buf() };
    let record = retired.record();
    let recorded = record.as_ref().and_then(|record| record.process.clone());
    // Without a recorded pid there may still be a process: we may have died right after making
    // it. Its mark is the name the directory had then.
    let processes = match recorded {
        Some(process) if process.runs().unwrap_or(true) => vec![process],
        // Or it is the first of two tries, and the second was not written down any more.
        _ => process::with_argument(&Invocation::mark(&directory.path)),
    };
    for process in processes {
        process.end().await.map_err(Error::io("end the process of", &directory.path))?;
    }
    if let Some(record) = &record {
        Cage::clear(&record.cell).await?;
        if let Some(network) = &record.network {
            net::remove(network).await?;
        }
    }
    fs::remove_dir_all(gone).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::io("remove", gone)(error)),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let data = tempfile::tempdir().expect("tempdir");
        let layout = Layout::create(data.path()).expect("layout");
        (data, layout)
    }

    fn record() -> Record {
        Record::new(Kind::Machine, Accelerator::Tcg, None, Cell::default())
    }

    fn sleeper(argument: &str) -> (Child, Identity) {
        // A shell that waits for input: it keeps our argument on its command line and has no
        // child that could outlive it.
        let child = Command::new("sh")
            .args(["-c", "read line", "sh", argument])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh is everywhere");
        let pid = i32::try_from(child.id()).expect("small");
        (child, Identity::of(pid).expect("proc").expect("runs"))
    }

    #[tokio::test]
    async fn a_name_is_taken_until_its_machine_is_destroyed() {
        let (_data, layout) = layout();
        let directory = RunDir::create(&layout, "a", &record()).expect("free");
        assert_eq!(directory.record().expect("written").kind, Kind::Machine);
        let taken = RunDir::create(&layout, "a", &record());
        assert!(matches!(taken, Err(Error::Exists(_))));
        RunDir::destroy(&layout, "a").await.expect("destroyed");
        RunDir::destroy(&layout, "a").await.expect("destroying nothing is fine");
        assert!(RunDir::all(&layout).expect("listed").is_empty());
        assert!(matches!(directory.write(&record()), Err(Error::Destroyed(_))));
        RunDir::create(&layout, "a", &record()).expect("free again");
    }

    #[tokio::test]
    async fn destroy_kills_what_the_record_names_but_not_a_reused_pid() {
        let (_data, layout) = layout();
        let (mut ours, identity) = sleeper("ours");
        let (mut other, innocent) = sleeper("other");
        for (name, process) in [
            ("a", identity.clone()),
            ("b", Identity { started: innocent.started + 1, ..innocent.clone() }),
        ] {
            let directory = RunDir::create(&layout, name, &record()).expect("free");
            directory.write(&Record { process: Some(process), ..record() }).expect("written");
            RunDir::destroy(&layout, name).await.expect("destroyed");
        }
        assert!(!identity.runs().expect("proc"));
        assert!(innocent.runs().expect("proc"), "a process with a reused pid was killed");
        other.kill().expect("ours");
        for child in [&mut ours, &mut other] {
            child.wait().expect("reaped");
        }
    }

    #[tokio::test]
    async fn a_process_without_a_record_is_found_and_a_cut_short_destroy_finished() {
        let (_data, layout) = layout();
        let directory = RunDir::create(&layout, "a", &record()).expect("free");
        let mark = Invocation::mark(directory.path());
        let (mut child, identity) = sleeper(&mark);
        while process::with_argument(&mark).is_empty() {
            tokio::task::yield_now().await;
        }
        // As if the dispatcher had died between the rename and the kill.
        fs::rename(directory.path(), directory.gone(&layout)).expect("renamed");
        let all = RunDir::all(&layout).expect("listed");
        assert_eq!(all.iter().map(RunDir::name).collect::<Vec<_>>(), ["a"]);
        assert!(matches!(RunDir::create(&layout, "a", &record()), Err(Error::Exists(_))));
        RunDir::destroy(&layout, "a").await.expect("finished");
        assert!(!identity.runs().expect("proc"));
        assert!(RunDir::all(&layout).expect("listed").is_empty());
        child.wait().expect("reaped");
    }
}
