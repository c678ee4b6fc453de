//! From the kernel's first root to the bot's: mounts, modules, the image with a writable layer.
//!
//! The image knows nothing of the agent, so everything a program may expect of a system that
//! is up is made here.

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::bot::{AGENT_OOM_SCORE, set_own_oom_score};
use crate::cmdline::{Cmdline, Network};
use crate::modules;
use crate::netlink::Netlink;
use crate::wake::names;

const MODULES: &str = "/modules";
const DISK: &str = "/dev/vda";
/// How long a disk may take to show up after its driver was loaded.
const DISK_PATIENCE: Duration = Duration::from_secs(10);
/// Files for the bot, and the agent's own.
pub(crate) const RUN_DIR: &str = "/run/callbox";

/// What went wrong on the way up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub(crate) struct BootError {
    what: String,
    #[source]
    source: io::Error,
}

impl BootError {
    pub(crate) fn of<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self { what, source: source.into() }
    }
}

/// Mounts what the agent itself needs, and reads what the host wants.
pub(crate) fn wake_up() -> Result<Cmdline, BootError> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    attach("proc", "/proc", "proc", quiet, "")?;
    attach("sysfs", "/sys", "sysfs", quiet, "")?;
    attach("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, "mode=0755")?;
    Ok(Cmdline::parse(&kernel_cmdline()?))
}

/// Brings the machine up. After this, the root is the image.
pub(crate) fn bring_up(cmdline: &Cmdline) -> Result<(), BootError> {
    modules::load_all(Path::new(MODULES), &kernel_cmdline()?)?;
    set_own_oom_score(AGENT_OOM_SCORE);
    allow_open_files();
    wait_for(DISK)?;
    stack_root(cmdline.disk_mib)?;
    move_root()?;
    furnish(cmdline.disk_mib)?;
    name_things(cmdline.network.as_ref())?;
    connect(cmdline.network.as_ref())
}

fn kernel_cmdline() -> Result<String, BootError> {
    fs::read_to_string("/proc/cmdline").map_err(BootError::of("read the kernel's command line"))
}

/// The image, read-only, under a layer in memory that takes what the bot writes.
fn stack_root(disk_mib: u32) -> Result<(), BootError> {
    attach(DISK, "/image", "erofs", MountFlags::RDONLY, "")?;
    attach("layer", "/layer", "tmpfs", MountFlags::empty(), &format!("size={disk_mib}m"))?;
    for directory in ["/layer/upper", "/layer/work"] {
        fs::create_dir_all(directory).map_err(BootError::of(format!("make {directory}")))?;
    }
    let layers = "lowerdir=/image,upperdir=/layer/upper,workdir=/layer/work";
    attach("root", "/root", "overlay", MountFlags::empty(), layers)
}

/// Makes `/root` the root. The old one is in memory, so it is emptied.
fn move_root() -> Result<(), BootError> {
    for system in ["/dev", "/proc", "/sys"] {
        let target = format!("/root{system}");
        fs::create_dir_all(&target).map_err(BootError::of(format!("make {target}")))?;
        mount_move(system, &target).map_err(BootError::of(format!("move {system}")))?;
    }
    // Several megabytes of modules and the agent's own file. It runs on without it.
    let _ = fs::remove_dir_all(MODULES);
    let _ = fs::remove_file("/init");
    std::env::set_current_dir("/root").map_err(BootError::of("enter the image"))?;
    mount_move(".", "/").map_err(BootError::of("move the root"))?;
    rustix::process::chroot(".").map_err(BootError::of("change the root"))?;
    std::env::set_current_dir("/").map_err(BootError::of("enter the root"))
}

