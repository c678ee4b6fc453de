//! What the host lacks, installed as Debian packages.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};

use crate::{
    host,
    steps::{answer, command, step},
};

/// What running machines and building images needs.
pub const MACHINES: &[&str] =
    &["qemu-system-x86", "mmdebstrap", "erofs-utils", "python3", "python3-pip", "kmod", "nftables"];

/// What the tests need beside that.
pub const TESTS: &[&str] = &[
    "espeak-ng",
    "python3-venv",
    "busybox-static",
    "chromium",
    "libespeak-ng1",
    "libfaketime",
    "iproute2",
    "passt",
];

/// What tests with PostgreSQL need.
pub const POSTGRES: &[&str] = &["postgresql"];

/// What the tests of the page need, where no Node.js is installed by other means.
pub const NODE: &[&str] = &["nodejs", "npm"];

/// Installs those of `wanted` that are missing. Asks first when a person is at the terminal.
pub fn ensure(wanted: &[&str], yes: bool) -> anyhow::Result<()> {
    let missing: Vec<&str> = wanted.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if answer("apt-get", &["--version"]).is_none() {
        bail!(
            "this host lacks {}, and has no apt-get to install them; install what corresponds to \
             these Debian packages and run this again",
            missing.join(", ")
        );
    }
    if !yes && !agreed(&missing)? {
        bail!("nothing was installed; this needs {}", missing.join(", "));
    }
    let (program, mut first) = host::as_root("apt-get")?;
    let mut update = first.clone();
    update.extend(["update", "-qq"]);
    step("update the package lists", &mut command(&program, &update))?;
    // Another installation may be under way: wait for it instead of failing.
    first.extend([
        "-o",
        "DPkg::Lock::Timeout=300",
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
    ]);
    first.extend(&missing);
    let mut install = command(&program, &first);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    step(&format!("install {}", missing.join(", ")), &mut install)
}

fn installed(package: &str) -> bool {
    let status = answer("dpkg-query", &["-W", "-f", "${Status}", package]);
    status.is_some_and(|status| status == "install ok installed")
}

fn agreed(missing: &[&str]) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    eprint!("These Debian packages are needed: {}. Install them? [Y/n] ", missing.join(", "));
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("cannot read the answer")?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
}
