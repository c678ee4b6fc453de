//! Which kernel modules a machine needs, and in which order they load.
//!
//! A package that was unpacked but not installed has no `modules.dep`, so the order comes from
//! the modules themselves: each `.ko` names what it needs in its `.modinfo` section
//! (`depends=a,b` and `softdep=pre: c`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// What a machine cannot run without: its bus, disk, serial port, network card, and the file
/// systems of its image and of the writable layer over it.
pub const WANTED: &[&str] =
    &["virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "erofs", "overlay"];
/// Loaded where they exist: the checksum behind `libcrc32c`, which asks for it by an alias.
const IF_PRESENT: &[&str] = &["crc32c_generic"];

/// A module to load: its name and its contents, decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// With underscores, as `/proc/modules` shows it.
    pub name: String,
    /// The ELF object.
    pub object: Vec<u8>,
}

/// Collects the modules [`WANTED`] and all that they need from `tree`, a directory like
/// `/lib/modules/6.1.0-56-cloud-amd64`, in an order in which each can be loaded.
///
/// # Errors
/// When a module is neither there nor built into the kernel, or cannot be read.
pub fn collect(tree: &Path) -> Result<Vec<Module>, Error> {
    let mut search = Search {
        files: index(&tree.join("kernel"))?,
        built_in: built_in(tree)?,
        seen: BTreeSet::new(),
        order: Vec::new(),
    };
    for name in IF_PRESENT {
        search.visit(name, true)?;
    }
    for name in WANTED {
        search.visit(name, false)?;
    }
    Ok(search.order)
}

struct Search {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    seen: BTreeSet<String>,
    order: Vec<Module>,
}

impl Search {
    /// Depth first: what a module needs comes before it.
    fn visit(&mut self, name: &str, optional: bool) -> Result<(), Error> {
        if self.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            if optional {
                return Ok(());
            }
            return Err(Error::Unusable(format!("the kernel has no module {name:?}")));
        };
        let object = read_object(path)?;
        let needs = needs(&object)
            .ok_or_else(|| Error::Unusable(format!("module {} is damaged", path.display())))?;
        for soft in &needs.soft {
            self.visit(soft, true)?;
        }
        for hard in &needs.hard {
            self.visit(hard, false)?;
        }
        self.order.push(Module { name: name.to_owned(), object });
        Ok(())
    }
}

/// File names use `-` and `_` freely; the kernel knows only `_`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| stem.replace('-', "_"))
}

fn index(root: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let mut files = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(Error::io("list the kernel's modules in", &directory))?;
        for entry in entries {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pending.push(path);
            } else if let Some(name) = module_name(&path) {
                files.insert(name, path);
            }
        }
    }
    Ok(files)
}

fn built_in(tree: &Path) -> Result<BTreeSet<String>, Error> {
    let path = tree.join("modules.builtin");
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    Ok(text.lines().filter_map(|line| module_name(Path::new(line))).collect())
}

fn read_object(path: &Path) -> Result<Vec<u8>, Error> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("xz" | "zst") => {
            let program = if extension == Some("xz") { "xz" } else { "zstd" };
            let output = Command::new(program)
                .args(["-dc", "--"])
                .arg(path)
                .stdin(Stdio::null())
                .output()
                .map_err(Error::tool(program))?;
            if !output.status.success() {
                return Err(Error::tool_failed(program, &output));
            }
            Ok(output.stdout)
        }
        Some("gz") => {
            let mut object = Vec::new();
            fs::File::open(path)
                .and_then(|file| flate2::read::GzDecoder::new(file).read_to_end(&mut object))
                .map_err(Error::io("decompress", path))?;
            Ok(object)
        }
        _ => fs::read(path).map_err(Error::io("read", path)),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    hard: Vec<String>,
    soft: Vec<String>,
}

