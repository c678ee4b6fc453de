//! The one module with `unsafe`: calls to the kernel that have no safe form in any library.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::ioctl::{self, NoArg, Opcode, Setter};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many bytes a wake brings at most.
const MAX: usize = 64;
const WORDS: usize = MAX / 4;

/// `_IOW('R', 0x03, int[2])`
const RNDADDENTROPY: Opcode = 0x4008_5203;
/// `_IO('R', 0x07)`
const RNDRESEEDCRNG: Opcode = 0x5207;

/// `struct rand_pool_info` of `linux/random.h`, with its buffer.
#[repr(C)]
struct PoolInfo {
    entropy_bits: i32,
    buffer_bytes: i32,
    buffer: [u32; WORDS],
}

/// Adds `secret` to the kernel's pool, credits it in full, and has the generator rekey itself
/// from the pool at once. Without the second step, two clones of one template could go on
/// drawing the same numbers for up to a minute.
pub(crate) fn reseed_kernel(secret: &[u8]) -> io::Result<()> {
    let secret = &secret[..secret.len().min(MAX)];
    let mut buffer = [0; WORDS];
    for (word, bytes) in buffer.iter_mut().zip(secret.chunks(4)) {
        let mut padded = [0; 4];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_ne_bytes(padded);
    }
    let info = PoolInfo {
        entropy_bits: secret.len() as i32 * 8,
        buffer_bytes: secret.len() as i32,
        buffer,
    };
    let random = File::options().write(true).open("/dev/urandom")?;
    // SAFETY: RNDADDENTROPY reads a `rand_pool_info` with `buffer_bytes` bytes behind it; both
    // are in `PoolInfo`, which lives until the call returns.
    unsafe { ioctl::ioctl(&random, Setter::<RNDADDENTROPY, PoolInfo>::new(info)) }?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { ioctl::ioctl(&random, NoArg::<RNDRESEEDCRNG>::new()) }?;
    Ok(())
}

/// The same as far as it is allowed: without the right to it, the secret is mixed in without credit,
/// and counts from the next time that the kernel rekeys itself. Enough where nobody was cloned.
pub(crate) fn stir(secret: &[u8]) -> io::Result<()> {
    match reseed_kernel(secret) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            File::options().write(true).open("/dev/urandom")?.write_all(secret)
        }
        other => other,
    }
}

/// Has the runtime watch `file` for becoming readable. Must be called inside the runtime.
pub(crate) fn watch_readable(file: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: An `OwnedFd` gives the same open descriptor for as long as it lives, and nobody
    // can take it out of the `AsyncFd` without ending the registration.
    let watched = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
    watched.map_err(io::Error::other)
}
