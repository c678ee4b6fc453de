//! `callbox bench start`: real starts, from the request to the first sound.

use std::time::Duration;

use callbox_protocol::api::StartRequest;
use clap::ValueEnum;
use tokio::task::JoinSet;

use super::host::Host;
use super::report::{Report, Run};
use crate::api_client::ApiClient;
use crate::caller::{self, Placed, Plan};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::progress::Progress;

/// Start sessions and show how long each stage takes
///
/// Each run is a whole call: start, join by websocket, wait for the first sound of the bot, hang
/// up, wait until nothing of the session is left. A run that the dispatcher did not start as
/// --from says is a failed run and not part of the numbers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Percentiles are by nearest rank: every number printed was measured.

Exit codes: 0 all runs are good · 1 error · 2 usage · 4 runs failed

Examples:
  callbox bench start --from clone --n 50
  callbox bench start --from cold --n 5 --bot parrot --json > cold.json
  callbox bench start --from reserve --n 20 --mode burst")]
pub struct Args {
    /// How the bot is configured to start; checked against what the sessions report
    #[arg(long, value_enum)]
    from: From,

    /// How many starts
    #[arg(long, short, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    n: u32,

    /// One after the other, or all at once
    #[arg(long, value_enum, default_value_t = Mode::Seq)]
    mode: Mode,

    /// Which bot; may be left out where one is configured
    #[arg(long, value_name = "NAME")]
    bot: Option<String>,

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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// One after the other
    Seq,
    /// All at once
    Burst,
}

/// Measures and prints; fails where a run did.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let progress = Progress::new(context.quiet());
    progress.doing("starting");
    let from = word(args.from);
    let runs = match args.mode {
        Mode::Seq => one_by_one(&client, &args, &progress).await?,
        Mode::Burst => all_at_once(&client, &args, &progress).await?,
    };
    progress.done();
    let report = Report::new(from, word(args.mode), runs, Host::describe());
    if args.json {
        output::json(&report)?;
    } else {
        output::text(&report.table(context.look))?;
    }
    match report.failed() {
        0 => Ok(()),
        failed => Err(CliError::BenchFailed { failed, runs: args.n as usize }),
    }
}

async fn one_by_one(
    client: &ApiClient,
    args: &Args,
    progress: &Progress,
) -> Result<Vec<Run>, CliError> {
    let mut runs = Vec::new();
    for _ in 0..args.n {
        runs.push(one(client.clone(), plan(args), args.from).await?);
        tell(progress, &runs, args.n);
    }
    Ok(runs)
}

async fn all_at_once(
    client: &ApiClient,
    args: &Args,
    progress: &Progress,
) -> Result<Vec<Run>, CliError> {
    let mut calls = JoinSet::new();
    for _ in 0..args.n {
        calls.spawn(one(client.clone(), plan(args), args.from));
    }
    let mut runs = Vec::new();
    while let Some(run) = calls.join_next().await {
        runs.push(run.unwrap_or_else(|error| Ok(Run::failed(error.to_string())))?);
        tell(progress, &runs, args.n);
    }
    Ok(runs)
}

/// One run. An error only where the user wants to stop.
async fn one(client: ApiClient, plan: Plan, from: From) -> Result<Run, CliError> {
    match caller::place(&client, &plan, &Progress::silent()).await {
        Ok(Placed { trouble: Some(CliError::Interrupted), .. }) | Err(CliError::Interrupted) => {
            Err(CliError::Interrupted)
        }
        Ok(placed) => Ok(judge(placed, from)),
        Err(error) => Ok(Run::failed(error.to_string())),
    }
}

fn judge(placed: Placed, from: From) -> Run {
    let start = placed.session.start.as_deref().unwrap_or("unknown");
    let failure = if let Some(trouble) = &placed.trouble {
        Some(reason(trouble))
    } else if start != word(from) {
        Some(format!("started from {start}, not from {}", word(from)))
    } else if placed.heard.first_sound.is_none() {
        let who = if placed.cut_off { "the bot hung up" } else { "the time was up" };
        Some(format!("no sound was heard before {who}"))
    } else {
        None
    };
    Run::of(placed.session, placed.client_ms, failure)
}

/// The same trouble in the same words, so that it can be counted: no session id.
fn reason(trouble: &CliError) -> String {
    match trouble {
        CliError::SessionFailed { reason, .. } => format!("{}: {}", reason.code, reason.detail),
        other => other.to_string(),
    }
}

fn plan(args: &Args) -> Plan {
    let patience = Duration::from_secs(args.timeout);
    Plan {
        request: StartRequest {
            bot: args.bot.clone(),
            transport: Some("websocket".to_owned()),
            ..StartRequest::default()
        },
        speech: Vec::new(),
        longest: patience,
        patience,
    }
}

fn tell(progress: &Progress, runs: &[Run], of: u32) {
    let failed = runs.iter().filter(|run| run.failure.is_some()).count();
    progress.count(runs.len(), of as usize, failed);
}

/// The word of a choice, as it is typed.
fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
