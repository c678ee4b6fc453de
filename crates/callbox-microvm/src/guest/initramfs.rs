//! The first root of a machine: the agent as `/init`, and the modules it loads.
//!
//! ```text
//! /init                       the agent, a static binary
//! /modules/NNN-name.ko        loaded in lexical order
//! /dev /proc /sys /run        mount points
//! ```
//!
//! Not compressed: the guest would unpack it under software emulation, at a fiftieth of the
//! host's speed, to save 3 MB of a file that is read from the page cache.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Kernel;
use super::cpio::Archive;
use crate::error::Error;
use crate::layout::Layout;

/// The two files that every machine boots from.
#[derive(Clone, Debug)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: Kernel,
    /// The archive with the agent and the modules.
    pub initramfs: PathBuf,
    /// SHA-256 of the archive, hex.
    pub initramfs_digest: String,
}

impl BootFiles {
    /// Writes the initramfs for `kernel` and the agent's binary, unless the same one is there.
    /// Blocks.
    ///
    /// # Errors
    /// When the agent or a module cannot be read or the archive cannot be written.
    pub fn make(layout: &Layout, kernel: Kernel, agent: &Path) -> Result<BootFiles, Error> {
        let bytes = archive(&kernel, agent)?;
        let initramfs_digest = hex::encode(Sha256::digest(&bytes));
        // Named after its contents, because clones of older templates still boot with theirs.
        let initramfs = layout.kernel().join(format!("initramfs-{}.cpio", &initramfs_digest[..16]));
        if !initramfs.exists() {
            let writing = || {
                let mut file = tempfile::NamedTempFile::new_in(layout.kernel())?;
                std::io::Write::write_all(&mut file, &bytes)?;
                file.persist(&initramfs)?;
                Ok(())
            };
            writing().map_err(Error::io("write", &initramfs))?;
        }
        Ok(BootFiles { kernel, initramfs, initramfs_digest })
    }
}

fn archive(kernel: &Kernel, agent: &Path) -> Result<Vec<u8>, Error> {
    let init = fs::read(agent).map_err(Error::io("read the agent's binary", agent))?;
    if !init.starts_with(b"\x7fELF") {
        return Err(Error::Unusable(format!("the agent {} is no ELF binary", agent.display())));
    }
    let mut archive = Archive::new(Vec::with_capacity(init.len() + (4 << 20)));
    let in_memory = Error::io("write the initramfs for", agent);
    let mut add = || {
        for directory in ["dev", "proc", "sys", "run", "modules"] {
            archive.directory(directory, 0o755)?;
        }
        archive.file("init", 0o755, &init)
    };
    add().map_err(in_memory)?;
    for module in &kernel.modules {
        let object = fs::read(module).map_err(Error::io("read", module))?;
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let added = archive.file(&format!("modules/{name}"), 0o644, &object);
        added.map_err(Error::io("pack", module))?;
    }
    archive.finish().map_err(Error::io("write the initramfs for", agent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_named_after_its_contents_and_written_once() {
        let data = tempfile::tempdir().expect("tempdir");
        let layout = Layout::create(data.path()).expect("layout");
        let (agent, module) = (data.path().join("agent"), data.path().join("000-virtio.ko"));
        fs::write(&agent, b"\x7fELF agent").expect("write");
        fs::write(&module, b"module").expect("write");
        let kernel = Kernel {
            release: "6.1".into(),
            image: data.path().join("vmlinuz"),
            digest: "d".into(),
            modules: vec![module],
        };
        let first = BootFiles::make(&layout, kernel.clone(), &agent).expect("made");
        let again = BootFiles::make(&layout, kernel.clone(), &agent).expect("made");
        assert_eq!(first.initramfs, again.initramfs);
        let bytes = fs::read(&first.initramfs).expect("read");
        assert!(bytes.windows(22).any(|window| window == b"modules/000-virtio.ko\0"));

        fs::write(&agent, b"\x7fELF another agent").expect("write");
        let other = BootFiles::make(&layout, kernel.clone(), &agent).expect("made");
        assert_ne!(first.initramfs, other.initramfs);

        fs::write(&agent, b"#!/bin/sh").expect("write");
        assert!(BootFiles::make(&layout, kernel, &agent).is_err(), "a script cannot be init");
    }
}
