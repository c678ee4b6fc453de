//! User ids for machines: one each, of nobody else on the host.
//!
//! The range is one that systemd's table of user ids (UIDS-GIDS) leaves free. Ids are drawn at
//! random, so that two dispatchers on one host need not speak to each other, and one that some
//! process has already is drawn again.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::Error;

/// First of the range.
const FIRST: u32 = 0x7000_0000;
/// Size of the range; a power of two.
const COUNT: u32 = 1 << 26;

/// An id that no process of this host has.
pub(super) fn draw() -> Result<u32, Error> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(Error::io("list", proc))?;
    // The owner of `/proc/PID` is the user that the process runs as.
    let taken: HashSet<u32> =
        entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.uid())).collect();
    loop {
        let id = FIRST + random() % COUNT;
        if !taken.contains(&id) {
            return Ok(id);
        }
    }
}

/// A name for what has no user id, or one that shows it.
pub(super) fn cell_name(uid: Option<u32>) -> String {
    format!("m{}", uid.unwrap_or_else(|| FIRST + random() % COUNT))
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags).expect("the kernel always has four random bytes");
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_the_range_and_of_nobody() {
        let (one, other) = (draw().expect("drawn"), draw().expect("drawn"));
        assert_ne!(one, other);
        for id in [one, other] {
            assert!((FIRST..FIRST + COUNT).contains(&id), "{id}");
        }
        assert!(cell_name(Some(one)).ends_with(&one.to_string()));
    }
}
