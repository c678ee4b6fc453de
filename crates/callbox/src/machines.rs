//! `callbox machines`: a stand-in for a provider's API on this host.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use callbox_fly::Token;
use callbox_standins::fly::backend::{Backend, Fake, Network, Program, Times, Vm, VmConfig, Way};
use callbox_standins::fly::trouble::Rule;
use callbox_standins::fly::{Limits, Settings, StandIn};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::CliError;
use crate::operator::{self, ConfigArgs, host_config};
use crate::output;
use crate::standin;

/// How long ending takes at most: as long as the longest boot that is given up.
const ENDING: Duration = Duration::from_secs(60);
/// Machines whose stand-in was killed end themselves after this time without it.
const ORPHAN_AFTER: Duration = Duration::from_secs(30);
/// The stand-in's own data directory, in that of callbox: machines in there are nobody else's.
const DIRECTORY: &str = "standin";

/// Stand in for Fly's Machines API on this host
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArgs),
}

/// Serve a stand-in for Fly's Machines API
///
/// The states, limits, errors and troubles of Fly's API, for whoever writes against it. Machines
/// are microVMs of this host (`vm`), or nothing at all (`fake`). What is imitated, what is a
/// guess, and the troubles that can be switched on while it runs: docs/fly-api.md.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 ended by a signal, nothing is left · 1 cannot serve, or something is left · 2 an option cannot be used

Examples:
  callbox machines serve --backend fake
  callbox machines serve --app bots --reach 7860 --trouble trouble.json")]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where the API is served; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:4280", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What runs when a machine runs
    #[arg(long, value_enum, default_value_t = Runs::Vm)]
    backend: Runs,
    /// Apps that exist from the start
    #[arg(long = "app", value_name = "NAME", default_value = "callbox")]
    apps: Vec<String>,
    /// The region that machines go to when they name none
    #[arg(long, default_value = "iad")]
    region: String,
    /// The token that opens everything; made up and printed when absent
    #[arg(long, env = "CALLBOX_STANDIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Refuse nothing: no rates, no cap of machines
    #[arg(long)]
    no_limits: bool,
    /// Troubles from the start: a file with a JSON list of them
    #[arg(long, value_name = "FILE")]
    trouble: Option<PathBuf>,
    /// What machines of the backend `vm` reach
    #[arg(long, value_enum, default_value_t = Reach::Internet)]
    network: Reach,
    /// A port of this host that machines of `vm` reach at their own 127.0.0.1, such as a
    /// dispatcher's; PORT=ADDRESS leads elsewhere
    #[arg(long = "reach", value_name = "PORT")]
    ways: Vec<Way>,
    /// Print what there is as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Runs {
    /// A microVM of this host for each machine
    Vm,
    /// Nothing: machines take their time, and that is all
    Fake,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reach {
    /// The internet, and nothing of this host
    Internet,
    /// Nothing
    None,
}

