//! The names by which programs tell one machine from another: host name, machine id, boot id.
//!
//! Everything slow happens at the boot, so that it is in the template: a file of the image is
//! copied to the writable layer when it is first opened for writing, and a mount is a mount. A
//! wake only writes into files that are there, however often it comes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const HOSTNAME: &str = "/etc/hostname";
const HOSTS: &str = "/etc/hosts";
const MACHINE_ID: &str = "/etc/machine-id";
/// D-Bus had it first, and some images still have a file of their own there.
const DBUS_MACHINE_ID: &str = "/var/lib/dbus/machine-id";
/// Ends the line of `/etc/hosts` that is ours to replace.
const OUR_LINE: &str = " # this machine";

/// Makes ready what [`renew`] writes to.
pub(crate) fn prepare(run_dir: &Path) -> io::Result<()> {
    for path in [HOSTNAME, HOSTS, MACHINE_ID] {
        if fs::metadata(path).is_err() {
            // A link that leads nowhere.
            let _ = fs::remove_file(path);
        }
        // Opening it is what copies it up.
        OpenOptions::new().append(true).create(true).open(path)?;
    }
    if fs::symlink_metadata(DBUS_MACHINE_ID).is_ok_and(|metadata| metadata.is_file()) {
        fs::remove_file(DBUS_MACHINE_ID)?;
        std::os::unix::fs::symlink(MACHINE_ID, DBUS_MACHINE_ID)?;
    }
    // The kernel draws its boot id once, so all clones have their template's. A file of our own
    // takes its place.
    let boot_id = run_dir.join("boot_id");
    fs::write(&boot_id, random_uuid()?)?;
    fs::set_permissions(&boot_id, Permissions::from_mode(0o444))?;
    rustix::mount::mount_bind(&boot_id, BOOT_ID)?;
    Ok(())
}

/// Gives the machine names of its own. The error says which it did not get.
pub(crate) fn renew(run_dir: &Path, hostname: &str, generation_id: &str) -> io::Result<()> {
    let in_part = |part: &'static str| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{part}: {error}"))
    };
    set_hostname(hostname).map_err(in_part("host name"))?;
    overwrite(Path::new(MACHINE_ID), &format!("{generation_id}\n"))
        .map_err(in_part("machine id"))?;
    random_uuid()
        .and_then(|id| overwrite(&run_dir.join("boot_id"), &id))
        .map_err(in_part("boot id"))
}

fn set_hostname(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes())?;
    overwrite(Path::new(HOSTNAME), &format!("{name}\n"))?;
    overwrite(Path::new(HOSTS), &hosts_with(&fs::read_to_string(HOSTS)?, name))
}

/// The file with our name in it, in the place of the one before.
fn hosts_with(hosts: &str, name: &str) -> String {
    let others = hosts.lines().filter(|line| !line.ends_with(OUR_LINE));
    let mut text: String = others.flat_map(|line| [line, "\n"]).collect();
    text.push_str(&format!("127.0.0.1 {name}{OUR_LINE}\n"));
    text
}

/// In place: another file in its stead would not be the one that is mounted.
fn overwrite(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// A line with a random UUID (version 4), as the kernel writes it.
fn random_uuid() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{}\n", uuid(bytes)))
}

fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_the_kernels() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn names_do_not_pile_up() {
        let image = "127.0.0.1 localhost\n10.0.0.1 db";
        let first = hosts_with(image, "one");
        let second = hosts_with(&first, "two");
        let expected = "127.0.0.1 localhost\n10.0.0.1 db\n127.0.0.1 two # this machine\n";
        assert_eq!(second, expected);
    }
}
