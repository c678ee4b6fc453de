//! Importing container images from files: `docker save` archives and OCI layouts, as tar
//! (compressed or not) or as a directory.
//!
//! None of the image's own code runs here, and none of its paths is trusted: layers are
//! unpacked through [`rooted`]. Each layer is checked against the digest in the image's
//! configuration.

mod blobs;
mod layer;
mod layout;
mod rooted;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use self::blobs::{Blobs, decompressed};
use self::layer::Layers;
use self::layout::{Found, Runtime, Unusable};
use self::rooted::{Rooted, relative};
use super::build::{file_name, need_root};
use super::digest::Hashing;
use super::erofs::Times;
use super::error::io as io_error;
use super::store::{NewImage, check_name};
use super::{Image, ImageConfig, ImageError, ImageStore, Source, erofs, facts, tree, users};
use crate::Progress;

impl ImageStore {
    /// Imports the container image in the file or directory `archive` as the current image
    /// called `name`. Needs root.
    pub fn import(
        &self,
        archive: &Path,
        name: &str,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        check_name(name)?;
        need_root("importing an image")?;
        let _lock = self.lock(name)?;
        let scratch = self.scratch()?;
        progress.stage("reading the archive");
        let broken = |reason: String, source| ImageError::Archive {
            archive: archive.into(),
            reason,
            source,
        };
        let unusable = |error| match error {
            Unusable::Broken(reason, source) => broken(reason, source),
            Unusable::Platform(found) => ImageError::Platform {
                archive: archive.into(),
                found,
                wanted: layout::wanted_platform(),
            },
        };
        let blobs = Blobs::open(archive, scratch.path())
            .map_err(|error| broken("it cannot be read".into(), Some(error)))?;
        let found = layout::read(&blobs).map_err(unusable)?;
        let started = SystemTime::now();
        let root = scratch.directory("root")?;
        tree::set_mode(&root, 0o755)?;
        unpack(&blobs, &found, &root, progress).map_err(unusable)?;
        let config = image_config(found.config.config.unwrap_or_default(), &root)
            .map_err(|reason| broken(reason, None))?;
        make_mount_points(&root, &config.cwd).map_err(io_error("prepare", &root))?;
        forget_when(&root, started)?;
        progress.stage("counting what is inside");
        let facts = facts::collect(&root)?;
        progress.stage("packing the root file system");
        let staged = scratch.directory("image")?;
        tree::set_mode(&staged, 0o755)?;
        erofs::pack(&root, &staged, Times::Kept)?;
        progress.stage("keeping the image");
        self.keep(
            &staged,
            NewImage {
                name: name.into(),
                inputs: String::new(),
                source: Source::Container {
                    archive: file_name(archive),
                    references: found.references,
                    image_id: found.image_id,
                },
                config,
                facts,
            },
        )
    }
}

fn unpack(
    blobs: &Blobs,
    found: &Found,
    root: &Path,
    progress: &dyn Progress,
) -> Result<(), Unusable> {
    let root = Rooted::open(root)?;
    let mut layers = Layers::new(&root);
    let count = found.layers.len();
    for (number, (path, diff_id)) in
        found.layers.iter().zip(&found.config.rootfs.diff_ids).enumerate()
    {
        let number = number + 1;
        progress.stage(&format!("unpacking layer {number} of {count}"));
        let failed = |error| {
            Unusable::Broken(format!("layer {number} of {count} cannot be unpacked"), Some(error))
        };
        let stored = blobs
            .read(path)
            .map_err(failed)?
            .ok_or_else(|| Unusable::Broken(format!("layer {path:?} is missing"), None))?;
        let plain = decompressed(stored).map_err(failed)?.reader;
        let mut hashing = Hashing::new(plain);
        layers.unpack(&mut hashing).map_err(failed)?;
        let (digest, _) = hashing.finish().map_err(failed)?;
        if format!("sha256:{digest}") != *diff_id {
            return Err(Unusable::Broken(
                format!(
                    "layer {number} of {count} is damaged: it has sha256:{digest}, the configuration says {diff_id}"
                ),
                None,
            ));
        }
    }
    layers.finish()?;
    Ok(())
}

fn image_config(runtime: Runtime, root: &Path) -> Result<ImageConfig, String> {
    let (uid, gid) = users::resolve(root, runtime.user.as_deref().unwrap_or_default())
        .map_err(|error| error.to_string())?;
    let mut argv = runtime.entrypoint.unwrap_or_default();
    argv.extend(runtime.cmd.unwrap_or_default());
    let mut env = BTreeMap::new();
    for variable in runtime.env.unwrap_or_default() {
        let (name, value) = variable
            .split_once('=')
            .ok_or_else(|| format!("its environment has {variable:?}, which is no NAME=value"))?;
        env.insert(name.to_owned(), value.to_owned());
    }
    let cwd = runtime.working_dir.filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into());
    let cwd = relative(Path::new(&cwd))
        .ok_or_else(|| format!("its working directory {cwd:?} leads out of the image"))?;
    Ok(ImageConfig { argv, env, cwd: format!("/{}", cwd.display()), uid, gid })
}

/// Directories that the agent mounts on, and the working directory: engines make them when
/// they run a container, so images may lack them. The packed root is read-only.
fn make_mount_points(root: &Path, cwd: &str) -> io::Result<()> {
    let root = Rooted::open(root)?;
    for dir in ["dev", "proc", "sys", "run", "tmp", cwd] {
        if let Some(path) = relative(Path::new(dir)) {
            root.directory(&path)?;
        }
    }
    Ok(())
}

/// Gives the directories that no layer brought (so they were made just now) a fixed time: the
/// same archive gives the same bytes.
fn forget_when(root: &Path, started: SystemTime) -> Result<(), ImageError> {
    let mut directories: Vec<_> = tree::walk(root)?
        .into_iter()
        .filter(|(_, meta)| meta.is_dir())
        .map(|(path, _)| root.join(path))
        .collect();
    directories.push(root.to_owned());
    // The file system's clock may lag behind ours by a tick.
    let recent = started - Duration::from_secs(1);
    for path in directories {
        let dir = File::open(&path).map_err(io_error("open", &path))?;
        let made_here =
            dir.metadata().and_then(|meta| meta.modified()).map_err(io_error("read", &path))?
                >= recent;
        if made_here {
            dir.set_modified(SystemTime::UNIX_EPOCH + erofs::EPOCH)
                .map_err(io_error("set the time of", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
