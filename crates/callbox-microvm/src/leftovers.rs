//! Whatever of ours is on this host, and belongs to nobody.
//!
//! What may exist is a short list: run directories, processes, cgroups, networks, staging
//! directories. Everything is found by looking at the host, never from memory,
//! so it is found after any crash, and without QEMU, a kernel or an image.
//!
//! Objects are listed *before* the records that claim them, and a record is written before its
//! objects are made: what is on the list and has no record belongs to nobody.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cage::{Cage, Cell, Cgroups};
use crate::error::Error;
use crate::layout::Layout;
use crate::lock::FileLock;
use crate::net;
use crate::qemu::Invocation;
use crate::run::process::{self, Identity};
use crate::run::{Kind, RunDir};
use crate::template::{BAKING, RUN_PREFIX};

/// Something that is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Its name: of a machine, or a path, or a process.
    pub name: String,
    #[serde(skip)]
    what: What,
}

/// The kinds of things that can be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftoverKind {
    /// A machine of a session: its process, its cage, its directory.
    Machine,
    /// A machine that waited for a session.
    Reserve,
    /// A template in the making, or a probe.
    Unfinished,
    /// A QEMU whose directory is gone.
    Process,
    /// A cgroup without a machine.
    Cgroup,
    /// A network without a machine, or the host's rules when none has one.
    Network,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Run(String),
    Process(Identity),
    Cgroup(PathBuf),
    Network(net::Found),
    Staging(PathBuf),
}

/// All of it below `data_dir`, but for the machines that `claimed` names.
///
/// # Errors
/// When the host cannot be looked at.
pub async fn find(
    data_dir: &Path,
    claimed: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<Leftover>, Error> {
    if !data_dir.exists() {
        return Ok(Vec::new());
    }
    let layout = Layout::create(data_dir)?;
    // Before the records: see the module's header.
    let cgroups = Cgroups::find(&layout).map(|found| found.all()).unwrap_or_default();
    let processes = process::with_argument_like(&Invocation::mark(&layout.run()));
    let directories = RunDir::all(&layout)?;
    let records: Vec<_> = directories.iter().filter_map(RunDir::record).collect();

    let mut left: Vec<Leftover> = directories
        .iter()
        .filter(|directory| !claimed(directory.name()))
        .filter(|directory| {
            let id = directory.name().strip_prefix(RUN_PREFIX);
            id.is_none_or(|id| !is_being_made(&layout, id))
        })
        .map(|directory| {
            let kind = match directory.record().map(|record| record.kind) {
                Some(Kind::Reserve) => LeftoverKind::Reserve,
                Some(Kind::Bake | Kind::Probe) => LeftoverKind::Unfinished,
                Some(Kind::Machine) | None => LeftoverKind::Machine,
            };
            let name = directory.name().to_owned();
            Leftover { kind, what: What::Run(name.clone()), name }
        })
        .collect();
    let known = |identity: &Identity| {
        records.iter().any(|record| record.process.as_ref() == Some(identity))
    };
    for identity in processes.into_iter().filter(|identity| !known(identity)) {
        let name = format!("pid {}", identity.pid);
        left.push(Leftover { kind: LeftoverKind::Process, name, what: What::Process(identity) });
    }
    for path in cgroups {
        if !records.iter().any(|record| record.cell.cgroups.contains(&path)) {
            let name = path.display().to_string();
            left.push(Leftover { kind: LeftoverKind::Cgroup, name, what: What::Cgroup(path) });
        }
    }
    let kept = directories.iter().filter(|directory| claimed(directory.name()));
    let kept: Vec<_> =
        kept.filter_map(|directory| directory.record().and_then(|record| record.network)).collect();
    for found in net::leftovers(layout.root(), &kept).await? {
        let name = found.name();
        left.push(Leftover { kind: LeftoverKind::Network, name, what: What::Network(found) });
    }
    left.extend(staging(&layout)?);
    left.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    Ok(left)
}

/// Whether somebody makes this template just now: `callbox template bake`, say.
fn is_being_made(layout: &Layout, id: &str) -> bool {
    let lock = layout.templates().join(format!("{id}.lock"));
    lock.exists() && matches!(FileLock::try_exclusive(&lock), Ok(None))
}

/// Directories of templates that were never finished, or never wholly removed.
fn staging(layout: &Layout) -> Result<Vec<Leftover>, Error> {
    let root = layout.templates();
    let entries = fs::read_dir(&root).map_err(Error::io("list", &root))?;
    let unfinished = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let dead = |id| !is_being_made(layout, id);
        name.strip_prefix(BAKING).map_or_else(|| name.starts_with(".removed-"), dead)
    });
    Ok(unfinished
        .map(|entry| Leftover {
            kind: LeftoverKind::Unfinished,
            name: entry.file_name().to_string_lossy().into_owned(),
            what: What::Staging(entry.path()),
        })
        .collect())
}

/// Ends and removes it. The caller makes sure that nobody uses the data directory who could
/// have just begun with it.
///
/// # Errors
/// When it does not go away.
pub async fn remove(data_dir: &Path, leftover: &Leftover) -> Result<(), Error> {
    match &leftover.what {
        What::Run(name) => RunDir::destroy(&Layout::create(data_dir)?, name).await,
        What::Process(identity) => {
            let ended = identity.end().await;
            ended.map_err(Error::io("end a process of", data_dir))
        }
        What::Cgroup(path) => Cage::clear(&Cell { uid: None, cgroups: vec![path.clone()] }).await,
        What::Network(found) => Ok(net::clear(Layout::create(data_dir)?.root(), found).await?),
        What::Staging(path) => match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Accelerator;
    use crate::run::Record;

    #[tokio::test]
    async fn everything_that_nobody_claims_is_found_and_removed() {
        let data = tempfile::tempdir().expect("tempdir");
        assert_eq!(find(&data.path().join("not-there"), &|_| false).await.expect("found"), []);
        let layout = Layout::create(data.path()).expect("layout");
        for (name, kind) in [("a", Kind::Machine), ("b", Kind::Machine), (".rv-1", Kind::Reserve)] {
            let record = Record::new(kind, Accelerator::Tcg, None, Cell::default());
            RunDir::create(&layout, name, &record).expect("free");
        }
        fs::create_dir(layout.templates().join(".baking-0")).expect("created");
        let names = |left: &[Leftover]| -> Vec<(LeftoverKind, String)> {
            left.iter().map(|one| (one.kind, one.name.clone())).collect()
        };
        let left = find(data.path(), &|name| name == "a").await.expect("found");
        let expected = [
            (LeftoverKind::Machine, "b"),
            (LeftoverKind::Reserve, ".rv-1"),
            (LeftoverKind::Unfinished, ".baking-0"),
        ];
        assert_eq!(names(&left), expected.map(|(kind, name)| (kind, name.to_owned())));
        for one in &left {
            remove(data.path(), one).await.expect("removed");
        }
        assert_eq!(find(data.path(), &|name| name == "a").await.expect("found"), []);
        assert!(RunDir::at(&layout, "a").path().exists(), "what is claimed was removed");
    }
}
