//! What cargo alone cannot do: the demo, and everything that CI runs.
//!
//! `cargo xtask demo` gives a stranger a real call in a real machine; `cargo xtask test` installs
//! what tests need and runs them; `cargo xtask vm-test` proves one promise about real machines and
//! prints what it saw; `cargo xtask sim` does the same for dispatchers in a bad world. All keep what is slow to make under `target/`, and tell
//! what they are doing and how long it took.

mod bench_history;
mod build;
mod demo;
mod host;
mod livekit;
mod packages;
mod place;
mod postgres;
mod rooms;
mod sim;
mod steps;
mod test;
mod vm_test;

use clap::{Parser, Subcommand};

/// What cargo alone cannot do.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    BenchHistory(bench_history::Args),
    Demo(demo::Args),
    Sim(sim::Args),
    Test(test::Args),
    VmTest(vm_test::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::BenchHistory(args) => bench_history::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Test(args) => test::run(&args),
        Command::VmTest(args) => vm_test::run(&args),
    }
}
