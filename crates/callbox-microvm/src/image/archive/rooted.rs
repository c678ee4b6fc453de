//! Writing files below a directory that strangers have filled with links.
//!
//! Every path is resolved by the kernel as if the directory were `/` (`openat2` with
//! `RESOLVE_IN_ROOT`), and the last component is never followed. So a link to `/etc` inside an
//! image means the image's `/etc`, and no sequence of entries reaches a file of the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid,
    chmodat, chownat, linkat, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

/// A directory that stands for `/`.
pub(super) struct Rooted {
    root: OwnedFd,
}

/// Owner, mode and time of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub mtime: i64,
}

/// A place that can be written: the directory, opened, and a name in it.
pub(super) struct Place {
    dir: OwnedFd,
    name: PathBuf,
}

impl Rooted {
    /// Takes the directory at `root`.
    pub fn open(root: &Path) -> io::Result<Rooted> {
        let root = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
        Ok(Rooted { root })
    }

    /// The place of `path`, which has been through [`relative`]. Directories that are missing
    /// on the way are made, as container engines do. `None` for the root itself.
    pub fn place(&self, path: &Path) -> io::Result<Option<Place>> {
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok(Some(Place { dir: self.directory(parent)?, name: name.into() }))
    }

    /// The place of `path` if its directory exists.
    pub fn existing(&self, path: &Path) -> io::Result<Option<Place>> {
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        match self.resolve(path.parent().unwrap_or(Path::new("")), DIRECTORY) {
            Ok(dir) => Ok(Some(Place { dir, name: name.into() })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory, making it and its parents if they are missing. What stands in the
    /// way and is not a directory is replaced.
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.resolve(path, DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            other => return Ok(other?),
        }
        let Some(place) = self.place(path)? else {
            return Err(Errno::NOENT.into());
        };
        place.clear_unless_directory()?;
        match mkdirat(&place.dir, &place.name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.resolve(path, DIRECTORY)?)
    }

    /// Opens a plain file to be read; `None` if there is none.
    pub fn read(&self, path: &Path) -> io::Result<Option<File>> {
        // O_NONBLOCK: opening a FIFO of a hostile image must not wait for ever.
        match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC) {
            Ok(fd) => {
                let file = File::from(fd);
                Ok(file.metadata()?.is_file().then_some(file))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.root, path, flags, Mode::empty(), resolve)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Place {
    /// Creates a file in place of whatever is there.
    pub fn create_file(&self) -> io::Result<File> {
        self.clear()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.dir, &self.name, flags, Mode::from_raw_mode(0o600))?.into())
    }

    /// Makes a directory; one that is there stays with its content.
    pub fn create_directory(&self) -> io::Result<()> {
        self.clear_unless_directory()?;
        match mkdirat(&self.dir, &self.name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a symbolic link with any text as its target.
    pub fn create_link(&self, target: &Path) -> io::Result<()> {
        self.clear()?;
        Ok(symlinkat(target, &self.dir, &self.name)?)
    }

    /// Creates another name for the file at `other`.
    pub fn create_hard_link(&self, other: &Place) -> io::Result<()> {
        self.clear()?;
        Ok(linkat(&other.dir, &other.name, &self.dir, &self.name, AtFlags::empty())?)
    }

    /// Creates a FIFO.
    pub fn create_fifo(&self) -> io::Result<()> {
        self.clear()?;
        let mode = Mode::from_raw_mode(0o600);
        Ok(mknodat(&self.dir, &self.name, FileType::Fifo, mode, 0)?)
    }

    /// The place beside this one that is called `name`.
    pub fn sibling(&self, name: &OsStr) -> io::Result<Place> {
        Ok(Place { dir: rustix::io::fcntl_dupfd_cloexec(&self.dir, 0)?, name: name.into() })
    }

    /// Sets owner, mode and time, not following a link.
    pub fn set(&self, attributes: &Attributes, link: bool) -> io::Result<()> {
        let owner = Some(Uid::from_raw(attributes.uid));
        let group = Some(Gid::from_raw(attributes.gid));
        chownat(&self.dir, &self.name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        if !link {
            // After the owner: changing that drops the setuid bit. This follows a link, so it
            // is only for places that were just created as something else.
            let mode = Mode::from_raw_mode(attributes.mode as RawMode & 0o7777);
            chmodat(&self.dir, &self.name, mode, AtFlags::empty())?;
        }
        self.set_time(attributes.mtime)
    }

    /// Sets the time alone, not following a link. Nothing there is fine.
    pub fn set_time(&self, mtime: i64) -> io::Result<()> {
        let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        match utimensat(&self.dir, &self.name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is there, a directory with its content. Nothing there is fine.
    pub fn clear(&self) -> io::Result<()> {
        remove_at(&self.dir, &self.name)
    }

    /// Removes what is in the directory of this place, except what `keep` says yes to; it is
    /// asked with the path below `dir_path`. A kept directory is gone through in the same way.
    pub fn clear_around(&self, dir_path: &Path, keep: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        clear_dir(&self.dir, dir_path, keep)
    }

    fn clear_unless_directory(&self) -> io::Result<()> {
        match statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => Ok(()),
            Ok(_) => self.clear(),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn remove_at(dir: &OwnedFd, name: &Path) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let inner = openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    clear_dir(&inner, Path::new(""), &|_| false)?;
    Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

fn clear_dir(dir: &OwnedFd, path: &Path, keep: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        let below = path.join(name);
        if !keep(&below) {
            remove_at(dir, name)?;
            continue;
        }
        match openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(inner) => clear_dir(&inner, &below, keep)?,
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The path of an archive entry relative to the root: a leading `/` and `.` are dropped.
/// `None` if it has a `..`, which no honest archive does.
pub(super) fn relative(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => plain.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}
