//! The Python of an image: where it keeps code, and byte code made ahead.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::program::Program;
use super::{ImageError, tree};

/// The Python of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Python {
    /// For example `3.11`.
    pub version: String,
}

impl Python {
    /// The `python3` of the image at `root`, if it has one.
    pub fn of(root: &Path) -> Option<Python> {
        let link = fs::read_link(root.join("usr/bin/python3")).ok()?;
        let version = link.file_name()?.to_str()?.strip_prefix("python")?;
        version.starts_with("3.").then(|| Python { version: version.into() })
    }

    /// Where the recipe's packages go, relative to the root.
    pub fn dist_packages(&self) -> PathBuf {
        format!("usr/local/lib/python{}/dist-packages", self.version).into()
    }

    /// Where Python code of the image lives, relative to the root.
    pub fn code_dirs(&self) -> Vec<PathBuf> {
        let mut dirs =
            vec![format!("usr/lib/python{}", self.version).into(), "usr/lib/python3".into()];
        dirs.push(self.dist_packages());
        dirs
    }
}

/// Removes the tests that packages carry. Only directories called exactly `tests` inside
/// packages: `testing` modules are API.
pub(super) fn strip_tests(root: &Path, python: &Python) -> Result<(), ImageError> {
    let dir = root.join(python.dist_packages());
    if !dir.is_dir() {
        return Ok(());
    }
    for (path, meta) in tree::walk(&dir)? {
        if meta.is_dir() && path.file_name().is_some_and(|name| name == "tests") {
            tree::remove(&dir.join(path))?;
        }
    }
    Ok(())
}

/// Makes the byte code of everything below `dirs` (relative to `root`). It is valid whatever
/// the times of files say, since nobody changes a file in a read-only root; so the first
/// import in a machine neither compiles nor looks.
pub(super) fn compile(root: &Path, dirs: &[PathBuf]) -> Result<(), ImageError> {
    let mut sources = Vec::new();
    for dir in dirs {
        let full = root.join(dir);
        if full.is_file() && is_source(dir) {
            sources.push(dir.clone());
        } else if full.is_dir() {
            for (path, meta) in tree::walk(&full)? {
                if meta.is_dir() && path.file_name().is_some_and(|name| name == "__pycache__") {
                    tree::remove(&full.join(&path))?;
                } else if !meta.is_dir() && is_source(&path) {
                    // Links too: Python looks for byte code beside the link.
                    sources.push(dir.join(path));
                }
            }
        }
    }
    sources.sort();
    sources.dedup();
    let parts = thread::available_parallelism().map_or(1, usize::from);
    let part = sources.len().div_ceil(parts).max(1);
    thread::scope(|scope| {
        let running: Vec<_> =
            sources.chunks(part).map(|files| scope.spawn(|| compile_files(root, files))).collect();
        running
            .into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py")
}

/// With the image's own Python, so that the byte code's version is right by construction.
/// `-S`: packages may hook into the start of Python; none of their code runs here.
fn compile_files(root: &Path, files: &[PathBuf]) -> Result<(), ImageError> {
    let mut list = Vec::new();
    for file in files {
        list.extend_from_slice(b"/");
        list.extend_from_slice(file.as_os_str().as_bytes());
        list.push(b'\n');
    }
    let mut python = Program::contained("chroot", "coreutils", "compiling the Python code")?;
    python
        .bare()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("PYTHONHASHSEED", "0")
        .args([root.as_os_str(), "/usr/bin/python3".as_ref()])
        .args(["-S", "-s", "-m", "compileall", "-q", "-q", "-f", "-i", "-"])
        .args(["--invalidation-mode", "unchecked-hash"])
        .input(list);
    // 1: some file does not compile. Packages carry templates and examples for other Pythons;
    // the count of missing byte code is in the image's facts.
    python.run(&[1]).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_version_is_read_from_the_images_link() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Python::of(root.path()), None);
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        std::os::unix::fs::symlink("python3.11", root.path().join("usr/bin/python3")).unwrap();
        let python = Python::of(root.path()).unwrap();
        assert_eq!(python.version, "3.11");
    }
}
