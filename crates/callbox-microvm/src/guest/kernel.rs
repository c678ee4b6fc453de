//! Where the guest kernel comes from.
//!
//! ```text
//! <data_dir>/kernel/current ──yes──────────────────────────────────► use it
//!        │ no
//! a directory given in the configuration ──yes──► take kernel and modules from it
//!        │ none given
//! download Debian's cloud kernel with apt, unpack it, install nothing
//!        │ no apt here, or no network
//! the host's own kernel in /boot and /lib/modules
//! ```
//!
//! What was found is copied under `kernel/current` by one rename, so that a later update of the
//! host changes nothing under the feet of a template. Remove that directory to take a newer
//! kernel. When nothing is found, the error says what each place lacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::guest::modules;
use crate::layout::Layout;
use crate::lock::FileLock;

/// The package whose newest kernel is taken. Its config has PVH, virtio and ACPI for `microvm`.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel that machines can boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// SHA-256 of the bzImage, hex.
    pub digest: String,
    /// The modules to load, in order; file names start with a running number.
    pub modules: Vec<PathBuf>,
}

/// What stays beside the files.
#[derive(Serialize, Deserialize)]
struct Record {
    release: String,
    digest: String,
    source: String,
}

impl Kernel {
    /// The kernel under `layout`, obtained first where there is none yet. Blocks: it may download
    /// and unpack 30 MB.
    ///
    /// # Errors
    /// [`Error::Kernel`] when no place has a usable kernel.
    pub fn obtain(layout: &Layout, given: Option<&Path>) -> Result<Kernel, Error> {
        let _lock = FileLock::exclusive(&layout.kernel().join("lock"))?;
        let current = layout.kernel().join("current");
        if !current.join("kernel.json").exists() {
            let staging = tempfile::Builder::new()
                .prefix(".new-")
                .tempdir_in(layout.kernel())
                .map_err(Error::io("make a directory in", &layout.kernel()))?;
            fill(staging.path(), given)?;
            fs::rename(staging.path(), &current).map_err(Error::io("create", &current))?;
        }
        Kernel::read(&current)
    }

    /// What is known about the kernel under `data_dir`, for people; `None` if there is none yet.
    #[must_use]
    pub fn described(data_dir: &Path) -> Option<String> {
        let text = fs::read(data_dir.join("kernel/current/kernel.json")).ok()?;
        let Record { release, digest: _, source } = serde_json::from_slice(&text).ok()?;
        Some(format!("{release} (from {source})"))
    }

    fn read(current: &Path) -> Result<Kernel, Error> {
        let path = current.join("kernel.json");
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let record: Record = serde_json::from_slice(&text).map_err(|error| {
            Error::Unusable(format!("{} is damaged ({error}): remove {current:?}", path.display()))
        })?;
        let directory = current.join("modules");
        let mut modules: Vec<PathBuf> = fs::read_dir(&directory)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(Error::io("list", &directory))?;
        modules.sort();
        let image = current.join("vmlinuz");
        Ok(Kernel { release: record.release, image, digest: record.digest, modules })
    }
}

/// Tries one place after the other; the first usable one wins.
fn fill(staging: &Path, given: Option<&Path>) -> Result<(), Error> {
    if let Some(root) = given {
        return take(root, staging, &format!("{}", root.display()));
    }
    let package = (|| {
        let unpacked = tempfile::tempdir_in(staging).map_err(Error::io("use", staging))?;
        let package = download(unpacked.path())?;
        take(unpacked.path(), staging, &package)
    })();
    let Err(no_package) = package else { return Ok(()) };
    tracing::info!(error = %crate::error::chain(&no_package), "no kernel package, trying the host's own kernel");
    take(Path::new("/"), staging, "the host's own kernel").map_err(|no_host| {
        Error::Unusable(format!(
            "no kernel for the machines: {}; {}; hint: run `apt-get update` and try again, or \
             name a directory with boot/vmlinuz-* and lib/modules/* in the configuration",
            crate::error::chain(&no_package),
            crate::error::chain(&no_host)
        ))
    })
}

