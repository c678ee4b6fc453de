//! `callbox bench start`: real starts, from the request to the first sound.

use std::time::{Duration, Instant};

use callbox_protocol::api::StartRequest;
use clap::ValueEnum;
use tokio::task::JoinSet;

use super::host::Host;
use super::report::{Idle, Report};
use super::run::{Run, one};
use super::summary::Summary;
use super::{reserve, table};
use crate::api_client::ApiClient;
use crate::caller::Plan;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::progress::Progress;

/// Start sessions and show how long each stage takes
///
/// Each run is a whole call: start, join by websocket, wait for the first sound of the bot, hang
/// up, wait until nothing of the session is left. A run that the dispatcher did not start as
/// --from says is counted as such and not part of the numbers. Before a run from the reserve, the
/// reserve is waited for until it is full.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Percentiles are by nearest rank: every number printed was measured.
`overhead` is what is left between admitted and started when the machine's own stages (boot,
prepare, restore, resume, hello, wake) are taken away; spawn and claim are ours.
In a burst, who is refused with Retry-After has not failed.

Exit codes: 0 all runs are good · 1 error · 2 usage · 4 runs failed

Examples:
  callbox bench start --from clone --n 50
  callbox bench start --from cold --n 5 --bot parrot --json > cold.json
  callbox bench start --from clone --mode both --n 20
  callbox bench start --from reserve --n 20 --idle 600
  callbox bench start --from all --bot cold=slow --bot clone=parrot --bot reserve=quick")]
pub struct Args {
    /// How the bot is configured to start; checked against what the sessions report
    #[arg(long, value_enum)]
    from: From,

    /// How many starts
    #[arg(long, short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    n: u32,

    /// One after the other, all at once, or first the one and then the other
    #[arg(long, value_enum, default_value_t = Mode::Seq)]
    mode: Mode,

    /// Which bot; may be left out where one is configured. With --from all, one for each:
    /// `--bot cold=NAME --bot clone=NAME --bot reserve=NAME`
    #[arg(long, value_name = "[FROM=]NAME")]
    bot: Vec<String>,

    /// After sequential runs from the reserve, let the full reserve idle this long and measure
    /// its first use
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle: Option<u64>,

    /// A run without a sound by then has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// Boot a machine and start the bot in it
    Cold,
    /// Clone the bot's template
    Clone,
    /// Take a machine that was prepared before the request
    Reserve,
    /// All three, one after the other, and their ratios
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// One after the other
    Seq,
    /// All at once
    Burst,
    /// One after the other, then all at once, and their ratio
    Both,
}

/// Measures and prints; fails where a run did.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    if args.idle.is_some() && (args.from != From::Reserve || args.mode == Mode::Burst) {
        let text = "--idle measures sequential runs: use it with --from reserve --mode seq";
        return Err(CliError::Usage(text.to_owned()));
    }
    let client = context.client()?;
    let progress = Progress::new(context.quiet());
    progress.doing("starting");
    let froms = match args.from {
        From::All => vec![From::Cold, From::Clone, From::Reserve],
        one => vec![one],
    };
    let modes = match args.mode {
        Mode::Both => vec![Mode::Seq, Mode::Burst],
        one => vec![one],
    };
    let mut reports = Vec::new();
    for from in froms {
        for mode in &modes {
            let bench =
                Bench { args: &args, client: &client, progress: &progress, from, mode: *mode };
            reports.push(bench.report().await?);
        }
    }
    progress.done();
    let (failed, runs) =
        reports.iter().fold((0, 0), |(f, r), report| (f + report.failed(), r + report.runs()));
    let summary = Summary::of(reports);
    if args.json {
        summary.print_json()?;
    } else {
        output::text(&table::draw(&summary, context.look))?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::BenchFailed { failed, runs }),
    }
}

/// One kind of start in one mode.
struct Bench<'a> {
    args: &'a Args,
    client: &'a ApiClient,
    progress: &'a Progress,
    from: From,
    mode: Mode,
}

impl Bench<'_> {
    async fn report(&self) -> Result<Report, CliError> {
        let begun = Instant::now();
        let runs = match self.mode {
            Mode::Burst => self.all_at_once().await?,
            Mode::Seq | Mode::Both => self.one_by_one().await?,
        };
        let wall = begun.elapsed();
        let mut report =
            Report::new(word(self.from), word(self.mode), runs, wall, Host::describe());
        if let Some(seconds) = self.args.idle.filter(|_| self.mode == Mode::Seq) {
            self.full().await?;
            self.progress.doing("letting the reserve idle");
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let first = self.one().await?;
            report.set_idle(Idle::of(seconds, first));
        }
        Ok(report)
    }

    async fn one_by_one(&self) -> Result<Vec<Run>, CliError> {
        let mut runs = Vec::new();
        for _ in 0..self.args.n {
            self.full().await?;
            let mut run = self.one().await?;
            // Alone, nobody has a reason to be served otherwise than was asked for.
            if run.otherwise {
                let start = run.start.as_deref().unwrap_or("unknown");
                run.failure = Some(format!("started from {start}, not from {}", word(self.from)));
            }
            if let Some(seconds) = run.retry_after_s {
                run.failure = Some(format!("refused, to be repeated after {seconds} s"));
            }
            runs.push(run);
            self.tell(&runs);
        }
        Ok(runs)
    }

    async fn all_at_once(&self) -> Result<Vec<Run>, CliError> {
        self.full().await?;
        let mut calls = JoinSet::new();
        for _ in 0..self.args.n {
            let (client, plan, from) = (self.client.clone(), self.plan(), word(self.from));
            calls.spawn(async move { one(&client, plan, from).await });
        }
        let mut runs = Vec::new();
        while let Some(run) = calls.join_next().await {
            runs.push(run.unwrap_or_else(|error| Ok(Run::failed(error.to_string())))?);
            self.tell(&runs);
        }
        Ok(runs)
    }

    async fn one(&self) -> Result<Run, CliError> {
        one(self.client, self.plan(), word(self.from)).await
    }

    async fn full(&self) -> Result<(), CliError> {
        if self.from != From::Reserve {
            return Ok(());
        }
        let patience = Duration::from_secs(self.args.timeout);
        reserve::until_full(self.client, self.bot().as_deref(), patience).await
    }

    /// The bot for this kind of start: the one that names it, else the one that names none.
    fn bot(&self) -> Option<String> {
        let from = word(self.from);
        let of = |entry: &String| match entry.split_once('=') {
            Some((kind, name)) => (kind == from).then(|| name.to_owned()),
            None => None,
        };
        let any = || self.args.bot.iter().find(|entry| !entry.contains('=')).cloned();
        self.args.bot.iter().find_map(of).or_else(any)
    }

    fn plan(&self) -> Plan {
        let patience = Duration::from_secs(self.args.timeout);
        Plan {
            request: StartRequest {
                bot: self.bot(),
                transport: Some("websocket".to_owned()),
                ..StartRequest::default()
            },
            speech: Vec::new(),
            longest: patience,
            patience,
        }
    }

    fn tell(&self, runs: &[Run]) {
        let failed = runs.iter().filter(|run| run.failure.is_some()).count();
        self.progress.count(runs.len(), self.args.n as usize, failed);
    }
}

/// The word of a choice, as it is typed.
fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
