//! The Python part of a recipe image: wheels from the host's pip, byte code made ahead.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::error::io;
use super::program::{self, Program};
use super::{ImageError, Recipe, erofs, tree};

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

/// Installs the recipe's requirements into the image at `root`.
pub(super) fn install(recipe: &Recipe, root: &Path, scratch: &Path) -> Result<(), ImageError> {
    let lines = recipe.requirements()?;
    if lines.is_empty() {
        return Ok(());
    }
    let python = Python::of(root).ok_or_else(|| ImageError::Unfit {
        reason: "the recipe has [python] requirements, but its [debian] packages bring no python3"
            .into(),
    })?;
    let list = scratch.join("requirements.txt");
    fs::write(&list, lines.join("\n")).map_err(io("write", &list))?;
    let target = root.join(python.dist_packages());
    fs::create_dir_all(&target).map_err(io("create", &target))?;
    let interpreter = host_python(&python.version)?;
    let mut pip = Program::at(&interpreter, "pip", "installing the Python packages");
    pip.env("TMPDIR", scratch.join("tmp"))
        .env("SOURCE_DATE_EPOCH", erofs::seconds(erofs::EPOCH))
        .args(["-I", "-m", "pip", "install", "--no-input", "--no-compile"])
        .args(["--quiet", "--progress-bar=off", "--root-user-action=ignore"])
        // Wheels only: a source package would run its own code, as root, on this host, and
        // build for the host's libraries instead of the image's.
        .args(["--only-binary=:all:", "--implementation=cp"])
        .args([format!("--python-version={}", python.version)])
        .args([format!("--abi=cp{}", python.version.replace('.', ""))])
        .args(["--abi=abi3", "--abi=none"])
        .args(platforms(glibc_minor(root)).iter().map(|platform| format!("--platform={platform}")))
        .args(["--target".as_ref(), target.as_os_str()])
        .args(["--requirement".as_ref(), list.as_os_str()]);
    if recipe.said.python.no_deps {
        pip.args(["--no-deps"]);
    }
    pip.run(&[])?;
    move_scripts(&target, root)
}

/// A Python of this host that has pip and the image's version: pip judges conditions such as
/// `python_version < "3.12"` by the Python that it runs in. Debian's own comes first.
fn host_python(version: &str) -> Result<PathBuf, ImageError> {
    let mut candidates = vec![PathBuf::from("/usr/bin/python3")];
    candidates.extend(program::find(&format!("python{version}")));
    candidates.extend(program::find("python3"));
    candidates.dedup();
    let mut tried = Vec::new();
    for candidate in candidates {
        let shown = candidate.display();
        match pip_version(&candidate) {
            // "pip 23.0.1 from /usr/lib/python3/dist-packages/pip (python 3.11)"
            Some(line) if line.trim_end().ends_with(&format!("(python {version})")) => {
                return Ok(candidate);
            }
            Some(line) => tried.push(format!("{shown}: {}", line.trim())),
            None => tried.push(format!("{shown}: no pip")),
        }
    }
    Err(ImageError::NoPip { version: version.into(), tried })
}

fn pip_version(interpreter: &Path) -> Option<String> {
    Program::at(interpreter, "pip", "asking pip for its version")
        .args(["-I", "-m", "pip", "--version"])
        .run(&[])
        .ok()
}

/// The platforms whose wheels run on the image's C library, best first. pip does not derive
/// the older ones itself.
fn platforms(glibc_minor: u32) -> Vec<String> {
    let arch = std::env::consts::ARCH;
    let mut list: Vec<String> =
        (5..=glibc_minor).rev().map(|minor| format!("manylinux_2_{minor}_{arch}")).collect();
    for old in ["manylinux2014", "manylinux2010", "manylinux1"] {
        list.push(format!("{old}_{arch}"));
    }
    list.push(format!("linux_{arch}"));
    list.push("any".into());
    list
}

/// The `36` of the image's glibc 2.36, as dpkg knows it; an old one where it does not.
fn glibc_minor(root: &Path) -> u32 {
    let status = fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap_or_default();
    super::facts::debian_packages(&status)
        .iter()
        .find(|package| package.name == "libc6")
        .and_then(|package| package.version.strip_prefix("2."))
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(17)
}

/// pip puts the programs of packages into `bin` below its target, with this host's Python on
/// their first line.
fn move_scripts(target: &Path, root: &Path) -> Result<(), ImageError> {
    let from = target.join("bin");
    if !from.is_dir() {
        return Ok(());
    }
    let to = root.join("usr/local/bin");
    fs::create_dir_all(&to).map_err(io("create", &to))?;
    for (path, meta) in tree::walk(&from)? {
        if !meta.is_file() {
            continue;
        }
        let source = from.join(&path);
        let text = fs::read(&source).map_err(io("read", &source))?;
        let script = to.join(path.file_name().unwrap_or_default());
        fs::write(&script, with_guest_interpreter(text)).map_err(io("write", &script))?;
        tree::set_mode(&script, 0o755)?;
    }
    tree::remove(&from)
}

fn with_guest_interpreter(text: Vec<u8>) -> Vec<u8> {
    let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
        return text;
    };
    let first = String::from_utf8_lossy(&text[..end]);
    if !(first.starts_with("#!") && first.contains("python")) {
        return text;
    }
    let mut changed = b"#!/usr/bin/python3".to_vec();
    changed.extend_from_slice(&text[end..]);
    changed
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
    fn the_interpreter_of_scripts_is_the_guests() {
        let script = b"#!/home/me/.pyenv/bin/python3.11\nimport x\n".to_vec();
        assert_eq!(with_guest_interpreter(script), b"#!/usr/bin/python3\nimport x\n");
        let binary = b"\x7fELF\npython".to_vec();
        assert_eq!(with_guest_interpreter(binary.clone()), binary);
    }

    #[test]
    fn platforms_go_from_the_guests_c_library_down() {
        let list = platforms(36);
        assert!(list[0].starts_with("manylinux_2_36_"));
        assert_eq!(list.last().unwrap(), "any");
        assert!(list.iter().any(|platform| platform.starts_with("manylinux2014_")));
    }

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
