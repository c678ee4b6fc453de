//! Unpacking one layer of a container image over the layers below it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::rooted::{Attributes, Place, Rooted, relative};

/// Most bytes and entries of one image. An archive of a few kilobytes can claim to hold
/// petabytes; better a clear refusal than a full disk.
const MOST_BYTES: u64 = 64 << 30;
const MOST_ENTRIES: u64 = 4_000_000;

/// A root directory that layers are unpacked into, in order.
pub(super) struct Layers<'a> {
    root: &'a Rooted,
    bytes: u64,
    entries: u64,
    /// Times of directories, set at the end: writing into a directory changes its time.
    directories: BTreeMap<PathBuf, i64>,
    /// What the layer at hand has brought so far: whiteouts are about the layers below it.
    brought: BTreeSet<PathBuf>,
}

impl<'a> Layers<'a> {
    /// Starts with an empty root.
    pub fn new(root: &'a Rooted) -> Self {
        Layers {
            root,
            bytes: 0,
            entries: 0,
            directories: BTreeMap::new(),
            brought: BTreeSet::new(),
        }
    }

    /// Unpacks one layer: an uncompressed tar stream. The stream is read to its end, so that
    /// whoever passes it can check its digest.
    pub fn unpack(&mut self, stream: &mut dyn Read) -> io::Result<()> {
        self.brought.clear();
        let mut archive = Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            self.entry(&mut entry, &path).map_err(|error| {
                io::Error::new(error.kind(), format!("entry {path:?}: {error}"))
            })?;
        }
        io::copy(&mut archive.into_inner(), &mut io::sink())?;
        Ok(())
    }

    /// Gives the directories their times. Call after the last layer.
    pub fn finish(self) -> io::Result<()> {
        for (path, mtime) in self.directories.iter().rev() {
            if let Some(place) = self.root.existing(path)? {
                place.set_time(*mtime)?;
            }
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.entries > MOST_ENTRIES || self.bytes > MOST_BYTES {
            return Err(bad("the image is larger than any that can be used here"));
        }
        let path = relative(path).ok_or_else(|| bad("its path leads out of the image"))?;
        let Some(place) = self.root.place(&path)? else {
            return Ok(());
        };
        if let Some(name) = path.file_name().and_then(|name| name.as_bytes().strip_prefix(b".wh."))
        {
            return self.whiteout(&path, &place, name);
        }
        self.create(entry, &path, &place)?;
        self.brought.insert(path);
        Ok(())
    }

    fn create<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        place: &Place,
    ) -> io::Result<()> {
        let attributes = attributes(entry)?;
        match entry.header().entry_type() {
            EntryType::Directory => {
                place.create_directory()?;
                place.set(&attributes, false)?;
                self.directories.insert(path.to_owned(), attributes.mtime);
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                // The reader takes the end of a truncated stream for the end of the file.
                let copied = io::copy(entry, &mut place.create_file()?)?;
                if copied != size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            EntryType::Symlink => {
                place.create_link(&link_target(entry)?)?;
                return place.set(&attributes, true);
            }
            EntryType::Link => {
                let target = link_target(entry)?;
                let target = relative(&target)
                    .ok_or_else(|| bad("it links to a path that leads out of the image"))?;
                let other = self
                    .root
                    .place(&target)?
                    .ok_or_else(|| bad("it links to the root directory"))?;
                // Owner and mode belong to the file, which has them.
                return place.create_hard_link(&other);
            }
            EntryType::Fifo => place.create_fifo()?,
            // The agent mounts /dev; a device file anywhere else has no honest use. Extended
            // headers for the whole archive say nothing that is used here.
            EntryType::Char | EntryType::Block | EntryType::XGlobalHeader => return Ok(()),
            other => return Err(bad(&format!("its type {other:?} is not known"))),
        }
        place.set(&attributes, false)
    }

    /// A file `.wh.NAME` removes NAME of the layers below; `.wh..wh..opq` removes all that
    /// they have in this directory.
    fn whiteout(&self, path: &Path, place: &Place, name: &[u8]) -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let keep = |path: &Path| {
            let next = self.brought.range(path.to_owned()..).next();
            next.is_some_and(|next| next.starts_with(path))
        };
        match name {
            b".wh..opq" => place.clear_around(dir, &keep),
            // Other names with the double prefix are bookkeeping of AUFS.
            _ if name.starts_with(b".wh.") => Ok(()),
            b"" | b"." | b".." => Err(bad("it removes nothing that has a name")),
            name => {
                let name = OsStr::from_bytes(name);
                if keep(&dir.join(name)) {
                    return Ok(());
                }
                place.sibling(name)?.clear()
            }
        }
    }
}

fn attributes<R: Read>(entry: &Entry<'_, R>) -> io::Result<Attributes> {
    let header = entry.header();
    let id = |value: u64| u32::try_from(value).map_err(|_| bad("its owner is not a user id"));
    Ok(Attributes {
        uid: id(header.uid()?)?,
        gid: id(header.gid()?)?,
        mode: header.mode()?,
        mtime: i64::try_from(header.mtime()?).unwrap_or(0),
    })
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry.link_name()?.ok_or_else(|| bad("it is a link without a target"))?;
    Ok(target.into_owned())
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
