//! Files that only the bot's user can read.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use callbox_protocol::agent::Prepare;
use rustix::process::geteuid;

/// Writes `bytes` to a new file at `path`, in the place of what was there.
pub(crate) fn write(path: &Path, prepare: &Prepare, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    if geteuid().is_root() {
        chown(path, Some(prepare.uid), Some(prepare.gid))?;
    }
    file.write_all(bytes)
}
