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
