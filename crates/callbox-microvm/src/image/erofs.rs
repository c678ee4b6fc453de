//! Packing a root directory into the read-only file system that machines boot from.

use std::path::Path;

use super::ImageError;
use super::program::Program;

/// File name of the packed root file system.
pub(super) const ROOTFS: &str = "rootfs.erofs";
/// All files of a recipe's image carry this time, so that the same inputs give the same bytes.
/// (2026-01-01T00:00:00Z: recent enough that nothing in a guest takes it for a broken clock.)
pub(super) const EPOCH: &str = "1767225600";
/// Never used to find the file system; fixed for the same reason.
const UUID: &str = "00000000-0000-4000-8000-63616c6c626f";

/// What happens to the times of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// All become [`EPOCH`].
    Fixed,
    /// Kept: the `.pyc` files of a container image are only valid beside the right times.
    Kept,
}

/// Packs `root` into `<out>/rootfs.erofs`.
pub(super) fn pack(root: &Path, out: &Path, times: Times) -> Result<(), ImageError> {
    let mut mkfs = Program::find("mkfs.erofs", "erofs-utils", "packing the root file system")?;
    mkfs.args(["-zlz4", "--quiet", "-x-1", "-U", UUID, "-T", EPOCH]);
    if times == Times::Kept {
        mkfs.args(["--preserve-mtime"]);
    }
    mkfs.args([&out.join(ROOTFS), root]);
    mkfs.run(&[]).map(drop)
}
