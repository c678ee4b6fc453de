//! Walking and copying trees of files without following symbolic links.

use std::fs::{self, Metadata};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::ImageError;
use super::error::io;

/// Everything below `root` (not `root` itself), parents before children, in a fixed order,
/// as paths relative to `root`.
pub(super) fn walk(root: &Path) -> Result<Vec<(PathBuf, Metadata)>, ImageError> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        let full = root.join(&dir);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&full).map_err(io("read", &full))? {
            let entry = entry.map_err(io("read", &full))?;
            let meta = entry.metadata().map_err(io("read", entry.path()))?;
            entries.push((dir.join(entry.file_name()), meta));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        // Taken from the end, so that the walk goes in order.
        for (path, meta) in entries.iter().rev() {
            if meta.is_dir() {
                waiting.push(path.clone());
            }
        }
        found.extend(entries);
    }
    Ok(found)
}

/// Removes a file, link or directory with what is in it. Missing is fine.
pub(super) fn remove(path: &Path) -> Result<(), ImageError> {
    let done = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes what is in a directory, not the directory. Missing is fine.
pub(super) fn empty(dir: &Path) -> Result<(), ImageError> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(io("read", dir))? {
        remove(&entry.map_err(io("read", dir))?.path())?;
    }
    Ok(())
}

/// Things that no image wants from a working copy.
pub(super) fn unwanted(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    matches!(
        &*name,
        "__pycache__" | ".git" | ".venv" | ".pytest_cache" | ".ruff_cache" | ".mypy_cache"
    ) || name.ends_with(".pyc")
}

/// One thing of a tree that is copied into an image.
pub(super) struct Copied {
    /// Relative to the copied path; empty for that path itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: CopiedKind,
}

/// Kinds of [`Copied`].
pub(super) enum CopiedKind {
    Directory,
    File { executable: bool },
    Link(PathBuf),
}

/// What copying `from` (a file or a directory) would copy, in a fixed order.
pub(super) fn copy_list(from: &Path) -> Result<Vec<Copied>, ImageError> {
    let meta = fs::metadata(from).map_err(io("read", from))?;
    let mut list = vec![Copied { path: PathBuf::new(), kind: kind(from, &meta)? }];
    if meta.is_dir() {
        for (path, meta) in walk(from)? {
            if path.iter().any(unwanted) {
                continue;
            }
            list.push(Copied { kind: kind(&from.join(&path), &meta)?, path });
        }
    }
    Ok(list)
}

/// Copies `from` to `to`, both files or both directories. Only the executable bit of a file's
/// mode is kept: the rest depends on the umask of whoever checked the files out.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), ImageError> {
    for item in copy_list(from)? {
        let (source, target) = if item.path.as_os_str().is_empty() {
            (from.to_owned(), to.to_owned())
        } else {
            (from.join(&item.path), to.join(&item.path))
        };
        match item.kind {
            CopiedKind::Directory => {
                fs::create_dir_all(&target).map_err(io("create", &target))?;
                set_mode(&target, 0o755)?;
            }
            CopiedKind::File { executable } => {
                fs::copy(&source, &target).map_err(io("copy into the image", &source))?;
                set_mode(&target, if executable { 0o755 } else { 0o644 })?;
            }
            CopiedKind::Link(goal) => {
                remove(&target)?;
                symlink(&goal, &target).map_err(io("create", &target))?;
            }
        }
    }
    Ok(())
}

fn kind(path: &Path, meta: &Metadata) -> Result<CopiedKind, ImageError> {
    if meta.is_symlink() {
        let goal = fs::read_link(path).map_err(io("read", path))?;
        Ok(CopiedKind::Link(goal))
    } else if meta.is_dir() {
        Ok(CopiedKind::Directory)
    } else if meta.is_file() {
        Ok(CopiedKind::File { executable: meta.permissions().mode() & 0o111 != 0 })
    } else {
        Err(ImageError::Unfit {
            reason: format!("{path:?} is neither a file, a directory nor a link"),
        })
    }
}

/// Sets the mode bits of a file or directory.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("set the mode of", path))
}
