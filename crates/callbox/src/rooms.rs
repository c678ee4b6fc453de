//! `callbox rooms`: a stand-in for Daily's API on this host.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use callbox_standins::daily::{Settings, StandIn};
use clap::Subcommand;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{error::CliError, output, standin};

/// Stand in for Daily's REST API on this host
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArgs),
}

/// Serve a stand-in for Daily's REST API
///
/// Rooms, meeting tokens, presence, webhooks, limits, errors and troubles of Daily's API, for
/// whoever writes against it. There is no audio: who comes into a room is a name on a list, which
/// `POST /standin/rooms/{name}/people` with a token puts there. What is imitated and what is a
/// guess: docs/daily.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 ended by a signal · 1 cannot serve · 2 an option cannot be used

Example:
  callbox rooms serve --trouble trouble.json")]
struct ServeArgs {
    /// Where the API is served; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:4290", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The key that opens it and signs tokens
    #[arg(
        long,
        env = "CALLBOX_STANDIN_DAILY_KEY",
        hide_env_values = true,
        value_name = "API_KEY",
        default_value = "callbox-standin-key"
    )]
    api_key: String,
    /// Refuse nothing for coming too often
    #[arg(long)]
    no_limits: bool,
    /// Troubles from the start: a file with a JSON list of them
    #[arg(long, value_name = "FILE")]
    trouble: Option<PathBuf>,
    /// Print what there is as one line of JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Serving {
    is: &'static str,
    url: String,
    env: BTreeMap<&'static str, String>,
}

/// Runs what was typed.
pub async fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Serve(args) => serve(args).await,
    }
}

async fn serve(args: ServeArgs) -> Result<(), CliError> {
    standin::log();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let troubles = args.trouble.as_deref().map(|path| standin::troubles(path, |_| Ok(())));
    let troubles = troubles.transpose()?.unwrap_or_default();
    let listening = TcpListener::bind(args.listen).await;
    let listener = listening.map_err(|source| CliError::Listen { address: args.listen, source })?;
    let address = listener.local_addr()?;
    let standin = StandIn::new(Settings {
        api_key: args.api_key.clone(),
        limits: !args.no_limits,
        ..Settings::default()
    });
    troubles.into_iter().for_each(|trouble| standin.add_trouble(trouble));
    announce(&args, address)?;
    tracing::info!(%address, "a stand-in for Daily's API: nothing of this is Daily");
    tokio::select! {
        served = standin.serve(listener) => served?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn announce(args: &ServeArgs, address: SocketAddr) -> Result<(), CliError> {
    let url = format!("http://{address}/v1");
    // The one place where a key is printed: it opens nothing but this.
    let env = [("DAILY_API_URL", url.clone()), ("DAILY_API_KEY", args.api_key.clone())].into();
    let is = "a stand-in for Daily's API on this host: nothing of this is Daily";
    let serving = Serving { is, url, env };
    if args.json {
        return output::json_line(&serving);
    }
    let Serving { is, url, env } = serving;
    let env: String = env.iter().map(|(name, value)| format!("  {name}={value}\n")).collect();
    output::text(&format!("{is}\n\nurl  {url}\n\nClients find it by their environment:\n{env}"))
}
