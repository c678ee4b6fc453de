//! Kernel modules that the initramfs carries.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::system::finit_module;

use crate::boot::BootError;

/// Loads all modules of `directory` in lexical order: `NNN-name.ko`.
pub(crate) fn load_all(directory: &Path, cmdline: &str) -> Result<(), BootError> {
    for path in listed(directory) {
        load(&path, cmdline).map_err(BootError::of(format!("load {}", path.display())))?;
    }
    Ok(())
}

/// A kernel with everything built in needs no directory.
fn listed(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut modules: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ko"))
        .collect();
    modules.sort();
    modules
}

fn load(path: &Path, cmdline: &str) -> io::Result<()> {
    let parameters = parameters(&name(path), cmdline);
    let parameters = CString::new(parameters).map_err(io::Error::other)?;
    match finit_module(File::open(path)?, &parameters, 0) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        other => Ok(other?),
    }
}

/// `virtio_mmio` of `/modules/010-virtio-mmio.ko`.
fn name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let numbered = stem.split_once('-').filter(|(number, _)| number.parse::<u32>().is_ok());
    numbered.map_or(&*stem, |(_, name)| name).replace('-', "_")
}

/// What the kernel's command line says to a module (`virtio_mmio.device=…`): the kernel
/// leaves it to whoever loads the module.
fn parameters(module: &str, cmdline: &str) -> String {
    let words = cmdline.split_ascii_whitespace();
    let own = words.filter_map(|word| word.strip_prefix(module)?.strip_prefix('.'));
    own.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_get_their_words_of_the_command_line() {
        let module = name(Path::new("/modules/010-virtio-mmio.ko"));
        assert_eq!(module, "virtio_mmio");
        let cmdline =
            "quiet virtio_mmio.device=512@0x1:5 x.virtio_mmio.y virtio_mmio.device=512@0x2:6\n";
        assert_eq!(parameters(&module, cmdline), "device=512@0x1:5 device=512@0x2:6");
        assert_eq!(name(Path::new("erofs.ko")), "erofs");
    }
}
