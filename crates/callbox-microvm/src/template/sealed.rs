//! Memory that nobody can write any more.
//!
//! A template's files are read once, checked against the digests of their manifest while they are
//! read, and kept in anonymous memory that the kernel then seals. Clones get a descriptor of it:
//! they map it copy-on-write, and a QEMU that was taken over cannot write to it, although QEMU
//! opens its memory for reading and writing. What was checked is what is cloned, whatever becomes
//! of the files, and the kernel frees it when the last clone has ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// How much is copied at once.
const CHUNK: usize = 1 << 20;

/// A sealed copy of a file.
#[derive(Debug)]
pub(crate) struct Sealed {
    memory: OwnedFd,
    /// Digest of what is in it.
    pub digest: String,
    /// How much of it is not holes, in bytes.
    pub held_bytes: u64,
}

impl Sealed {
    /// Copies `path` into sealed memory. Holes stay holes. Blocks for as long as reading takes.
    ///
    /// # Errors
    /// When the file cannot be read, or the host has no memory for it.
    pub fn of_file(path: &Path) -> Result<Sealed, Error> {
        // Our own directory; all the same, what is no plain file is not waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from);
        let file = File::from(file.map_err(Error::io("open", path))?);
        Sealed::copy(&file).map_err(Error::io("copy into memory", path))
    }

    fn copy(file: &File) -> io::Result<Sealed> {
        let memory = anonymous(file.metadata()?.len())?;
        let (digest, held_bytes) = copy_data(file, &memory)?;
        let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memory, all)?;
        Ok(Sealed { memory, digest, held_bytes })
    }

    /// A descriptor of it with a position of its own, to hand to a process.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.memory.as_fd().as_raw_fd());
        File::open(path).map(OwnedFd::from)
    }
}

/// The memory of a machine that becomes a template: the machine writes to it, and only we read
/// it afterwards. It has no name that the machine could put something else under.
#[derive(Debug)]
pub(crate) struct Raw {
    memory: File,
    length: u64,
}

impl Raw {
    /// As much memory as the machine has.
    ///
    /// # Errors
    /// When the host has no memory.
    pub fn new(memory_mib: u32) -> Result<Raw, Error> {
        let length = u64::from(memory_mib) << 20;
        let memory =
            anonymous(length).map_err(Error::io("make", Path::new("a machine's memory")))?;
        Ok(Raw { memory: memory.into(), length })
    }

    /// A descriptor of it, emptied, to hand to a process.
    ///
    /// # Errors
    /// When this process has no descriptors left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        // A boot that failed may have left something.
        self.memory.set_len(0)?;
        self.memory.set_len(self.length)?;
        self.memory.try_clone().map(OwnedFd::from)
    }

    /// Writes it to `path`, holes left out, and to the disk. Returns its digest. Blocks.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<String, Error> {
        let save = || {
            let file = File::options().write(true).create_new(true).open(path)?;
            file.set_len(self.length)?;
            let (digest, _) = copy_data(&self.memory, &file)?;
            file.sync_all()?;
            Ok(digest)
        };
        save().map_err(Error::io("write", path))
    }
}

/// Memory behind a descriptor, which can be sealed.
fn anonymous(length: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create(c"callbox-template", flags)?;
    rustix::fs::ftruncate(&memory, length)?;
    Ok(memory)
}

/// Copies what is not holes; tells its digest, and how much it was.
fn copy_data(from: &File, to: &impl AsFd) -> io::Result<(String, u64)> {
    let mut hash = Digester::new(from.metadata()?.len());
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut copied) = (0, 0);
    while let Some((start, end)) = next_data(from, at)? {
        at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let read = rustix::io::pread(from, &mut chunk[..want], at)?;
            if read == 0 {
                // It became shorter while it was read.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            write_all_at(to, &chunk[..read], at)?;
            hash.data(at, &chunk[..read]);
            at += read as u64;
            copied += read as u64;
        }
    }
    Ok((hash.finish(), copied))
}

/// The digest of what a file holds, without reading its holes: zeros count as nothing, so that
/// the same memory has one digest however its file is laid out.
struct Digester {
    hash: Sha256,
}

/// Blocks of zeros of this size are left out of the digest, wherever holes are.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

impl Digester {
    fn new(length: u64) -> Digester {
        let mut hash = Sha256::new();
        hash.update(length.to_le_bytes());
        Digester { hash }
    }

    fn data(&mut self, at: u64, bytes: &[u8]) {
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if block != &ZEROS[..block.len()] {
                self.hash.update((at + (index * BLOCK) as u64).to_le_bytes());
                self.hash.update(block);
            }
        }
    }

    fn finish(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

/// The next stretch of the file that is not a hole, from `at` on.
fn next_data(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    // Files change under nobody's hands here, but a step that does not go on would never end.
    Ok((end > start).then_some((start, end)))
}

fn write_all_at(memory: &impl AsFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let wrote = rustix::io::pwrite(memory, bytes, at)?;
        if wrote == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[wrote..];
        at += wrote as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file(write: &[(u64, &[u8])], length: u64) -> File {
        let file = tempfile::tempfile().expect("tempfile");
        file.set_len(length).expect("set");
        for (at, bytes) in write {
            file.write_all_at(bytes, *at).expect("written");
        }
        file
    }

    #[test]
    fn what_is_sealed_is_what_was_read_and_cannot_be_changed() {
        let source = file(&[(0, b"first"), (3 << 20, b"last")], 4 << 20);
        let sealed = Sealed::copy(&source).expect("sealed");
        assert!(sealed.held_bytes < 2 << 20, "holes were filled: {}", sealed.held_bytes);
        let mut read = Vec::new();
        File::from(sealed.descriptor().expect("open")).read_to_end(&mut read).expect("read");
        assert_eq!(read.len(), 4 << 20);
        assert_eq!((&read[..5], &read[3 << 20..(3 << 20) + 4]), (&b"first"[..], &b"last"[..]));
        // As QEMU opens it: the kernel lets it, and refuses every write.
        let path = format!("/proc/self/fd/{}", sealed.memory.as_raw_fd());
        let writable = File::options().read(true).write(true).open(path).expect("it opens");
        assert!(writable.write_all_at(b"x", 0).is_err(), "a template was written");
        assert!(writable.set_len(0).is_err(), "a template was cut");
    }

    #[test]
    fn the_digest_does_not_depend_on_holes_but_on_every_byte() {
        let digest = |source: File| Sealed::copy(&source).expect("sealed").digest;
        let zeros = vec![0; 1 << 20];
        let sparse = digest(file(&[(8192, b"x")], 2 << 20));
        assert_eq!(sparse, digest(file(&[(0, &zeros), (8192, b"x")], 2 << 20)));
        assert_ne!(sparse, digest(file(&[(8192, b"y")], 2 << 20)));
        assert_ne!(sparse, digest(file(&[(4096, b"x")], 2 << 20)));
        assert_ne!(sparse, digest(file(&[(8192, b"x")], 3 << 20)));
    }
}
