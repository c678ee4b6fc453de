//! The way into the cage: what a child does between `fork` and `exec`.
//!
//! The child is a copy of one thread of the dispatcher: locks may be held by threads that are not
//! there, so it must not allocate, log or panic. Everything that it needs was made before the
//! fork ([`Entry`]), and it makes system calls only. Which step failed, it writes into a pipe.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use tokio::process::Command;

use super::{Access, Bound, Cell};
use crate::error::Error;

/// Open files of one QEMU.
const MAX_FILES: u64 = 1024;

/// Everything that the child needs.
pub(crate) struct Entry {
    uid: Option<u32>,
    /// `cgroup.procs` of each of its cgroups.
    groups: Vec<CString>,
    view: Option<Mounts>,
    /// The lines that make a user namespace, without root.
    user_map: Option<CString>,
    group_map: Option<CString>,
    told: OwnedFd,
}

struct Mounts {
    base: CString,
    proc: CString,
    bound: Vec<Mount>,
    /// What every remount keeps: in a user namespace the kernel insists on it.
    base_flags: MountFlags,
}

struct Mount {
    from: CString,
    to: CString,
    flags: MountFlags,
}

/// The parent's end: says why a spawn failed.
pub(crate) struct Mishap {
    told: OwnedFd,
}

/// The steps, in order; their numbers go through the pipe.
const STEPS: [&str; 10] = [
    "enter its cgroups",
    "have namespaces of its own",
    "have a user namespace of its own",
    "have a view of its own",
    "see its processes only",
    "see its own files",
    "leave the host's files",
    "have limits",
    "give up all rights",
    "leave descriptors that are not its own",
];

impl Entry {
    /// Makes ready what the child needs. `base` is the view's root; none leaves the host's.
    pub fn prepare(base: Option<&Path>, cell: &Cell, bound: Vec<Bound>) -> Result<Prepared, Error> {
        let (reader, writer) = rustix::pipe::pipe_with(
            rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK,
        )
        .map_err(|errno| Error::Unusable(format!("cannot make a pipe: {errno}")))?;
        let groups = cell.cgroups.iter().map(|group| c_path(&group.join("cgroup.procs")));
        let fixed = MountFlags::BIND | MountFlags::NOSUID;
        let view = base.map(|base| Mounts {
            base: c_path(base),
            proc: c_path(&base.join("proc")),
            bound: bound.iter().map(|bound| Mount::of(base, bound)).collect(),
            base_flags: fixed | MountFlags::NODEV | MountFlags::RDONLY,
        });
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        // Without root, only a user namespace gives the right to mount.
        let own = view.is_some() && !rustix::process::geteuid().is_root();
        let map = |id: u32| CString::new(format!("{id} {id} 1")).expect("digits have no zero byte");
        let entry = Entry {
            uid: cell.uid,
            groups: groups.collect(),
            view,
            user_map: own.then(|| map(uid.as_raw())),
            group_map: own.then(|| map(gid.as_raw())),
            told: writer,
        };
        Ok(Prepared { entry, mishap: Mishap { told: reader } })
    }

    /// The child's way. Makes system calls only.
    fn enter(&self) -> Result<(), (u8, Errno)> {
        for group in &self.groups {
            write_to(group, c"0").map_err(at(0))?;
        }
        if let Some(view) = &self.view {
            self.separate()?;
            view.mount()?;
        }
        keep_no_descriptors().map_err(at(9))?;
        limit().map_err(at(7))?;
        self.give_up().map_err(at(8))
    }

    fn separate(&self) -> Result<(), (u8, Errno)> {
        let mut flags = UnshareFlags::NEWNS
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS;
        if self.user_map.is_some() {
            flags |= UnshareFlags::NEWUSER;
        }
        unshare(flags).map_err(at(1))?;
        if let (Some(user), Some(group)) = (&self.user_map, &self.group_map) {
            write_to(c"/proc/self/setgroups", c"deny").map_err(at(2))?;
            write_to(c"/proc/self/uid_map", user).map_err(at(2))?;
            write_to(c"/proc/self/gid_map", group).map_err(at(2))?;
        }
        Ok(())
    }

