//! The simulation: dispatchers, clients and a bad world in one thread, in a time of its own.
//!
//! What it is for, and what it shows: `docs/simulation.md`. Start reading at `run`.

mod audit;
mod clients;
mod determinism;
mod dice;
mod dispatcher;
mod many;
mod planted;
mod run;
mod weather;
mod world;

use clap::Parser;

/// Run dispatchers in a bad world, many times over, each from a seed
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
pub struct Args {
    /// How many seeds
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// Only this seed, with everything that happened in it
    #[arg(long)]
    seed: Option<u64>,
    /// The first of the seeds
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    from: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Plant this fault, which must be noticed
    #[arg(long, value_name = "FAULT")]
    plant: Option<String>,
    /// Plant every fault, one after the other, and print which seed noticed it as what
    #[arg(long, conflicts_with_all = ["plant", "seed"])]
    planted: bool,
    /// Print every line of the trace as it comes (with --seed)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print what the dispatchers themselves log, as of this filter (with --seed)
    #[arg(long, requires = "seed", value_name = "FILTER")]
    log: Option<String>,
    /// One line of JSON, for the process that runs many of these
    #[arg(long, hide = true, requires = "seed")]
    child: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let passed = match args.seed {
        Some(seed) => one(&args, seed)?,
        None if args.planted => many::planted(&args)?,
        None => many::seeds(&args)?,
    };
    std::process::exit(i32::from(!passed));
}

/// Runs one seed here; tells whether nothing was found.
fn one(args: &Args, seed: u64) -> anyhow::Result<bool> {
    if let Some(fault) = &args.plant {
        planted::plant(fault)?;
    }
    if let Some(filter) = &args.log {
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        lines.with_ansi(false).without_time().init();
    }
    let found = run::run(seed, args.trace)?;
    if args.child || args.json {
        println!("{}", found.json(seed));
    } else {
        many::print_one(seed, &found);
    }
    Ok(found.violations.is_empty())
}