/// What a module needs, from its `.modinfo` section; `None` if it is not a whole ELF object.
fn needs(object: &[u8]) -> Option<Needs> {
    let mut needs = Needs::default();
    let clean = |name: &str| name.trim().replace('-', "_");
    for entry in elf_section(object, b".modinfo")?.split(|byte| *byte == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else { continue };
        if let Some(list) = entry.strip_prefix("depends=") {
            needs.hard.extend(list.split(',').filter(|name| !name.is_empty()).map(clean));
        } else if let Some(list) = entry.strip_prefix("softdep=pre:") {
            let list = list.split("post:").next().unwrap_or_default();
            needs.soft.extend(list.split_whitespace().map(clean));
        }
    }
    Some(needs)
}

/// Contents of a section of a 64-bit little-endian ELF file.
fn elf_section<'a>(file: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = file.get(at..at.checked_add(length)?)?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) =
        (number(0x28, 8)?, number(0x3a, 2)?, number(0x3c, 2)?, number(0x3e, 2)?);
    let header = |index: usize| table.checked_add(index.checked_mul(size)?);
    let contents = |header: usize| -> Option<&'a [u8]> {
        let (offset, length) = (number(header + 0x18, 8)?, number(header + 0x20, 8)?);
        file.get(offset..offset.checked_add(length)?)
    };
    let names = contents(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = names.get(number(header, 4)?..)?;
        (name.split(|byte| *byte == 0).next()? == wanted).then(|| contents(header))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ELF object with a `.modinfo` section.
    fn object(modinfo: &str) -> Vec<u8> {
        let mut file = vec![0_u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let strings = b"\0.modinfo\0";
        let strings_at = file.len() as u64;
        file.extend_from_slice(strings);
        let info_at = file.len() as u64;
        file.extend_from_slice(modinfo.as_bytes());
        let table = file.len() as u64;
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, 2, 0, 0, 0]);
        for (name, at, length) in
            [(0_u32, strings_at, strings.len() as u64), (1, info_at, modinfo.len() as u64)]
        {
            let mut header = [0_u8; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&at.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&length.to_le_bytes());
            file.extend_from_slice(&header);
        }
        file
    }

    fn tree(modules: &[(&str, &str)], built_in: &str) -> tempfile::TempDir {
        let tree = tempfile::tempdir().expect("tempdir");
        let directory = tree.path().join("kernel/drivers");
        fs::create_dir_all(&directory).expect("mkdir");
        fs::write(tree.path().join("modules.builtin"), built_in).expect("write");
        for (file, modinfo) in modules {
            fs::write(directory.join(file), object(modinfo)).expect("write");
        }
        tree
    }

    #[test]
    fn what_a_module_needs_is_read_from_itself() {
        let found = needs(&object("license=GPL\0softdep=pre: crc32c post: x\0depends=a-b,c\0"));
        let wanted = Needs { hard: vec!["a_b".into(), "c".into()], soft: vec!["crc32c".into()] };
        assert_eq!(found, Some(wanted));
        assert_eq!(needs(b"no elf"), None);
        assert_eq!(needs(&object("depends=\0")[..80]), None, "a cut file is not half read");
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let tree = tree(
            &[
                ("virtio_mmio.ko", "depends=virtio,virtio-ring\0"),
                ("virtio_blk.ko", "depends=virtio\0"),
                ("virtio_console.ko", "depends=virtio\0"),
                ("virtio_net.ko", "depends=virtio\0"),
                ("virtio.ko", "depends=virtio_ring\0"),
                ("virtio-ring.ko", "depends=\0"),
                ("erofs.ko", "depends=libcrc32c\0"),
                ("libcrc32c.ko", "softdep=pre: crc32c\0depends=\0"),
            ],
            "kernel/fs/overlayfs/overlay.ko\n",
        );
        let names: Vec<_> =
            collect(tree.path()).expect("resolved").into_iter().map(|m| m.name).collect();
        assert_eq!(
            names,
            [
                "virtio_ring",
                "virtio",
                "virtio_mmio",
                "virtio_blk",
                "virtio_console",
                "virtio_net",
                "libcrc32c",
                "erofs"
            ]
        );
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let tree = tree(&[], "");
        let error = collect(tree.path()).expect_err("nothing there").to_string();
        assert!(error.contains("virtio_mmio"), "{error}");
    }
}
