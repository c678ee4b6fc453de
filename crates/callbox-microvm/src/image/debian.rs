//! The Debian part of a recipe image.

use std::fs;
use std::path::Path;

use super::error::io;
use super::program::Program;
use super::scratch::Scratch;
use super::{ImageError, apt, erofs, tree};

/// Never unpacked: a bot reads none of it. Copyright notices stay, as licences ask.
const EXCLUDED: [&str; 10] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
    "path-exclude=/usr/share/bash-completion/*",
    "path-exclude=/usr/share/pixmaps/*",
    "path-exclude=/usr/share/applications/*",
];

/// Without this hook of mmdebstrap, bookworm's package for merging /usr brings 60 MB of Perl.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/maybe-merged-usr";

/// Removed after the installation: what is about the host, or about installing.
const LEFTOVERS: [&str; 12] = [
    // Addresses (and perhaps credentials) of the host's archives and proxies.
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "var/cache/apt",
    // Differ from build to build.
    "var/cache/ldconfig/aux-cache",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
];

/// Directories that stay, empty.
const EMPTIED: [&str; 7] =
    ["var/lib/apt/lists", "var/log", "var/cache/debconf", "var/cache/man", "tmp", "run", "dev"];

/// Installs Debian `suite` with `packages` into `<scratch>/root`, which this creates.
pub(super) fn install(
    packages: &[String],
    suite: &str,
    sources: &str,
    scratch: &Scratch,
) -> Result<(), ImageError> {
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).map_err(io("write", &path))?;
        Ok(path)
    };
    let sources = write("host.sources", sources)?;
    let options = write("apt.conf", &apt::options()?)?;
    let root = scratch.path().join("root");
    // Programs of its own that mmdebstrap starts look here; the default may be too small.
    let temporary = scratch.directory("tmp")?;
    let mut mmdebstrap = Program::contained(
        "mmdebstrap",
        "mmdebstrap",
        &format!("installing Debian \"{}\"", suite),
    )?;
    mmdebstrap
        .env("SOURCE_DATE_EPOCH", erofs::seconds(erofs::EPOCH))
        .env("TMPDIR", &temporary)
        .env("LC_ALL", "C.UTF-8")
        .args(["--mode=root", "--variant=minbase", "--format=directory"])
        .args(packages.iter().map(|package| format!("--include={package}")))
        .args(EXCLUDED.map(|rule| format!("--dpkgopt={rule}")))
        .args(["--aptopt".as_ref(), options.as_os_str()])
        .args([suite.as_ref(), root.as_os_str(), sources.as_os_str()]);
    if Path::new(MERGED_USR).is_dir() {
        mmdebstrap.args([format!("--hook-dir={MERGED_USR}")]);
    }
    mmdebstrap.run(&[])?;
    clean(&root)
}

fn clean(root: &Path) -> Result<(), ImageError> {
    for path in LEFTOVERS {
        tree::remove(&root.join(path))?;
    }
    for path in EMPTIED {
        tree::empty(&root.join(path))?;
    }
    // mmdebstrap copies the host's: the machine gets its own name and resolver when it wakes.
    let files = [
        ("etc/hostname", "callbox\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/resolv.conf", ""),
    ];
    for (file, text) in files {
        let path = root.join(file);
        tree::remove(&path)?;
        fs::write(&path, text).map_err(io("write", &path))?;
        tree::set_mode(&path, 0o644)?;
    }
    Ok(())
}
