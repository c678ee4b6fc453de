//! sha256 of files and streams.

use std::fs::File;
use std::io::{self as stdio, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ImageError;
use super::error::io;

/// Passes a stream on and hashes it.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Hashing<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R) -> Self {
        Hashing { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// Reads the rest; digest (lower-case hex) and number of bytes of the whole.
    pub fn finish(mut self) -> stdio::Result<(String, u64)> {
        let mut buffer = vec![0; 1 << 20];
        while self.read(&mut buffer)? > 0 {}
        Ok((hex::encode(self.hash.finalize()), self.bytes))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> stdio::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Digest (lower-case hex) and size of a file.
pub(super) fn of_file(path: &Path) -> Result<(String, u64), ImageError> {
    File::open(path).and_then(|file| Hashing::new(file).finish()).map_err(io("read", path))
}
