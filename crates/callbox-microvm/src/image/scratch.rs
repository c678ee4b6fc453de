//! Working directories of builds and imports.
//!
//! Each lives in `images/.scratch/<random>` and is held by a lock on a file inside, which the
//! kernel drops when the process ends, however it ends. What nobody holds is swept away when
//! a store opens. On the same file system as the images, so that finishing is one rename.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};

use super::ImageError;
use super::error::io;

const LOCK: &str = "lock";

/// A working directory; removed when dropped.
pub(super) struct Scratch {
    dir: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a new directory below `parent`, readable by this user only: an unfinished root
    /// file system has setuid programs in it.
    pub fn new(parent: &Path) -> Result<Scratch, ImageError> {
        fs::create_dir_all(parent).map_err(io("create", parent))?;
        // A sweep of another process must not see the directory before it is locked.
        let _sweeping = lock_file(&parent.join("sweep.lock"))?;
        let dir = tempfile::Builder::new()
            .prefix("build-")
            .tempdir_in(parent)
            .map_err(io("create a directory in", parent))?
            .keep();
        let lock = lock_file(&dir.join(LOCK))?;
        Ok(Scratch { dir, _lock: lock })
    }

    /// Makes and returns a directory of that name inside.
    pub fn directory(&self, name: &str) -> Result<PathBuf, ImageError> {
        let path = self.dir.join(name);
        fs::create_dir(&path).map_err(io("create", &path))?;
        Ok(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot remove a working directory; the next build tries again");
        }
    }
}

/// Removes what builds that did not come to an end left in `parent`.
pub(super) fn sweep(parent: &Path) -> Result<(), ImageError> {
    if !parent.exists() {
        return Ok(());
    }
    let _sweeping = lock_file(&parent.join("sweep.lock"))?;
    for entry in fs::read_dir(parent).map_err(io("read", parent))? {
        let dir = entry.map_err(io("read", parent))?.path();
        if dir.is_dir() && abandoned(&dir) {
            tracing::info!(dir = %dir.display(), "removing what an interrupted build left behind");
            remove(&dir)?;
        }
    }
    Ok(())
}

/// Waits for the lock on `path`, creating the file if needed. Held until the file is dropped.
pub(super) fn lock_file(path: &Path) -> Result<File, ImageError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io("open", path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| io("lock", path)(error.into()))?;
    Ok(file)
}

/// Nobody holds the lock in `dir`.
fn abandoned(dir: &Path) -> bool {
    match File::open(dir.join(LOCK)) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        // Its maker died between creating and locking it (both happen under the sweep lock).
        Err(_) => true,
    }
}

/// Unmounts everything below `dir`, then removes it. Builds mount in a namespace of their own,
/// so there should be nothing to unmount; but removing through a bind mount would be a
/// catastrophe, so this is checked rather than believed.
fn remove(dir: &Path) -> Result<(), ImageError> {
    let mounts = Path::new("/proc/self/mountinfo");
    let table = fs::read_to_string(mounts).map_err(io("read", mounts))?;
    let real = dir.canonicalize().map_err(io("find", dir))?;
    for point in mounts_below(&table, &real).into_iter().rev() {
        unmount(&point, UnmountFlags::DETACH)
            .map_err(|error| io("unmount", &point)(error.into()))?;
    }
    fs::remove_dir_all(dir).map_err(io("remove", dir))
}

/// Mount points at or below `dir`, outer ones first.
fn mounts_below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| PathBuf::from(unescape_octal(field)))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.sort();
    points
}

/// The kernel writes spaces and the like as `\040`.
fn unescape_octal(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_dropped_directory_is_gone_and_a_held_one_survives_a_sweep() {
        let parent = tempfile::tempdir().unwrap();
        let held = Scratch::new(parent.path()).unwrap();
        held.directory("root").unwrap();
        let path = {
            let dropped = Scratch::new(parent.path()).unwrap();
            dropped.path().to_owned()
        };
        assert!(!path.exists());
        sweep(parent.path()).unwrap();
        assert!(held.path().join("root").exists());
    }

    #[test]
    fn what_nobody_holds_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let orphan = parent.path().join("build-orphan");
        fs::create_dir(&orphan).unwrap();
        fs::write(orphan.join(LOCK), "").unwrap();
        let unlocked = parent.path().join("build-never-locked");
        fs::create_dir(&unlocked).unwrap();
        sweep(parent.path()).unwrap();
        assert!(!orphan.exists());
        assert!(!unlocked.exists());
    }

    #[test]
    fn mount_points_below_are_found_outer_first() {
        let table = "22 1 0:5 / /proc rw - proc proc rw\n\
                     30 1 0:6 / /data/a\\040b/root/proc rw - proc proc rw\n\
                     31 1 0:7 / /data/a\\040b/root rw - tmpfs tmpfs rw\n\
                     32 1 0:7 / /data/a\\040bc rw - tmpfs tmpfs rw\n";
        assert_eq!(
            mounts_below(table, Path::new("/data/a b")),
            [Path::new("/data/a b/root"), Path::new("/data/a b/root/proc")]
        );
    }
}
