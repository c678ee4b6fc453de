//! What is inside an image, counted while its files are at hand. Reading them back out of the
//! packed file system would need a mount.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ImageError, tree};

/// Counts of an image's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Number of files, directories and links.
    pub entries: u64,
    /// Sum of the sizes of its files in bytes, before packing.
    pub unpacked_bytes: u64,
    /// Python packages with their metadata, biggest first.
    pub python_packages: Vec<PythonPackage>,
    /// Debian packages, biggest first.
    pub debian_packages: Vec<DebianPackage>,
    /// Python source files where Python looks for modules.
    pub python_sources: u64,
    /// How many of them have no byte code beside them.
    pub missing_pyc: u64,
}

/// A Python package of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonPackage {
    /// Name as the package spells it.
    pub name: String,
    /// Version.
    pub version: String,
    /// Size of its files with their byte code.
    pub bytes: u64,
}

/// A Debian package of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianPackage {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Size according to the package (`Installed-Size`).
    pub bytes: u64,
}

/// Counts what is below `root`. Reads only plain files, never through a link: the content may
/// come from strangers.
pub(super) fn collect(root: &Path) -> Result<Facts, ImageError> {
    let mut facts = Facts::default();
    let mut files = BTreeSet::new();
    let mut metadata_dirs = Vec::new();
    for (path, meta) in tree::walk(root)? {
        facts.entries += 1;
        if meta.is_file() {
            facts.unpacked_bytes += meta.len();
        }
        if !meta.is_dir()
            && path.extension().is_some_and(|extension| extension == "py" || extension == "pyc")
        {
            files.insert(path);
        } else if meta.is_dir() && path.extension().is_some_and(|ext| ext == "dist-info") {
            metadata_dirs.push(path);
        }
    }
    for dir in metadata_dirs {
        facts.python_packages.extend(python_package(root, &dir));
    }
    facts.python_packages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(&b.name)));
    let status = plain_text(&root.join("var/lib/dpkg/status"));
    facts.debian_packages = debian_packages(&status);
    for path in files.iter().filter(|path| importable(path)) {
        facts.python_sources += 1;
        facts.missing_pyc += u64::from(!has_byte_code(path, &files));
    }
    Ok(facts)
}

/// The packages in a dpkg status file, biggest first.
pub(super) fn debian_packages(status: &str) -> Vec<DebianPackage> {
    let mut packages: Vec<DebianPackage> = status
        .split("\n\n")
        .filter(|stanza| {
            field(stanza, "Status").is_some_and(|status| status.ends_with(" installed"))
        })
        .filter_map(|stanza| {
            Some(DebianPackage {
                name: field(stanza, "Package")?.into(),
                version: field(stanza, "Version")?.into(),
                bytes: field(stanza, "Installed-Size")
                    .and_then(|kib| kib.parse::<u64>().ok())
                    .map_or(0, |kib| kib.saturating_mul(1024)),
            })
        })
        .collect();
    packages.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.name.cmp(&b.name)));
    packages
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// What the `.dist-info` directory at `dir` describes.
fn python_package(root: &Path, dir: &Path) -> Option<PythonPackage> {
    let metadata = plain_text(&root.join(dir).join("METADATA"));
    let home = dir.parent()?;
    let mut bytes = 0;
    for line in plain_text(&root.join(dir).join("RECORD")).lines() {
        // path,hash,size; a path with a comma is quoted, and rare enough to be left out.
        let Some(path) = line.split(',').next().filter(|path| !path.contains("..")) else {
            continue;
        };
        let path = home.join(path.trim_start_matches('/'));
        bytes += size(&root.join(&path));
        bytes +=
            byte_code_dir(&path).map_or(0, |(dir, stem)| byte_code_size(&root.join(dir), &stem));
    }
    Some(PythonPackage {
        name: field(&metadata, "Name")?.into(),
        version: field(&metadata, "Version").unwrap_or("?").into(),
        bytes,
    })
}

fn byte_code_dir(source: &Path) -> Option<(PathBuf, String)> {
    if source.extension()? != "py" {
        return None;
    }
    let stem = source.file_stem()?.to_str()?.to_owned();
    Some((source.parent()?.join("__pycache__"), stem))
}

fn byte_code_size(dir: &Path, stem: &str) -> u64 {
    let prefix = format!("{stem}.cpython-");
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| size(&entry.path()))
        .sum()
}

fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
}

/// The text of a plain file of reasonable size; empty for anything else.
fn plain_text(path: &Path) -> String {
    const MOST: u64 = 64 << 20;
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() < MOST) {
        return String::new();
    }
    fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into())
}

/// A source file in a place that Python searches by default.
fn importable(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py")
        && !path.starts_with("etc")
        && path.iter().any(|part| {
            let part = part.to_string_lossy();
            part == "site-packages" || part == "dist-packages" || part.starts_with("python3")
        })
}

/// `a/b.py` has `a/__pycache__/b.<tag>.pyc`.
fn has_byte_code(path: &Path, files: &BTreeSet<PathBuf>) -> bool {
    let Some((dir, stem)) = byte_code_dir(path) else {
        return true;
    };
    let first = dir.join(format!("{stem}.cpython-"));
    files
        .range(first.clone()..)
        .next()
        .is_some_and(|next| next.to_string_lossy().starts_with(&*first.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn packages_and_missing_byte_code_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let site = "usr/local/lib/python3.11/dist-packages";
        put(&format!("{site}/m/__init__.py"), "12345");
        put(&format!("{site}/m/__pycache__/__init__.cpython-311.pyc"), "1234567");
        put(&format!("{site}/m/bare.py"), "1");
        put(
            &format!("{site}/m-1.dist-info/METADATA"),
            "Metadata-Version: 2.1\nName: M\nVersion: 1\n",
        );
        put(
            &format!("{site}/m-1.dist-info/RECORD"),
            "m/__init__.py,sha256=x,5\nm/bare.py,,\n../../../bin/m,,\n",
        );
        put("app/not_a_module.py", "");
        put(
            "var/lib/dpkg/status",
            "Package: small\nStatus: install ok installed\nVersion: 1\nInstalled-Size: 1\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
             Package: big\nStatus: install ok installed\nVersion: 2\nInstalled-Size: 5\n",
        );
        let facts = collect(root.path()).unwrap();
        assert_eq!((facts.python_sources, facts.missing_pyc), (2, 1));
        let [m] = &facts.python_packages[..] else { panic!("{facts:?}") };
        assert_eq!((m.name.as_str(), m.bytes), ("M", 5 + 7 + 1));
        let debian: Vec<_> =
            facts.debian_packages.iter().map(|p| (p.name.as_str(), p.bytes)).collect();
        assert_eq!(debian, [("big", 5120), ("small", 1024)]);
    }
}
