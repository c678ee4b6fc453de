//! `cargo xtask sim`: builds the simulation and hands everything over to it.

use std::process::{Command, Stdio};

use anyhow::bail;

use crate::{
    host::{self, cargo},
    steps::step,
};

/// Run dispatchers in a bad world, many times over, each time from a seed
///
/// `cargo xtask sim --help` prints what the simulation itself takes, and docs/simulation.md says
/// what it is for.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Build it with optimizations: for many seeds
    #[arg(long)]
    release: bool,
    /// What the simulation is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Exits as the simulation does.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let rest: Vec<&str> = args.args.iter().map(String::as_str).collect();
    let status = simulation(args.release)?.args(rest).status()?;
    std::process::exit(status.code().unwrap_or(1));
}

/// Builds it; the program, to be told what to do.
fn simulation(release: bool) -> anyhow::Result<Command> {
    let mut build =
        vec!["build", "--locked", "--quiet", "-p", "callbox-sim", "--features", "planted"];
    build.extend(release.then_some("--release"));
    let built = cargo(&build).stdout(Stdio::null()).status()?;
    if !built.success() {
        bail!("the simulation cannot be built");
    }
    let profile = if release { "release" } else { "debug" };
    Ok(Command::new(host::target().join(profile).join("callbox-sim")))
}

/// What CI runs of it.
pub fn check() -> anyhow::Result<()> {
    let test = ["test", "--locked", "-p", "callbox-sim", "--features", "planted"];
    step("the simulation repeats itself", &mut cargo(&test))?;
    step("simulation, healthy", simulation(false)?.args(["--seeds", "300"]))?;
    step("simulation, planted faults", simulation(false)?.args(["--planted", "--seeds", "600"]))
}
