//! `callbox bench`: how fast, as a distribution, and how many.

mod burst;
mod dispatcher;
mod distribution;
mod host;
mod load;
mod report;
mod reserve;
mod run;
mod start;
mod summary;
mod table;

use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::error::CliError;

/// Measure a dispatcher
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Start(start::Args),
    Load(load::Args),
    Burst(burst::Args),
}

/// Measures.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    match args.what {
        What::Start(args) => start::run(args, context).await,
        What::Load(args) => load::run(args, context).await,
        What::Burst(args) => burst::run(args, context).await,
    }
}

/// What is measured, unless a signal ends it. What is dropped then takes its dispatcher, its
/// directory and whatever else it began with it.
async fn unless_interrupted<T>(
    measuring: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        measured = measuring => measured,
        _ = interrupt.recv() => Err(CliError::Interrupted),
        _ = terminate.recv() => Err(CliError::Interrupted),
    }
}
