//! `cargo xtask vm-test kill`: whoever dies, calls go on, and nothing is left behind.
//!
//! Sessions are started, joined, talked in and ended by clients that do not give up; meanwhile
//! the dispatcher is killed at a random point of that, again and again, and started anew on the
//! same data directory and address. In some rounds it is a machine's QEMU that is killed, or the
//! relay of a call, or the dispatcher is replaced in place. One more call stands through all
//! rounds. After each, the host is searched for what belongs to nobody (`scene/host.rs`).
//!
//! A seed repeats what is drawn: the order of deaths, the plans of clients, and where in the life
//! of a session a death falls, as a part of how long such a life took so far. The rest is timing.

mod control;
mod random;
mod report;
mod round;
mod tally;

use std::path::Path;

use super::scene::{Store, dispatcher::Home};
use crate::{build, host as here, packages, test};
use report::Report;
use round::Rounds;

/// Kill dispatchers, machines and relays at random points, and look what becomes of calls
///
/// Exit code 1 if anything is left that belongs to nobody, a session has two machines, one that was
/// acknowledged is unknown, or a call is cut or loses audio by a dispatcher's death.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many rounds, with a death in each
    #[arg(long, short, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10000))]
    n: u16,
    /// Where sessions are kept
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// Repeats what an earlier run has drawn
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Install packages without asking
    #[arg(long, short)]
    yes: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if !here::is_root() {
        return here::again_as_root();
    }
    packages::ensure(packages::MACHINES, args.yes || std::env::var_os("CI").is_some())?;
    let callbox = build::callbox(false)?;
    let data_dir = test::data_dir()?;
    if !check(&callbox, &data_dir, args)? {
        std::process::exit(1);
    }
    Ok(())
}

impl Args {
    /// What `cargo xtask test vm` asks for: each kind of death at least once.
    pub fn of_tests() -> [Args; 2] {
        let on = |store, n| Args { n, store, seed: None, json: false, yes: true };
        [on(Store::Sqlite, 16), on(Store::Postgres, 8)]
    }
}

/// Whether all is as promised. What was seen is printed in any case.
pub fn check(callbox: &Path, data_dir: &Path, args: &Args) -> anyhow::Result<bool> {
    build::image(callbox, data_dir, "tiny.toml")?;
    let seed = args.seed.unwrap_or_else(from_the_clock);
    let (n, name) = (args.n, args.store.name());
    eprintln!("── {n} rounds with a death in each, store {name}, seed {seed}");
    let server = args.store.serve(args.yes)?;
    let home = Home::new(callbox, data_dir, server.as_ref().map(|server| server.url.clone()))?;
    let ran = Rounds::run(&home, seed, args.n);
    if ran.is_err() {
        // Its dispatcher is gone; what it had goes as its users would remove it.
        let _ = home.sweep(&[]);
        eprintln!("kept: {}", home.path.display());
    }
    let (tally, took) = ran?;
    let report = Report { seed, tally: &tally, took, kept: &home.path };
    if args.json {
        println!("{:#}", report.json());
    } else {
        report.print();
    }
    if report.ok() {
        home.remove()?;
    }
    Ok(report.ok())
}

fn from_the_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_millis() as u64 % 1_000_000)
}
