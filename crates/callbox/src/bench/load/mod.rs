//! `callbox bench load`: how many sessions one dispatcher carries, and how fast it starts and
//! ends them beside those.
//!
//! Nothing really runs: machines are fake, so that what is measured is the dispatcher. They live
//! in its process, and their part of its memory is measured apart (`machines`).

mod callers;
pub mod footprint;
mod machines;
mod report;
mod round;
mod shot;
mod table;

use std::time::Duration;

use crate::context::Context;
use crate::error::CliError;
use crate::open_files;
use crate::output;
use crate::progress::Progress;
use report::Report;

/// Carry many sessions in one dispatcher, and start and end more beside them
///
/// Starts a dispatcher of its own (fake machines, a directory of its own), fills it with sessions
/// whose clients are in their calls, and measures what it takes: memory, processor time while
/// nothing happens, and how fast sessions start and end beside those that live. Client and
/// dispatcher share this host's processors, and the client's part is said.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Percentiles are by nearest rank: every number printed was measured.
Memory is what the dispatcher's process has in RAM (PSS), less what it had when it was empty. It
contains the fake machines; what one takes alone is printed beside it. As many clients join as this
process may have files open (`ulimit -n`); the other sessions have a bot that is ready.
The rate is the highest at which the 99th percentile of the answer to a start stays within
--within, found by trying; each start is counted from when it was due.

Exit codes: 0 measured · 1 error · 2 usage · 4 sessions failed

Examples:
  callbox bench load --sessions 1000
  callbox bench load --sessions 1000,10000,50000 --json > load.json
  callbox bench load --sessions 10000 --rate 200 --seconds 300")]
pub struct Args {
    /// How many sessions live at once; several, separated by commas, are measured one after the
    /// other
    #[arg(long, value_name = "N[,N...]", default_value = "1000", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=200_000))]
    sessions: Vec<u32>,

    /// How long sessions are started and ended beside them
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Starts a second; `auto` finds the highest
    #[arg(long, value_name = "auto|R", default_value = "auto")]
    rate: Rate,

    /// Bound for the 99th percentile of the answer to a start, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    within: u64,

    /// Where its sessions are kept, as `store` in a configuration; a file of its own when absent
    #[arg(long, value_name = "URL")]
    store: Option<String>,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Files that a process has open besides the sockets of the calls.
const FILES_BESIDE: u64 = 6144;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rate {
    Auto,
    PerSecond(f64),
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        if text == "auto" {
            return Ok(Rate::Auto);
        }
        let rate = text.parse().ok().filter(|rate| (0.01..=100_000.0).contains(rate));
        rate.map(Rate::PerSecond).ok_or_else(|| "neither `auto` nor a number of starts".into())
    }
}

/// Measures and prints; fails where a session did.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let report = super::unless_interrupted(measure(&args, context)).await?;
    if args.json {
        output::json(&report)?;
    } else {
        output::text(&table::draw(&report, context.look))?;
    }
    match report.failed() {
        (0, _) => Ok(()),
        (failed, runs) => Err(CliError::BenchFailed { failed, runs }),
    }
}

async fn measure(args: &Args, context: &Context) -> Result<Report, CliError> {
    let most = args.sessions.iter().copied().max().unwrap_or_default();
    // A socket for each session here and there, and some for the rest.
    let files = open_files::raise(Some(u64::from(most) + FILES_BESIDE)).unwrap_or(u64::MAX);
    let load_average = footprint::load_average();
    let progress = Progress::new(context.quiet());
    progress.doing("measuring what a fake machine takes");
    let machine = machines::alone().await.map_err(CliError::Serve)?;
    let plan = round::Plan {
        seconds: Duration::from_secs(args.seconds),
        rate: match args.rate {
            Rate::Auto => None,
            Rate::PerSecond(rate) => Some(rate),
        },
        within: Duration::from_millis(args.within),
        store: args.store.as_deref(),
        most_calls: usize::try_from(files.saturating_sub(FILES_BESIDE)).unwrap_or(usize::MAX),
    };
    let mut rounds = Vec::new();
    for sessions in &args.sessions {
        rounds.push(round::run(*sessions, &plan, &progress).await?);
    }
    progress.done();
    Ok(Report::new(machine, load_average, args.within, args.store.is_some(), rounds))
}
