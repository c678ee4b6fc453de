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
mod doctor;
mod error;
mod follow;
mod heard;
mod image;
mod keys;
mod line;
mod logs;
mod lookup;
mod media;
mod operator;
mod output;
mod pcm;
mod progress;
mod ps;
mod secret;
mod serve;
mod show;
mod similarity;
mod speech;
mod sse;
mod stages;
mod stop;
mod sweep;
mod template;
mod terminal;
mod tls;
mod waterfall;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    // clap itself ends with 2 where the command line cannot be understood.
    match cli::run(cli::Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}
