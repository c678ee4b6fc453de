//! Packing a root directory into the read-only file system that machines boot from.

use std::path::Path;
use std::time::Duration;

use super::ImageError;
use super::program::Program;

/// File name of the packed root file system.
pub(super) const ROOTFS: &str = "rootfs.erofs";
/// All files of a recipe's image carry this time, so that the same inputs give the same bytes.
/// (2026-01-01T00:00:00Z: recent enough that nothing in a guest takes it for a broken clock.)
pub(super) const EPOCH: Duration = Duration::from_secs(1_767_225_600);
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

/// Guests without hardware virtualisation unpack in software, so it must be LZ4. Measured with
/// the parrot image under emulation (CPU seconds until Pipecat is imported twice, size):
/// not compressed 25, 275 MB; LZ4 24, 164 MB; this 22-24, 131 MB. Asking the disk less often
/// makes up for the unpacking. Higher levels cost minutes and save 2 %.
const COMPRESSION: [&str; 2] = ["-zlz4hc,3", "-C65536"];
/// Later than the time of any file (year 2100).
const LATER: Duration = Duration::from_secs(4_102_444_800);

/// Packs `root` into `<out>/rootfs.erofs`.
pub(super) fn pack(root: &Path, out: &Path, times: Times) -> Result<(), ImageError> {
    let mut mkfs = Program::find("mkfs.erofs", "erofs-utils", "packing the root file system")?;
    mkfs.args(COMPRESSION).args(["--quiet", "-x-1", "-U", UUID]);
    match times {
        Times::Fixed => mkfs.args(["-T".to_owned(), seconds(EPOCH)]),
        // `-T` would win over the files' own times. This is the time of the file system
        // itself, and files that are newer would get it.
        Times::Kept => mkfs.args(["--preserve-mtime"]).env("SOURCE_DATE_EPOCH", seconds(LATER)),
    };
    mkfs.args([&out.join(ROOTFS), root]);
    mkfs.run(&[]).map(drop)
}

/// A time as tools want it: whole seconds since the epoch.
pub(super) fn seconds(since: Duration) -> String {
    since.as_secs().to_string()
}
