//! Where we are and as whom.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::steps::answer;

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Whether we are root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Cargo, as the person who called us: what root builds, that person could not build again.
pub fn cargo(args: &[&str]) -> Command {
    let mut cargo = match std::env::var("SUDO_USER") {
        Ok(user) if is_root() && user != "root" => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-u", &user, KEPT, "cargo"]);
            sudo
        }
        _ => Command::new("cargo"),
    };
    cargo.args(args).stdin(Stdio::null()).current_dir(root());
    cargo
}

/// What both sides of a `sudo` must agree on.
const KEPT: &str = "--preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR,CI,\
                    CALLBOX_TEST_POSTGRES";

/// How to run `program` as root: program and first arguments.
pub fn as_root(program: &'static str) -> anyhow::Result<(String, Vec<&'static str>)> {
    if is_root() {
        return Ok((program.to_owned(), Vec::new()));
    }
    if answer("sudo", &["--version"]).is_some() {
        return Ok(("sudo".to_owned(), vec![program]));
    }
    bail!("{program} needs root, and there is no sudo; run this as root")
}

/// Building images needs root. Cargo's own output must stay ours, so only this program changes.
pub fn again_as_root() -> anyhow::Result<()> {
    if answer("sudo", &["--version"]).is_none() {
        bail!("images are built as root, and there is no sudo; run this as root");
    }
    eprintln!("images are built as root: going on with sudo");
    let us = std::env::current_exe()?;
    let mut command = Command::new("sudo");
    command.arg(KEPT).arg(us);
    let status = command.args(std::env::args_os().skip(1)).status().context("cannot run sudo")?;
    std::process::exit(status.code().unwrap_or(1));
}
