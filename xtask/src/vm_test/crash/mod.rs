//! `cargo xtask vm-test crash`: a dispatcher that dies after each of its outside calls.
//!
//! A session is started, joined, talked in and ended by a client that does not give up. The calls
//! that its dispatcher makes for it on the way (to its store, to the provider, into the machine) are
//! counted in a first run. Then, for each of them, the same again with a dispatcher that ends its
//! process right after that call, before it makes anything of the answer; another one is started on
//! the same data directory and address, and the client goes on. The feature `crash-points` of
//! `callbox` does it; what is killed at other moments is in `kill`.

mod report;
mod sweep;

use std::path::Path;

use super::scene::{Store, dispatcher::Home};
use crate::{build, host as here, packages, test};
use report::Report;

/// End the dispatcher after each of its outside calls, and look what becomes of the session
///
/// Exit code 1 if a machine, a relay or a file of it is left, a session has two machines, a key
/// bought twice, or a session that was acknowledged is unknown or has no end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only on this store; on each of them one after the other, if absent
    #[arg(long, value_enum)]
    store: Option<Store>,
    /// Only after the call of this number
    #[arg(long)]
    after: Option<u64>,
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
    let data_dir = test::data_dir()?;
    if !check(&data_dir, args)? {
        std::process::exit(1);
    }
    Ok(())
}

impl Args {
    /// What `cargo xtask test vm` asks for: every call.
    pub fn of_tests() -> Args {
        Args { store: None, after: None, json: false, yes: true }
    }
}

/// Whether all is as promised. What was seen is printed in any case.
pub fn check(data_dir: &Path, args: &Args) -> anyhow::Result<bool> {
    let callbox = build::callbox_that_crashes()?;
    build::image(&callbox, data_dir, "tiny.toml")?;
    let stores = [Store::Sqlite, Store::Postgres].into_iter();
    let stores = stores.filter(|store| args.store.is_none_or(|only| only == *store));
    let reports = stores.map(|store| on_store(store, &callbox, data_dir, args));
    let reports: Vec<Report> = reports.collect::<anyhow::Result<_>>()?;
    if args.json {
        let all: Vec<_> = reports.iter().map(Report::json).collect();
        println!("{:#}", serde_json::Value::from(all));
    } else {
        reports.iter().for_each(Report::print);
    }
    Ok(reports.iter().all(Report::ok))
}

fn on_store(store: Store, callbox: &Path, data_dir: &Path, args: &Args) -> anyhow::Result<Report> {
    eprintln!("── a dispatcher that dies after each of its calls, store: {}", store.name());
    let server = store.serve(args.yes)?;
    let home = Home::new(callbox, data_dir, server.as_ref().map(|server| server.url.clone()))?;
    let swept = sweep::run(&home, args.after);
    if swept.is_err() {
        // Its dispatcher is gone; what it had goes as its users would remove it.
        let _ = home.sweep(&[]);
        eprintln!("kept: {}", home.path.display());
    }
    let report = Report { store: store.name(), crashes: swept? };
    if report.ok() {
        home.remove()?;
    }
    Ok(report)
}