/// Downloads the newest kernel package into `to` and unpacks it there. Returns its name.
fn download(to: &Path) -> Result<String, Error> {
    let depends = run("apt-cache", Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .ok_or_else(|| Error::Unusable(format!("apt does not know the package {PACKAGE:?}")))?
        .to_owned();
    run("apt-get", Command::new("apt-get").args(["download", &package]).current_dir(to))?;
    let file = fs::read_dir(to)
        .map_err(Error::io("list", to))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| Error::Unusable(format!("apt-get download left no file of {package:?}")))?;
    run("dpkg-deb", Command::new("dpkg-deb").arg("-x").arg(&file).arg(to))?;
    Ok(package)
}

/// Copies kernel and modules out of `root`, which is laid out like a root file system.
fn take(root: &Path, staging: &Path, source: &str) -> Result<(), Error> {
    let (release, image) = newest_image(root)?;
    let tree = ["lib/modules", "usr/lib/modules"]
        .map(|modules| root.join(modules).join(&release))
        .into_iter()
        .find(|tree| tree.join("modules.builtin").exists())
        .ok_or_else(|| {
            Error::Unusable(format!("there are no modules for {release} under {}", root.display()))
        })?;
    let bytes = fs::read(&image).map_err(Error::io("read", &image))?;
    let directory = staging.join("modules");
    fs::create_dir(&directory).map_err(Error::io("create", &directory))?;
    for (index, module) in modules::collect(&tree)?.into_iter().enumerate() {
        let path = directory.join(format!("{index:03}-{}.ko", module.name));
        fs::write(&path, module.object).map_err(Error::io("write", &path))?;
    }
    let record =
        Record { release, digest: hex::encode(Sha256::digest(&bytes)), source: source.to_owned() };
    let path = staging.join("vmlinuz");
    fs::write(&path, bytes).map_err(Error::io("write", &path))?;
    let path = staging.join("kernel.json");
    let text = serde_json::to_vec_pretty(&record).expect("plain strings are always json");
    fs::write(&path, text).map_err(Error::io("write", &path))
}

/// The kernel image under `root/boot` with its release; of several the running one, else the
/// last by name.
fn newest_image(root: &Path) -> Result<(String, PathBuf), Error> {
    let boot = root.join("boot");
    let mut images: Vec<(String, PathBuf)> = fs::read_dir(&boot)
        .map_err(Error::io("look for a kernel in", &boot))?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let release = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            Some((release, path))
        })
        .collect();
    images.sort();
    let running = rustix::system::uname().release().to_string_lossy().into_owned();
    let chosen = images.iter().position(|(release, _)| *release == running);
    let chosen = chosen.or_else(|| images.len().checked_sub(1));
    chosen
        .map(|index| images.swap_remove(index))
        .ok_or_else(|| Error::Unusable(format!("there is no vmlinuz-* in {}", boot.display())))
}

fn run(program: &'static str, command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).output().map_err(Error::tool(program))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::tool_failed(program, &output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_image_is_taken_and_lacking_modules_are_said() {
        let root = tempfile::tempdir().expect("tempdir");
        assert!(newest_image(root.path()).is_err());
        fs::create_dir(root.path().join("boot")).expect("mkdir");
        for file in ["vmlinuz-6.1.0-1", "vmlinuz-6.1.0-2", "config-6.1.0-3"] {
            fs::write(root.path().join("boot").join(file), "x").expect("write");
        }
        assert_eq!(newest_image(root.path()).expect("found").0, "6.1.0-2");
        let staging = tempfile::tempdir().expect("tempdir");
        let error = take(root.path(), staging.path(), "test").expect_err("no modules").to_string();
        assert!(error.contains("no modules for 6.1.0-2"), "{error}");
    }
}
