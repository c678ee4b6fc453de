//! Where things are under the data directory, and the names machines may have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Longest path of a unix socket, in bytes: `sun_path` has 108 with the final zero.
const MAX_SOCKET_PATH: usize = 107;
/// Longest name of a machine, in bytes.
pub const MAX_NAME: usize = 40;
/// Longest thing that is ever appended to `run/`: the prefix of a directory that is going away,
/// a name and the longest socket's name.
const LONGEST_IN_RUN: usize = ".gone-".len() + MAX_NAME + "/console.sock".len();

/// The data directory:
///
/// ```text
/// kernel/      kernel, modules, initramfs (made once)
/// templates/   one directory per template, named by the hash of its manifest
/// run/         one directory per machine, named by the machine
/// images/      root file systems (the image store)
/// probe/       the verdict on KVM
/// cage/        what caged machines see of the host's files
/// ```
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Creates what is missing, readable by the owner only (templates hold a bot's memory).
    ///
    /// # Errors
    /// When a directory cannot be created, or the path is so long that sockets would not fit.
    pub fn create(root: &Path) -> Result<Layout, Error> {
        let existing = fs::create_dir_all(root).and_then(|()| root.canonicalize());
        let root = existing.map_err(Error::io("create the data directory", root))?;
        Layout::check_depth(&root)?;
        let layout = Layout { root };
        for directory in [
            layout.kernel(),
            layout.templates(),
            layout.run(),
            layout.images(),
            layout.probe(),
            layout.cage(),
        ] {
            fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        }
        for private in [layout.templates(), layout.run(), layout.cage()] {
            fs::set_permissions(&private, fs::Permissions::from_mode(0o700))
                .map_err(Error::io("protect", &private))?;
        }
        Ok(layout)
    }

    /// Whether the sockets of machines would fit under `root`.
    ///
    /// # Errors
    /// [`Error::SocketPath`] if not.
    pub fn check_depth(root: &Path) -> Result<(), Error> {
        let length = root.as_os_str().len() + "/run/".len() + LONGEST_IN_RUN;
        if length > MAX_SOCKET_PATH {
            let root = root.to_path_buf();
            return Err(Error::SocketPath { root, too_long_by: length - MAX_SOCKET_PATH });
        }
        Ok(())
    }

    /// The data directory itself, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// Kernel, modules, initramfs.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.root.join("kernel")
    }
    /// One directory per template.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }
    /// One directory per machine.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    /// The image store.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    /// What caged machines see of the host's files.
    #[must_use]
    pub fn cage(&self) -> PathBuf {
        self.root.join("cage")
    }
    /// What was found out about KVM.
    #[must_use]
    pub fn probe(&self) -> PathBuf {
        self.root.join("probe")
    }
}

/// Whether machines may be called so: 1 to 40 of `a-z`, `0-9` and `-`.
///
/// # Errors
/// [`Error::Name`] otherwise. Names become directory names, so this is a wall.
pub fn check_name(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Error::Name(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_a_wall() {
        for good in ["a", "s-0123456789abcdef-1", &"x".repeat(40)] {
            check_name(good).expect("allowed");
        }
        for bad in ["", "..", "a/b", "A", "a b", "a\n", ".gone-a", &"x".repeat(41)] {
            assert!(matches!(check_name(bad), Err(Error::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_data_directory_that_is_too_deep_is_refused_with_a_hint() {
        let base = tempfile::tempdir().expect("tempdir");
        let deep = base.path().join("d".repeat(80));
        let error = Layout::create(&deep).expect_err("too long").to_string();
        assert!(error.contains("shorter"), "{error}");
        let layout = Layout::create(&base.path().join("data")).expect("short enough");
        let mode = fs::metadata(layout.run()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