/// What is printed.
#[derive(Serialize)]
struct Serving {
    is: &'static str,
    backend: String,
    url: String,
    token: String,
    apps: Vec<String>,
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
    let troubles = args.trouble.as_deref().map(|path| standin::troubles(path, Rule::check));
    let troubles = troubles.transpose()?.unwrap_or_default();
    let settings = settings(&args)?;
    let listening = TcpListener::bind(args.listen).await;
    let listener = listening.map_err(|source| CliError::Listen { address: args.listen, source })?;
    let address = listener.local_addr()?;
    // Held to the end: two of them would destroy each other's machines.
    let mut held = None;
    let mut host = None;
    let (backend, about): (Arc<dyn Backend>, String) = match args.backend {
        Runs::Fake => {
            let fake = Fake::new(Times::default(), settings.seed, Program::until_signal());
            (Arc::new(fake), "fake: nothing runs".to_owned())
        }
        Runs::Vm => {
            let opening = open_vm(&args, &mut held);
            let vm = tokio::select! {
                vm = opening => vm?,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            };
            let (accelerator, lacks) = vm.about();
            for missing in lacks {
                tracing::warn!(missing, "something is not enforced around machines");
            }
            let vm = Arc::new(vm);
            host = Some(Arc::clone(&vm));
            (vm, format!("vm: microVMs of this host ({accelerator})"))
        }
    };
    let token = settings.tokens[0].token.clone();
    let standin = StandIn::new(settings, backend);
    for trouble in troubles {
        standin.add_trouble(trouble);
    }
    announce(&args, address, about, &token)?;
    tokio::select! {
        served = standin.serve(listener) => served?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if !standin.close(ENDING).await {
        let left = standin.machines().len();
        let text = format!("{left} machines are left; the next start removes them");
        return Err(CliError::Serve(text));
    }
    match host {
        Some(vm) => vm.tidy().await.map_err(CliError::Serve),
        None => Ok(()),
    }
}

fn settings(args: &ServeArgs) -> Result<Settings, CliError> {
    let mut random = [0; 24];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(std::io::Error::from)?;
    let (seed, token) = random.split_at(8);
    let made_up = || token.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = Token::new(args.token.clone().unwrap_or_else(made_up));
    if token.is_empty() {
        return Err(CliError::Usage("the token is empty".to_owned()));
    }
    let mut settings = Settings::new("", token);
    settings.apps.clone_from(&args.apps);
    settings.region.clone_from(&args.region);
    settings.seed = seed.iter().fold(0, |seed, byte| (seed << 8) | u64::from(*byte));
    if args.no_limits {
        settings.limits = Limits::none();
    }
    settings.check().map_err(CliError::Usage)?;
    Ok(settings)
}

async fn open_vm(args: &ServeArgs, held: &mut Option<operator::Held>) -> Result<Vm, CliError> {
    let config = args.config.load()?.config;
    let mut host = host_config(&config);
    host.data_dir = config.data_dir.join(DIRECTORY);
    host.orphan_after = ORPHAN_AFTER;
    operator::create_data_dir(&config.data_dir)?;
    *held = Some(operator::lock(&host.data_dir)?);
    let network = match args.network {
        Reach::Internet => Network::Internet { allow: Vec::new() },
        Reach::None => Network::None,
    };
    tracing::info!("opening this host for machines");
    let config = VmConfig { host, images: config.data_dir, network, ways: args.ways.clone() };
    Vm::open(config).await.map_err(CliError::Host)
}

fn announce(
    args: &ServeArgs,
    address: SocketAddr,
    backend: String,
    token: &Token,
) -> Result<(), CliError> {
    let url = format!("http://{address}");
    // The one place where a token is printed: it opens nothing but this.
    let shown = token.authorization();
    let shown = shown.split_once(' ').map_or(shown.as_str(), |(_, token)| token);
    let env = [("FLY_API_HOST", format!("{url}/v1")), ("FLY_FLAPS_BASE_URL", url.clone())].into();
    let is = "a stand-in for Fly's Machines API on this host: nothing of this is Fly";
    let token = shown.to_owned();
    let serving = Serving { is, backend, url, token, apps: args.apps.clone(), env };
    if args.json {
        return output::json_line(&serving);
    }
    let Serving { is, backend, url, token, apps, env } = serving;
    let env: String = env.iter().map(|(name, value)| format!("  {name}={value}\n")).collect();
    output::text(&format!(
        "{is}\n\nbackend  {backend}\napps     {}\nurl      {url}\ntoken    {token}\n\n\
         Clients find it by their environment:\n{env}",
        apps.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_read_or_refused_in_words() {
        let home = tempfile::tempdir().expect("tempdir");
        let path = home.path().join("trouble.json");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            standin::troubles(&path, Rule::check)
                .map(|rules| rules.len())
                .map_err(|error| error.to_string())
        };
        let two = r#"[{"kind":"stuck_created","count":1},{"kind":"timeout","when":"after"}]"#;
        assert_eq!(read(two), Ok(2));
        assert!(read("{}").is_err_and(|why| why.contains("no list of troubles")));
        let typo = r#"[{"kind":"stuck_created","cuont":1}]"#;
        assert!(read(typo).is_err_and(|why| why.contains("cuont")));
    }
}
