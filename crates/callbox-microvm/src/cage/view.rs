//! What a caged QEMU sees of the host's files: itself, and nothing else.
//!
//! ```text
//! <data_dir>/cage/<digest>/       made once per build of QEMU; bound read-only as `/`
//!     usr/bin/qemu-system-x86_64  copies: an upgrade of the package disturbs no machine
//!     lib…, usr/lib…              the libraries that its loader names, and its emulator
//!     usr/share/qemu/             the firmware of a microvm
//!     proc/ dev/null dev/kvm      mount points
//!     m/kernel m/initramfs m/rootfs
//! ```
//!
//! Each machine binds its own files onto `m/` in a mount namespace of its own; on the host the
//! mount points stay empty.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, Mode, makedev, mknodat};
use sha2::{Digest, Sha256};

use crate::config::Accelerator;
use crate::error::Error;
use crate::layout::Layout;
use crate::lock::FileLock;
use crate::qemu::{Invocation, Qemu};

/// Raised when views made by older code must not be used by this one.
const FORMAT: u32 = 2;
/// Firmware that a microvm may load, from QEMU's data directories.
const FIRMWARE: &[&str] = &[
    "bios-microvm.bin",
    "kvmvapic.bin",
    "linuxboot.bin",
    "linuxboot_dma.bin",
    "multiboot.bin",
    "multiboot_dma.bin",
    "pvh.bin",
    "qboot.rom",
];
/// The emulator, where the distribution has it as a module.
const EMULATOR: &str = "qemu/accel-tcg-x86_64.so";
/// Numbers of the device `kvm` (Linux, Documentation/admin-guide/devices.txt).
const KVM: (u32, u32) = (10, 232);

/// A view's root, made.
#[derive(Debug)]
pub(crate) struct View {
    pub base: PathBuf,
    /// QEMU's path inside.
    pub program: PathBuf,
    /// The device to bind for machines under KVM.
    kvm: PathBuf,
}

/// A file of the host that one machine sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub from: PathBuf,
    /// Relative to the view's root.
    pub to: PathBuf,
    pub access: Access,
}

/// What a machine may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Device,
}

impl View {
    /// Makes the view of this QEMU, unless it is there.
    pub fn make(layout: &Layout, qemu: &Qemu) -> Result<View, Error> {
        let real = qemu.path.canonicalize().map_err(Error::io("resolve", &qemu.path))?;
        let root = layout.cage();
        let parts = Parts::of(&real)?;
        let name = parts.name(&qemu.version);
        let base = root.join(&name);
        let program = inside("usr/bin", Path::new("qemu-system-x86_64"));
        let kvm = root.join("kvm");
        let _lock = FileLock::exclusive(&root.join("lock"))?;
        if !base.exists() {
            let staging = root.join(format!(".making-{name}"));
            remove(&staging)?;
            parts.copy_to(&staging)?;
            fs::rename(&staging, &base).map_err(Error::io("keep", &base))?;
        }
        let kvm = match make_device(&kvm) {
            true => kvm,
            false => PathBuf::from("/dev/kvm"),
        };
        Ok(View { base, program, kvm })
    }

    /// Removes the view, so that it is made anew: one that a power failure cut short looks whole.
    pub fn forget(&self) -> Result<(), Error> {
        remove(&self.base)
    }

    /// The invocation with the paths of the view, and what must be bound for it.
    pub fn place(&self, invocation: &Invocation) -> (Invocation, Vec<Bound>) {
        let mut bound = Vec::new();
        let mut bind = |from: &Path, to: &str, access| {
            bound.push(Bound { from: from.to_path_buf(), to: to.into(), access });
            Path::new("/").join(to)
        };
        let kernel = bind(&invocation.kernel, "m/kernel", Access::Read);
        let initramfs = bind(&invocation.initramfs, "m/initramfs", Access::Read);
        let rootfs = invocation.rootfs.as_ref();
        let rootfs = rootfs.map(|path| bind(path, "m/rootfs", Access::Read));
        // QEMU looks at it to find out about file locks.
        bind(Path::new("/dev/null"), "dev/null", Access::Device);
        if invocation.accelerator == Accelerator::Kvm {
            bind(&self.kvm, "dev/kvm", Access::Device);
        }
        (Invocation { kernel, initramfs, rootfs, ..invocation.clone() }, bound)
    }
}

fn inside(directory: &str, name: &Path) -> PathBuf {
    Path::new("/").join(directory).join(name)
}

/// The host's files that make up a view.
struct Parts {
    qemu: PathBuf,
    libraries: Vec<PathBuf>,
    firmware: Vec<PathBuf>,
}