/// The file systems and devices that programs expect.
fn furnish(disk_mib: u32) -> Result<(), BootError> {
    let secure = MountFlags::NOSUID | MountFlags::NODEV;
    let size = format!("mode=1777,size={disk_mib}m");
    attach("tmpfs", "/tmp", "tmpfs", secure, &size)?;
    attach("tmpfs", "/run", "tmpfs", secure, "mode=0755,size=16m")?;
    attach("tmpfs", "/dev/shm", "tmpfs", secure, &size)?;
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    attach("devpts", "/dev/pts", "devpts", terminals, "mode=0620,ptmxmode=0666")?;
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        match symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(BootError::of(format!("make {link}"))(error));
            }
            _ => {}
        }
    }
    fs::create_dir_all(RUN_DIR).map_err(BootError::of(format!("make {RUN_DIR}")))
}

/// Container images leave these files to whoever runs them: there they are missing or empty.
fn name_things(network: Option<&Network>) -> Result<(), BootError> {
    rustix::system::sethostname(b"callbox").map_err(BootError::of("set the host name"))?;
    let dns = network.and_then(|network| network.dns);
    let resolver = dns.map(|dns| format!("nameserver {dns}\n")).unwrap_or_default();
    for (path, content, always) in [
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", false),
        ("/etc/resolv.conf", resolver.as_str(), dns.is_some()),
        ("/etc/machine-id", "", false),
    ] {
        let empty = fs::metadata(path).map_or(true, |metadata| metadata.len() == 0);
        if empty || always {
            // A link into a `/run` that is empty now (systemd's resolver) leads nowhere.
            let _ = fs::remove_file(path);
            fs::create_dir_all("/etc")
                .and_then(|()| fs::write(path, content))
                .map_err(BootError::of(format!("write {path}")))?;
        }
    }
    names::prepare(Path::new(RUN_DIR)).map_err(BootError::of("prepare the machine's names"))
}

fn connect(network: Option<&Network>) -> Result<(), BootError> {
    let netlink = Netlink::open().map_err(BootError::of("speak to the kernel about networks"))?;
    const LOOPBACK: u32 = 1;
    netlink.up(LOOPBACK).map_err(BootError::of("bring up the loopback interface"))?;
    let Some(network) = network else {
        return Ok(());
    };
    let (index, name) = first_card().map_err(BootError::of("find the network card"))?;
    // Machines have IPv4 only; the host would drop everything else. Loopback keeps its ::1.
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if Path::new(&ipv6).exists() {
        fs::write(&ipv6, "1").map_err(BootError::of("keep ipv6 off the network card"))?;
    }
    let gateway = network.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED);
    netlink
        .address(index, network.address, network.prefix)
        .and_then(|()| netlink.up(index))
        .and_then(|()| match network.gateway {
            Some(_) => netlink.default_route(index, gateway),
            None => Ok(()),
        })
        .map_err(BootError::of("set the network card's address"))
}

/// Index and name of the first interface that is not the loopback's.
fn first_card() -> io::Result<(u32, String)> {
    let mut cards = Vec::new();
    for interface in fs::read_dir("/sys/class/net")? {
        let interface = interface?;
        let index = fs::read_to_string(interface.path().join("ifindex"))?;
        let name = interface.file_name().to_string_lossy().into_owned();
        let index = index.trim_end().parse::<u32>().ok().filter(|index| *index > 1);
        cards.extend(index.map(|index| (index, name)));
    }
    cards.into_iter().min().ok_or_else(|| io::Error::other("the machine has none"))
}

/// The kernel gives its first process what was much in the nineties; containers get a million.
fn allow_open_files() {
    let limit = Rlimit { current: Some(65_536), maximum: Some(1_048_576) };
    // Nearly all bots are content with what there is.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn attach(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), BootError> {
    let failed = |error| BootError::of(format!("mount {kind} on {target}"))(error);
    let options = CString::new(options).map_err(|error| failed(io::Error::other(error)))?;
    fs::create_dir_all(target).map_err(failed)?;
    mount(source, target, kind, flags, options.as_c_str()).map_err(|error| failed(error.into()))
}

/// Drivers are loaded by now, and mostly have found their device before that returned.
fn wait_for(device: &str) -> Result<(), BootError> {
    let start = Instant::now();
    while let Err(error) = fs::metadata(device) {
        if start.elapsed() > DISK_PATIENCE {
            return Err(BootError::of(format!("find the disk {device}"))(error));
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
