//! `cargo xtask vm-test`: one promise about real machines each, tried, and printed as it was seen.

pub mod clones;
pub mod crash;
pub mod kill;
mod scene;
pub mod sealed;

/// Try one promise about real machines, and print what was seen
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    promise: Promise,
}

#[derive(Debug, clap::Subcommand)]
enum Promise {
    Clones(clones::Args),
    Crash(crash::Args),
    Kill(kill::Args),
    Sealed(sealed::Args),
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.promise {
        Promise::Clones(args) => clones::run(args),
        Promise::Crash(args) => crash::run(args),
        Promise::Kill(args) => kill::run(args),
        Promise::Sealed(args) => sealed::run(args),
    }
}