    fn give_up(&self) -> Result<(), Errno> {
        for capability in CapabilitySet::all().iter() {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // One that this kernel does not know, or that an earlier call took.
                Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        if let Some(id) = self.uid {
            let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            // Takes the capabilities along.
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        } else if self.user_map.is_some() {
            let none = CapabilitySet::empty();
            let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
            rustix::thread::set_capabilities(None, sets)?;
        }
        rustix::thread::set_no_new_privs(true)
    }
}

impl Mounts {
    /// The view's root becomes `/`. Numbers are those of [`STEPS`].
    fn mount(&self) -> Result<(), (u8, Errno)> {
        use rustix::mount;
        // Nothing of this reaches the host.
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount::mount_change(c"/", private).map_err(at(3))?;
        mount::mount_bind(&self.base, &self.base).map_err(at(3))?;
        self.mount_proc().map_err(at(4))?;
        for Mount { from, to, flags } in &self.bound {
            mount::mount_bind(from, to).map_err(at(5))?;
            mount::mount_remount(to, *flags, c"").map_err(at(5))?;
        }
        mount::mount_remount(&self.base, self.base_flags, c"").map_err(at(3))?;
        rustix::process::chdir(&self.base).map_err(at(6))?;
        rustix::process::pivot_root(c".", c".").map_err(at(6))?;
        mount::unmount(c".", UnmountFlags::DETACH).map_err(at(6))?;
        rustix::process::chdir(c"/").map_err(at(6))
    }

    /// Its own processes, nothing of the kernel's. In a user namespace the kernel allows no new
    /// mount of it without a new process namespace; the host's takes its place.
    fn mount_proc(&self) -> Result<(), Errno> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let options = c"subset=pid,hidepid=invisible";
        match rustix::mount::mount(c"proc", &self.proc, c"proc", flags, options) {
            Err(Errno::PERM | Errno::INVAL) => {
                rustix::mount::mount_bind_recursive(c"/proc", &self.proc)
            }
            outcome => outcome,
        }
    }
}

impl Mount {
    fn of(base: &Path, bound: &Bound) -> Mount {
        let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NOEXEC;
        match bound.access {
            Access::Read => flags |= MountFlags::RDONLY | MountFlags::NODEV,
            Access::Device => {}
        }
        Mount { from: c_path(&bound.from), to: c_path(&base.join(&bound.to)), flags }
    }
}

/// An entry that is ready, and the pipe that tells what went wrong.
pub(crate) struct Prepared {
    entry: Entry,
    mishap: Mishap,
}

impl Prepared {
    /// Has `command` go through the entry before it becomes its program.
    #[allow(unsafe_code)]
    pub fn register(self, command: &mut Command) -> Result<Mishap, Error> {
        let entry = self.entry;
        let enter = move || {
            entry.enter().map_err(|(step, errno)| {
                let _ = rustix::io::write(entry.told.as_fd(), &[step]);
                io::Error::from(errno)
            })
        };
        // SAFETY: the closure runs in the child of a fork of a process with threads. It makes
        // system calls through rustix, which makes them directly, with strings that were made
        // before the fork; it does not allocate (an `io::Error` of an errno is a number), takes
        // no lock and does not unwind.
        unsafe { command.pre_exec(enter) };
        Ok(self.mishap)
    }
}

impl Mishap {
    /// What a failed spawn means: a step of the entry, or the program itself.
    pub fn explain(&self, error: io::Error) -> Error {
        let mut step = [0];
        match rustix::io::read(&self.told, &mut step) {
            Ok(1) => {
                let step = STEPS.get(usize::from(step[0])).copied().unwrap_or("enter its cage");
                Error::Cage { missing: format!("qemu cannot {step}: {error}") }
            }
            _ => Error::tool("qemu")(error),
        }
    }
}

fn at(step: u8) -> impl FnOnce(Errno) -> (u8, Errno) {
    move |errno| (step, errno)
}

/// Whoever started the dispatcher may have left it descriptors that stay open in every child: a log
/// file, a pipe, a lock. They end with `exec`; those that are the machine's are put in their
/// places after this.
#[allow(unsafe_code)]
fn keep_no_descriptors() -> Result<(), Errno> {
    use nix::libc;
    const FIRST: libc::c_uint = 3;
    // SAFETY: a system call with three numbers. It marks descriptors and closes none.
    let marked = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if marked == 0 {
        return Ok(());
    }
    // Kernels before 5.11 do not know it: one by one.
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    for number in FIRST..libc::c_uint::try_from(limit).unwrap_or(libc::c_uint::MAX) {
        // SAFETY: a system call with three numbers; one that is not open is an error that does
        // not matter.
        unsafe { libc::fcntl(number.cast_signed(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// No core dumps (what a session said is in there), and few files.
fn limit() -> Result<(), Errno> {
    let at_most = |count| Rlimit { current: Some(count), maximum: Some(count) };
    rustix::process::setrlimit(Resource::Core, at_most(0))?;
    rustix::process::setrlimit(Resource::Nofile, at_most(MAX_FILES))
}

/// Writes a short text in one call, as the kernel's own files want it.
fn write_to(path: &CStr, text: &CStr) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.to_bytes()).map(|_| ())
}

/// rustix marks `unshare` as unsafe for one flag, which is not among ours.
#[allow(unsafe_code)]
fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the flag that can break the promises of open descriptors is `FILES`.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path that exists has no zero byte")
}
