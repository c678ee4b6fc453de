//! What can be typed.

use clap::{Parser, Subcommand};

use crate::context::{Context, GlobalArgs};
use crate::error::CliError;
use crate::{
    bench, call, completions, config, costs, doctor, drain, image, keys, logs, machines, ps,
    replicas, rollout, rooms, serve, show, stop, sweep, template,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    it worked; for `call`: audio came back
  1    error: the dispatcher was not reached, refused, or answered nonsense
  2    the command line or a file it names cannot be used
  3    the call was made, but no audio came back
  4    the session failed (its reason, and what to do, are printed)
  130  interrupted by Ctrl-C; what was started is being ended

Examples:
  callbox call                      call the bot, say hello, listen, show how fast it was
  callbox ps                        the sessions that are alive
  callbox show 3f9c                 one session and where its time went
  callbox bench start --from clone --n 50";

/// Every call gets its own machine.
///
/// callbox starts a fresh machine for every call of a voice bot. This program is both the
/// dispatcher and its client; the client commands talk to the dispatcher at --url.
#[derive(Debug, Parser)]
#[command(name = "callbox", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Call(call::Args),
    Ps(ps::Args),
    Show(show::Args),
    Logs(logs::Args),
    Stop(stop::Args),
    Drain(drain::Args),
    Rollout(rollout::Args),
    Replicas(replicas::Args),
    Costs(costs::Args),
    Bench(bench::Args),
    Serve(serve::Args),
    Image(image::Args),
    Machines(machines::Args),
    Rooms(rooms::Args),
    Template(template::Args),
    Keys(keys::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Sweep(sweep::Args),
    Completions(completions::Args),
    /// Carry one call (`callbox serve` starts this, with the call on its standard input)
    #[command(hide = true)]
    Relay {
        /// The session, for whoever looks at the list of processes
        session: Option<String>,
    },
}

/// Runs what was typed.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Call(args) => call::run(args, &context).await,
        Command::Ps(args) => ps::run(args, &context).await,
        Command::Show(args) => show::run(args, &context).await,
        Command::Logs(args) => logs::run(args, &context).await,
        Command::Stop(args) => stop::run(args, &context).await,
        Command::Drain(args) => drain::run(args, &context).await,
        Command::Rollout(args) => rollout::run(args, &context).await,
        Command::Replicas(args) => replicas::run(args, &context).await,
        Command::Costs(args) => costs::run(args, &context).await,
        Command::Bench(args) => bench::run(args, &context).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Image(args) => image::run(args, &context).await,
        Command::Machines(args) => machines::run(args).await,
        Command::Rooms(args) => rooms::run(args).await,
        Command::Template(args) => template::run(args, &context).await,
        Command::Keys(args) => keys::run(args).await,
        Command::Config(args) => config::run(args, &context),
        Command::Doctor(args) => doctor::run(args, &context).await,
        Command::Sweep(args) => sweep::run(args, &context).await,
        Command::Completions(args) => completions::run(args),
        Command::Relay { .. } => crate::relay::run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
