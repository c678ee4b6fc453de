//! Where images are kept.

use std::fs;
use std::io as stdio;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::io;
use super::facts::Facts;
use super::manifest::{FORMAT, Manifest};
use super::scratch::{Scratch, lock_file, sweep};
use super::{Image, ImageConfig, ImageError, Source, digest, erofs, tree};

const CURRENT: &str = "current";

/// The images of one data directory. Any number of processes may use it at once.
#[derive(Clone, Debug)]
pub struct ImageStore {
    dir: PathBuf,
}

impl ImageStore {
    /// Opens the store below `data_dir`, creating it if needed, and removes what an
    /// interrupted build left there.
    pub fn open(data_dir: &Path) -> Result<ImageStore, ImageError> {
        let dir = data_dir.join("images");
        fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        let store = ImageStore { dir };
        if let Err(error) = sweep(&store.scratch_dir()) {
            // For example: root built here, and a plain user wants to see the list.
            tracing::debug!(%error, "cannot sweep what interrupted builds left");
        }
        Ok(store)
    }

    /// The current image called `name`.
    pub fn get(&self, name: &str) -> Result<Image, ImageError> {
        check_name(name)?;
        let pointer = self.dir.join(name).join(CURRENT);
        let version = match fs::read_link(&pointer) {
            Ok(target) => target,
            Err(error) if error.kind() == stdio::ErrorKind::NotFound => {
                return Err(ImageError::NotFound { name: name.into() });
            }
            Err(error) => return Err(io("read", &pointer)(error)),
        };
        // By its version, not through the pointer: the path stays right when the pointer moves.
        let dir = self.dir.join(name).join(version);
        Ok(Manifest::read(&dir, name)?.into_image(&dir))
    }

