//! `callbox bench burst`: many starts at once, at a cloud that limits how often it is asked.

mod cloud;
mod report;
mod scene;
mod table;

use crate::bench::host::Host;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::progress::Progress;
use clap::ValueEnum;
use report::Report;
use scene::Plan;

/// Machines of an organisation that has asked Fly for more than it gives at first.
const RAISED: u32 = 250;

/// Ask for many sessions at once, at a stand-in for a cloud with its documented limits
///
/// Starts a stand-in for Fly's Machines API and a dispatcher of its own for each scene, asks for
/// all sessions at once, ends each as soon as its bot is ready, and prints how long they took, what
/// Fly was asked, and what was left. Nothing really runs in the machines, but the times that Fly
/// takes are imitated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Percentiles are by nearest rank: every number printed was measured. The stand-in's times (finding a
host, pulling an image, booting) are drawn, the same in every run; its limits are those that Fly
documents: one create a second for each app, three at once, some 50 machines.
Scenes: one app and no reserve; three apps; one app with a reserve of as many machines as there are
starts (and a machine cap that was raised for it).

Exit codes: 0 measured · 1 error · 2 usage · 4 sessions failed, machines were bought twice or left

Examples:
  callbox bench burst --provider fly
  callbox bench burst --n 20 --scene one-app --json
  callbox bench burst --n 100 --max-queued 30          the others are told when to come back")]
pub struct Args {
    /// Whose API is imitated
    #[arg(long, value_enum, default_value = "fly")]
    provider: Cloudy,

    /// How many sessions are asked for at once
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    n: u32,

    /// Only these scenes; more than one may be given
    #[arg(long, value_enum)]
    scene: Vec<Show>,

    /// How many may wait for their turn; as many as are asked for when absent
    #[arg(long, value_name = "N")]
    max_queued: Option<u32>,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Whose API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cloudy {
    /// Fly's Machines API
    Fly,
}

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Show {
    /// One app, no reserve
    OneApp,
    /// Three apps, no reserve
    ThreeApps,
    /// One app, and a stopped machine in reserve for each start
    StoppedReserve,
}

impl Show {
    fn plan(self, args: &Args) -> Plan {
        let starts = args.n as usize;
        let (name, apps, reserve, kind) = match self {
            Show::OneApp => ("one app", 1, 0, None),
            Show::ThreeApps => ("three apps", 3, 0, None),
            Show::StoppedReserve => ("stopped reserve", 1, starts, Some("stopped")),
        };
        let machine_cap = match kind {
            None => callbox_fly::limits::MACHINES_PER_ORG,
            Some(_) => RAISED.max(args.n * 2 + 50),
        };
        let max_queued = args.max_queued.unwrap_or(args.n) as usize;
        Plan { name: name.to_owned(), apps, reserve, kind, machine_cap, starts, max_queued }
    }
}

/// Measures and prints; fails where anything happened that must not.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let Cloudy::Fly = args.provider;
    let report = super::unless_interrupted(measure(&args, context)).await?;
    if args.json {
        output::json(&report)?;
    } else {
        output::text(&table::draw(&report, context.look))?;
    }
    let failed = report.scenes.iter().filter(|scene| !scene.good()).count();
    match failed {
        0 => Ok(()),
        failed => Err(CliError::BenchFailed { failed, runs: report.scenes.len() }),
    }
}

async fn measure(args: &Args, context: &Context) -> Result<Report, CliError> {
    let progress = Progress::new(context.quiet());
    let all = [Show::OneApp, Show::ThreeApps, Show::StoppedReserve];
    let wanted = |show: &Show| args.scene.is_empty() || args.scene.contains(show);
    let mut scenes = Vec::new();
    for show in all.into_iter().filter(wanted) {
        scenes.push(scene::run(&show.plan(args), &progress).await?);
    }
    progress.done();
    Ok(Report {
        benchmark: "burst",
        provider: "fly",
        callbox: env!("CARGO_PKG_VERSION"),
        at: jiff::Timestamp::now(),
        host: Host::describe(),
        optimized: !cfg!(debug_assertions),
        starts: args.n as usize,
        scenes,
    })
}
