//! Python packages of a recipe image: wheels, fetched by the host's pip.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::io;
use super::program::{self, Program};
use super::python::Python;
use super::{ImageError, Recipe, erofs, facts, tree};

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
    let wheels = build_wheels(recipe, &interpreter, scratch)?;
    let mut pip = pip(&interpreter, "install", scratch, "installing the Python packages")?;
    pip.args(["--no-compile", "--root-user-action=ignore"])
        .args(["--find-links".as_ref(), wheels.as_os_str()])
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

/// pip with what every call of it needs. The user's own configuration and environment apply.
fn pip(
    interpreter: &Path,
    command: &str,
    scratch: &Path,
    doing: &str,
) -> Result<Program, ImageError> {
    let mut pip = Program::contained_at(interpreter, "pip", doing)?;
    pip.env("TMPDIR", scratch.join("tmp"))
        .env("SOURCE_DATE_EPOCH", erofs::seconds(erofs::EPOCH))
        .args(["-I", "-m", "pip", command, "--no-input", "--quiet", "--progress-bar=off"]);
    Ok(pip)
}

/// Builds the packages that the recipe allows to be built; returns where their wheels are.
fn build_wheels(
    recipe: &Recipe,
    interpreter: &Path,
    scratch: &Path,
) -> Result<PathBuf, ImageError> {
    let wheels = scratch.join("wheels");
    fs::create_dir(&wheels).map_err(io("create", &wheels))?;
    let sources = &recipe.said.python.build_wheels;
    if !sources.is_empty() {
        let doing = format!("building wheels of {}", sources.join(", "));
        pip(interpreter, "wheel", scratch, &doing)?
            .args(["--no-deps", "--wheel-dir"])
            .args([&wheels])
            .args(["--"])
            .args(sources)
            .run(&[])?;
    }
    Ok(wheels)
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
    // Not `linux_ARCH`, which is what a wheel built on this host for its own libraries says.
    list.push("any".into());
    list
}

/// The `36` of the image's glibc 2.36, as dpkg knows it; an old one where it does not.
fn glibc_minor(root: &Path) -> u32 {
    let status = fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap_or_default();
    facts::debian_packages(&status)
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
}
