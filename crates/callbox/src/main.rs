//! The one binary `callbox`.
//!
//! `cli` says what can be typed; each command is a module with `Args` and `run`. The client
//! commands know a dispatcher only by its public API (`api_client`); `conversation`, `heard`,
//! `similarity` and `waterfall` are pure and hold everything that is worth a test without I/O.

mod api_client;
mod bench;
mod call;
mod caller;
mod cli;
mod completions;
mod config;
mod context;
mod conversation;
mod costs;
mod doctor;
mod drain;
mod error;
mod fly;
mod follow;
mod heard;
mod image;
mod keys;
mod line;
mod logs;
mod lookup;
mod machines;
mod media;
mod open_files;
mod operator;
mod output;
mod patience;
mod pcm;
mod progress;
mod ps;
mod relay;
mod replicas;
mod rollout;
mod rooms;
mod secret;
mod serve;
mod show;
mod similarity;
mod speech;
mod sse;
mod stages;
mod standin;
mod stop;
mod sweep;
mod template;
mod terminal;
mod tls;
mod transports;
mod waterfall;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // clap itself ends with 2 where the command line cannot be understood.
    let cli = cli::Cli::parse();
    let outcome = match &cli.command {
        // There is one of these for every call, so it does without our threads.
        cli::Command::Relay { .. } => relay::run(),
        _ => in_runtime(cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn in_runtime(cli: cli::Cli) -> Result<(), error::CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(cli::run(cli))
}