    /// The image called `name` in this version, current or not.
    pub fn get_version(&self, name: &str, version: &str) -> Result<Image, ImageError> {
        check_name(name)?;
        if version.len() == 64 && version.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let dir = self.dir.join(name).join(version);
            // One from before there were versions lies under the digest of its root file system.
            if let Ok(image) = Manifest::read(&dir, name).map(|found| found.into_image(&dir))
                && image.version() == version
            {
                return Ok(image);
            }
        }
        let kept = self.versions(name)?.into_iter();
        let no_version = || ImageError::NoVersion { name: name.into(), version: version.into() };
        kept.into_iter().find(|image| image.version() == version).ok_or_else(no_version)
    }

    /// All versions of `name` that are kept, the current one first, then the newest.
    pub fn versions(&self, name: &str) -> Result<Vec<Image>, ImageError> {
        let current = self.get(name)?;
        let dir = self.dir.join(name);
        let mut others = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io("read", &dir))? {
            let path = entry.map_err(io("read", &dir))?.path();
            // Removed or damaged since: none that could be used.
            if !path.is_symlink()
                && let Ok(manifest) = Manifest::read(&path, name)
            {
                others.push(manifest.into_image(&path));
            }
        }
        others.retain(|image| image.rootfs != current.rootfs);
        others.sort_by_key(|image| std::cmp::Reverse(image.created_at_ms));
        Ok(std::iter::once(current).chain(others).collect())
    }

    /// All current images, by name. Damaged ones are left out, with a warning in the log.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io("read", &self.dir))? {
            let entry = entry.map_err(io("read", &self.dir))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if check_name(&name).is_err() {
                continue;
            }
            match self.get(&name) {
                Ok(image) => images.push(image),
                Err(ImageError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(image.name = name, %error, "image left out"),
            }
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Removes the image `name` with all its earlier versions. Machines that run from it keep
    /// their open file; templates of it can no longer be cloned. Removing what is not there
    /// is success.
    pub fn remove(&self, name: &str) -> Result<(), ImageError> {
        check_name(name)?;
        let _lock = self.lock(name)?;
        let scratch = Scratch::new(&self.scratch_dir())?;
        // One rename, so that nobody meets a half removed image.
        let from = self.dir.join(name);
        match fs::rename(&from, scratch.path().join("removed")) {
            Err(error) if error.kind() != stdio::ErrorKind::NotFound => {
                Err(io("remove", &from)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the versions of `name` that are neither current nor in use, as `used` says, and
    /// gives them. Machines that run from one keep their open file.
    pub fn retain(
        &self,
        name: &str,
        used: impl Fn(&Image) -> bool,
    ) -> Result<Vec<Image>, ImageError> {
        let _lock = self.lock(name)?;
        let scratch = Scratch::new(&self.scratch_dir())?;
        let old = self.versions(name)?.into_iter().skip(1);
        let unused: Vec<Image> = old.filter(|image| !used(image)).collect();
        for image in &unused {
            let dir = image.rootfs.with_file_name("");
            let name = dir.file_name().unwrap_or_default();
            fs::rename(&dir, scratch.path().join(name)).map_err(io("remove", &dir))?;
        }
        Ok(unused)
    }

    /// Reads the whole root file system and compares it with the manifest.
    pub fn verify(&self, image: &Image) -> Result<(), ImageError> {
        let damaged = |reason: String| ImageError::Damaged { name: image.name.clone(), reason };
        let (found, size) = digest::of_file(&image.rootfs)?;
        if size != image.size {
            return Err(damaged(format!(
                "the root file system has {size} bytes, the manifest says {}",
                image.size
            )));
        }
        if found != image.digest {
            return Err(damaged(format!(
                "the root file system has sha256 {found}, the manifest says {}",
                image.digest
            )));
        }
        Ok(())
    }

    /// Waits until no other process builds, imports or removes `name`.
    pub(super) fn lock(&self, name: &str) -> Result<fs::File, ImageError> {
        check_name(name)?;
        let dir = self.scratch_dir();
        fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        lock_file(&dir.join(format!("{name}.lock")))
    }

    /// A working directory on the same file system.
    pub(super) fn scratch(&self) -> Result<Scratch, ImageError> {
        Scratch::new(&self.scratch_dir())
    }

    /// Takes over the finished directory `staged` (which has the root file system in it) as
    /// the current image. The caller holds the lock of that name.
    pub(super) fn keep(&self, staged: &Path, new: NewImage) -> Result<Image, ImageError> {
        let rootfs = staged.join(erofs::ROOTFS);
        fs::File::open(&rootfs).and_then(|file| file.sync_all()).map_err(io("write", &rootfs))?;
        let (digest, size) = digest::of_file(&rootfs)?;
        let manifest = Manifest {
            format: FORMAT,
            name: new.name,
            digest,
            size,
            created_at_ms: now_ms(),
            inputs: new.inputs,
            source: new.source,
            config: new.config,
            facts: new.facts,
        };
        manifest.write(staged)?;
        let home = self.dir.join(&manifest.name);
        let dir = home.join(manifest.version());
        fs::create_dir_all(&home).map_err(io("create", &home))?;
        let same = |dir: &Path| {
            Manifest::read(dir, &manifest.name).is_ok_and(|said| said.digest == manifest.digest)
                && digest::of_file(&dir.join(erofs::ROOTFS))
                    .is_ok_and(|(found, _)| found == manifest.digest)
        };
        if same(&dir) {
            // Same content from other inputs: machines may run from this very file, so only
            // what is said about it changes.
            manifest.write(&dir)?;
        } else {
            tree::remove(&dir)?;
            share(&rootfs, &home, same)?;
            fs::rename(staged, &dir).map_err(io("move into place", &dir))?;
        }
        point(&home, &manifest.version())?;
        Ok(manifest.into_image(&dir))
    }

    fn scratch_dir(&self) -> PathBuf {
        self.dir.join(".scratch")
    }
}

/// What a build or an import knows about the image that it made.
pub(super) struct NewImage {
    pub name: String,
    pub inputs: String,
    pub source: Source,
    pub config: ImageConfig,
    pub facts: Facts,
}

/// Refuses names that could leave the store or that machines could not carry.
pub(super) fn check_name(name: &str) -> Result<(), ImageError> {
    let good = (1..=40).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if good { Ok(()) } else { Err(ImageError::BadName { name: name.into() }) }
}

/// Of two versions that differ only in how the bot is started, the file is kept once.
fn share(rootfs: &Path, home: &Path, same: impl Fn(&Path) -> bool) -> Result<(), ImageError> {
    for entry in fs::read_dir(home).map_err(io("read", home))?.flatten() {
        let sibling = entry.path();
        if !sibling.is_symlink() && same(&sibling) {
            fs::remove_file(rootfs).map_err(io("replace", rootfs))?;
            let whole = sibling.join(erofs::ROOTFS);
            return fs::hard_link(&whole, rootfs).map_err(io("share", &whole));
        }
    }
    Ok(())
}

/// Makes `version` the current one in `home`. A reader sees the old or the new one.
fn point(home: &Path, version: &str) -> Result<(), ImageError> {
    let next = home.join(format!(".{CURRENT}.{}", std::process::id()));
    let _ = fs::remove_file(&next);
    symlink(version, &next).map_err(io("create", &next))?;
    let pointer = home.join(CURRENT);
    fs::rename(&next, &pointer).map_err(io("replace", &pointer))
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn keep(store: &ImageStore, name: &str, content: &str) -> Image {
        keep_with(store, name, content, ImageConfig::default())
    }

    fn keep_with(store: &ImageStore, name: &str, content: &str, config: ImageConfig) -> Image {
        let scratch = store.scratch().unwrap();
        let staged = scratch.directory("image").unwrap();
        fs::write(staged.join(erofs::ROOTFS), content).unwrap();
        let new = NewImage {
            name: name.into(),
            inputs: format!("hash of {content}"),
            source: Source::Container {
                archive: "a.tar".into(),
                references: vec!["a:latest".into()],
                image_id: "sha256:0".into(),
            },
            config,
            facts: Facts::default(),
        };
        store.keep(&staged, new).unwrap()
    }

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let (_dir, store) = store();
        let kept = keep(&store, "a", "one");
        assert_eq!(store.get("a").unwrap(), kept);
        assert_eq!(kept.size, 3);
        assert_eq!(fs::read_to_string(&kept.rootfs).unwrap(), "one");
        assert_eq!(store.list().unwrap(), [kept]);
        assert!(matches!(store.get("b"), Err(ImageError::NotFound { .. })));
    }

    #[test]
    fn names_cannot_leave_the_store() {
        let (_dir, store) = store();
        for name in ["", "..", "a/b", ".scratch", "-a", "A", &"a".repeat(41)] {
            assert!(matches!(store.get(name), Err(ImageError::BadName { .. })), "{name:?}");
            assert!(matches!(store.remove(name), Err(ImageError::BadName { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_reader_always_meets_a_whole_image() {
        let (_dir, store) = store();
        keep(&store, "a", "0");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) || reads == 0 {
                    store.verify(&store.get("a").unwrap()).unwrap();
                    reads += 1;
                }
            });
            for round in 1..50 {
                keep(&store, "a", &round.to_string());
            }
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
        });
        assert_eq!(fs::read_to_string(&store.get("a").unwrap().rootfs).unwrap(), "49");
    }

    #[test]
    fn damage_is_found_when_asked() {
        let (_dir, store) = store();
        let image = keep(&store, "a", "one");
        store.verify(&image).unwrap();
        fs::write(&image.rootfs, "two").unwrap();
        assert!(matches!(store.verify(&image), Err(ImageError::Damaged { .. })));
        // Made again, it is whole again.
        store.verify(&keep(&store, "a", "one")).unwrap();
        fs::write(image.rootfs.with_file_name("image.json"), "{").unwrap();
        assert!(matches!(store.get("a"), Err(ImageError::Damaged { .. })));
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn old_versions_stay_until_nobody_uses_them_and_removing_takes_all() {
        let (dir, store) = store();
        let [old, older, new] = ["old", "older", "newer"].map(|what| keep(&store, "a", what));
        assert_eq!(store.get_version("a", &old.version()).unwrap(), old);
        assert_eq!(store.versions("a").unwrap().len(), 3);
        assert_eq!(store.versions("a").unwrap()[0], new);
        let gone = store.retain("a", |image| image.version() == old.version()).unwrap();
        assert_eq!(gone, std::slice::from_ref(&older));
        assert!(old.rootfs.exists() && !older.rootfs.exists() && new.rootfs.exists());
        let missing = store.get_version("a", &older.version());
        assert!(matches!(missing, Err(ImageError::NoVersion { .. })), "{missing:?}");
        assert_eq!(store.retain("a", |_| false).unwrap(), [old]);
        assert_eq!(store.versions("a").unwrap(), [new]);
        store.remove("a").unwrap();
        store.remove("a").unwrap();
        assert!(!dir.path().join("images/a").exists());
    }

    #[test]
    fn another_command_is_another_version_of_the_same_file() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, store) = store();
        let command = |word: &str| ImageConfig { argv: vec![word.into()], ..Default::default() };
        let old = keep_with(&store, "a", "same", command("old"));
        let new = keep_with(&store, "a", "same", command("new"));
        assert_ne!(old.version(), new.version());
        assert_eq!(store.get_version("a", &old.version()).unwrap(), old);
        assert_eq!(store.get("a").unwrap(), new);
        let inode = |image: &Image| fs::metadata(&image.rootfs).unwrap().ino();
        assert_eq!(inode(&old), inode(&new), "it is kept once");
        store.retain("a", |_| false).unwrap();
        store.verify(&new).unwrap();
    }

    #[test]
    fn an_image_from_before_there_were_versions_is_found_by_its_version() {
        let (_dir, store) = store();
        let kept = keep(&store, "a", "one");
        let home = kept.rootfs.parent().unwrap().parent().unwrap();
        fs::rename(kept.rootfs.parent().unwrap(), home.join(&kept.digest)).unwrap();
        point(home, &kept.digest).unwrap();
        let found = store.get("a").unwrap();
        assert_eq!(found.version(), kept.version());
        assert_eq!(store.get_version("a", &kept.version()).unwrap(), found);
        // Built again, it moves to where it belongs, and the earlier place is one of many.
        assert_eq!(keep(&store, "a", "one").rootfs, kept.rootfs);
        assert_eq!(store.versions("a").unwrap().len(), 2);
    }

    #[test]
    fn equal_content_keeps_the_file_that_machines_may_use() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, store) = store();
        let inode = |image: &Image| fs::metadata(&image.rootfs).unwrap().ino();
        let before = inode(&keep(&store, "a", "same"));
        assert_eq!(inode(&keep(&store, "a", "same")), before);
    }
}
