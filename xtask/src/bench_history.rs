//! `cargo xtask bench-history`: is a start as quick with millions of ended sessions as with none?

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    host,
    postgres::Postgres,
    steps::{step, text},
};

/// Compare starts beside ended sessions with starts without, in one run
///
/// Two stores, one empty and one with so many ended sessions, in turns: a start (insert) and the
/// saves of its life. Needs about 1.7 kB of disk for each session in the directory for temporary
/// files (TMPDIR), and removes everything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ended sessions in the filled store
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    rows: u64,
    /// Starts that are measured in each store
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    n: usize,
    /// Which store
    #[arg(long, value_enum, default_value = "sqlite")]
    store: Kind,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Install packages without asking
    #[arg(long, short)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A file
    Sqlite,
    /// A server of our own
    Postgres,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let build = ["build", "--locked", "--release", "-p", "callbox-server", "--example", "history"];
    step("build the comparison", &mut host::cargo(&build))?;
    let program = host::target().join("release/examples/history");
    let (rows, starts) = (args.rows.to_string(), args.n.to_string());
    let compare = |kind: &str, place: &str| {
        eprintln!("── fill a store with {rows} ended sessions, then {starts} starts in each");
        let mut compare = std::process::Command::new(&program);
        let output =
            compare.args([kind, place, &rows, &starts]).stderr(std::process::Stdio::inherit());
        let output = output.output().context("cannot run the comparison")?;
        if !output.status.success() {
            bail!("the comparison ended with {}", output.status);
        }
        serde_json::from_slice::<Value>(&output.stdout).context("its answer is no JSON")
    };
    let report = match args.store {
        Kind::Sqlite => {
            let place = Place::new()?;
            compare("sqlite", text(&place.0))?
        }
        Kind::Postgres => {
            let server = Postgres::start(args.yes)?;
            compare("postgres", &server.url)?
        }
    };
    if args.json {
        println!("{report}");
    } else {
        show(&report);
    }
    Ok(())
}

fn show(report: &Value) {
    println!(
        "{} with {} ended sessions, {} starts",
        report["store"].as_str().unwrap_or_default(),
        report["rows"],
        report["starts"]
    );
    println!("{:<14} {:>12} {:>12} {:>8}", "", "empty, µs", "filled, µs", "ratio");
    for what in ["insert", "save"] {
        for part in ["p50", "p99"] {
            let line = &report[what][part];
            println!(
                "{:<14} {:>12} {:>12} {:>8}",
                format!("{what} {part}"),
                line["empty_us"],
                line["full_us"],
                line["ratio"]
            );
        }
    }
    println!("pages of the list, ms: {}", report["list_ms"]);
    println!("removing 200 sessions, ms: {}", report["prune_200_ms"]);
}

/// A directory, removed when it is dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Place> {
        let dir = std::env::temp_dir().join(format!("callbox-history-{}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Place(dir))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
