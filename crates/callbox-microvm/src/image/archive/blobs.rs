//! Reading the parts of a container image: from a directory, or from within a tar file.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::rooted::{Rooted, relative};

/// Documents (manifests, indexes, configurations) are a few kilobytes.
const MOST_DOCUMENT: u64 = 16 << 20;

/// The parts of a container image, by path.
pub(super) enum Blobs {
    /// Files of a directory (an OCI layout).
    Directory(Rooted),
    /// Files in an uncompressed tar: where their bytes are.
    Tar { file: PathBuf, parts: BTreeMap<PathBuf, Part> },
}

/// Where a part of a tar file is.
pub(super) enum Part {
    Bytes {
        offset: u64,
        size: u64,
    },
    /// Old `docker save` shares equal layers by links.
    Link(PathBuf),
}

impl Blobs {
    /// Opens `path`. A compressed archive is first unpacked into `scratch`.
    pub fn open(path: &Path, scratch: &Path) -> io::Result<Blobs> {
        if path.is_dir() {
            return Ok(Blobs::Directory(Rooted::open(path)?));
        }
        let mut stream = decompressed(File::open(path)?)?;
        if !stream.compressed {
            return index(path.to_owned());
        }
        let plain = scratch.join("archive.tar");
        io::copy(&mut stream.reader, &mut File::create(&plain)?)?;
        index(plain)
    }

    /// Opens the part called `name`; `None` if there is none.
    pub fn read(&self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        let Some(path) = relative(Path::new(name)) else {
            return Err(bad(format!("the path {name:?} leads out of the archive")));
        };
        match self {
            Blobs::Directory(dir) => Ok(match dir.read(&path)? {
                Some(file) => Some(Box::new(file)),
                None => None,
            }),
            Blobs::Tar { file, parts } => {
                let Some((offset, size)) = locate(parts, &path) else {
                    return Ok(None);
                };
                let mut file = File::open(file)?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(Some(Box::new(file.take(size))))
            }
        }
    }

    /// The whole part called `name`, which is a document.
    pub fn document(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(part) = self.read(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        part.take(MOST_DOCUMENT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_DOCUMENT {
            return Err(bad(format!("{name} is larger than a document can be")));
        }
        Ok(Some(bytes))
    }
}

/// A stream with its compression taken off.
pub(super) struct Decompressed {
    /// The plain bytes.
    pub reader: Box<dyn Read>,
    /// There was a compression.
    pub compressed: bool,
}

/// Takes off gzip or zstd, told by the first bytes: what manifests say about it is often wrong.
pub(super) fn decompressed(stream: impl Read + 'static) -> io::Result<Decompressed> {
    let mut magic = Vec::new();
    let mut stream = BufReader::with_capacity(1 << 17, stream);
    stream.by_ref().take(4).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(stream);
    let (reader, compressed): (Box<dyn Read>, bool) = match magic.as_slice() {
        [0x1f, 0x8b, ..] => (Box::new(MultiGzDecoder::new(whole)), true),
        [0x28, 0xb5, 0x2f, 0xfd] => (Box::new(zstd::Decoder::new(whole)?), true),
        _ => (Box::new(whole), false),
    };
    Ok(Decompressed { reader, compressed })
}

fn index(file: PathBuf) -> io::Result<Blobs> {
    let mut archive = tar::Archive::new(File::open(&file)?);
    let length = std::fs::metadata(&file)?.len();
    let mut parts = BTreeMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let Some(path) = relative(&entry.path()?) else {
            return Err(bad(format!("entry {:?} leads out of the archive", entry.path()?)));
        };
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(size).is_none_or(|end| end > length) {
                return Err(bad(format!("the archive ends within {path:?}")));
            }
            parts.insert(path, Part::Bytes { offset, size });
        } else if (kind.is_symlink() || kind.is_hard_link())
            && let Some(target) = entry.link_name()?
        {
            let from = match kind.is_symlink() {
                true => path.parent().unwrap_or(Path::new("")),
                false => Path::new(""),
            };
            let target = normalized(&from.join(target));
            parts.insert(path, Part::Link(target));
        }
    }
    if parts.is_empty() {
        return Err(bad("it is not a tar archive, or an empty one".into()));
    }
    Ok(Blobs::Tar { file, parts })
}

fn locate(parts: &BTreeMap<PathBuf, Part>, path: &Path) -> Option<(u64, u64)> {
    let mut seen = HashSet::new();
    let mut path = path;
    while seen.insert(path) {
        match parts.get(path)? {
            Part::Bytes { offset, size } => return Some((*offset, *size)),
            Part::Link(target) => path = target,
        }
    }
    None
}

/// Takes out `..` by name. Only looked up in the index, never opened.
fn normalized(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => plain.push(name),
            std::path::Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}

fn bad(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