impl Parts {
    fn of(qemu: &Path) -> Result<Parts, Error> {
        let mut libraries = libraries(qemu)?;
        let emulator = libraries.iter().find_map(|library| {
            let beside = library.parent()?.join(EMULATOR);
            beside.exists().then_some(beside)
        });
        if let Some(emulator) = emulator {
            libraries.extend(self::libraries(&emulator)?);
            libraries.push(emulator);
        }
        libraries.sort();
        libraries.dedup();
        let directories = data_directories(qemu)?;
        let found = |name: &&str| {
            let mut places = directories.iter().map(|directory| directory.join(name));
            places.find(|path| path.exists())
        };
        let firmware = FIRMWARE.iter().filter_map(found).collect();
        Ok(Parts { qemu: qemu.to_path_buf(), libraries, firmware })
    }

    /// Another one whenever a part is another file: a mended library must reach machines, too.
    fn name(&self, version: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{FORMAT} {version}"));
        for path in [&self.qemu].into_iter().chain(&self.libraries).chain(&self.firmware) {
            let about = fs::metadata(path).ok();
            let about = about.map(|about| (about.len(), about.modified().ok()));
            hash.update(format!("{path:?} {about:?}"));
        }
        hex::encode(&hash.finalize()[..8])
    }

    fn copy_to(&self, base: &Path) -> Result<(), Error> {
        for directory in ["usr/bin", "usr/share/qemu", "proc", "dev", "m"] {
            make_directory(&base.join(directory))?;
        }
        for file in ["dev/kvm", "dev/null", "m/kernel", "m/initramfs", "m/rootfs"] {
            let path = base.join(file);
            fs::write(&path, "").map_err(Error::io("create", &path))?;
        }
        // On hosts where they are links into `usr`, programs use either name.
        for link in ["lib", "lib64"] {
            if let Ok(target) = fs::read_link(Path::new("/").join(link)) {
                let path = base.join(link);
                make_directory(&base.join(target.strip_prefix("/").unwrap_or(&target)))?;
                std::os::unix::fs::symlink(&target, &path).map_err(Error::io("link", &path))?;
            }
        }
        copy(&self.qemu, &base.join("usr/bin/qemu-system-x86_64"))?;
        for library in &self.libraries {
            let place = base.join(library.strip_prefix("/").unwrap_or(library));
            if !place.exists() {
                copy(library, &place)?;
            }
        }
        let directory = base.join("usr/share/qemu");
        for file in &self.firmware {
            copy(file, &directory.join(file.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }
}

/// The shared libraries of a program or library, with the loader itself, as the loader finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    let output = Command::new("/lib64/ld-linux-x86-64.so.2")
        .arg("--list")
        .arg(program)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(Error::tool("ld-linux-x86-64.so.2"))?;
    if !output.status.success() {
        return Err(Error::tool_failed("ld-linux-x86-64.so.2 --list", &output));
    }
    let mut found = parse_libraries(&String::from_utf8_lossy(&output.stdout));
    // The path that the program asks for, whatever the loader calls itself.
    found.push(PathBuf::from("/lib64/ld-linux-x86-64.so.2"));
    Ok(found)
}

/// `\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f…)`; lines without a path are skipped.
fn parse_libraries(text: &str) -> Vec<PathBuf> {
    let paths = text.lines().filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        let path = path.rsplit_once(" (").map_or(path, |(path, _)| path);
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

/// Where this QEMU looks for firmware.
fn data_directories(qemu: &Path) -> Result<Vec<PathBuf>, Error> {
    let name = qemu.display().to_string();
    let output = Command::new(qemu)
        .args(["-L", "help"])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(Error::tool(&name))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    make_directory(to.parent().expect("every place here is below the base"))?;
    fs::copy(from, to).map_err(Error::io("copy to the cage's view", from))?;
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(to, readable).map_err(Error::io("make readable", to))
}

/// With its parents, open to the machines' users: what is above the base is not.
fn make_directory(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(path).map_err(Error::io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::io("open up", path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// A device node for machines, which have no right to the host's own. Only root can make one.
fn make_device(path: &Path) -> bool {
    if path.exists() {
        return true;
    }
    let (major, minor) = KVM;
    let mode = Mode::from_raw_mode(0o666);
    let cwd = rustix::fs::CWD;
    let made = mknodat(cwd, path, FileType::CharacterDevice, mode, makedev(major, minor));
    // The process's mask took bits away.
    made.is_ok() && fs::set_permissions(path, fs::Permissions::from_mode(0o666)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f12)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f34)\n";
        let expected = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_libraries(text), expected.map(PathBuf::from));
    }
}
