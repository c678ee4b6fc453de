//! `callbox serve`: run a dispatcher.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, IsTerminal as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use callbox_machines::{Budget, FakeProvider, Local, Provider, Script};
use callbox_server::{
    config::{Config, LogFormat},
    logs::Logs,
    metrics, owner,
    plane::Plane,
    replica::Replicas,
    serve::{self, ServeError},
    store::{Deployment, Store, each_living},
};
use callbox_transports::SessionTokens;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    error::CliError,
    fly, open_files,
    operator::{ConfigArgs, STILL_HELD, host_config, lock},
    transports,
};

/// Run a dispatcher
///
/// Serves the API, the media websockets and the web page, and runs every session in a machine of
/// its own. Ctrl-C or SIGTERM ends all sessions and leaves nothing behind; with
/// `limits.on_shutdown = "leave"` calls go on and wait for the next dispatcher, and with "drain"
/// this one waits for their ends. A second signal ends the dispatcher at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 ended by a signal · 1 cannot serve · 2 the configuration cannot be used

Examples:
  callbox serve
  callbox serve --config callbox.toml
  CALLBOX_LISTEN=127.0.0.1:0 callbox serve      a free port; the address is printed")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Serves until a signal comes.
pub async fn run(args: Args) -> Result<(), CliError> {
    let config = args.config.load()?.config;
    check_names(&config)?;
    log_to_stderr(&config)?;
    let shutdown = signals()?;
    if let Some(files) = open_files::raise(None) {
        tracing::info!(files, "so many files may be open, two for a call that is carried here");
    }
    let failed = |error: &dyn std::error::Error| CliError::Serve(crate::error::chain(error));
    let data_dir = config.data_dir.clone();
    let _lock = lock(&data_dir)?;
    // Before anything slow: who cannot be reached need not prepare.
    let listener = listen(config.listen).await?;
    let address = listener.local_addr()?;
    if !config.store.may_be_there(&data_dir) {
        // Before it is made: see `owner`.
        owner::check(&data_dir, None).await?;
    }
    let store = config.store.open(&data_dir).await.map_err(|e| failed(&e))?;
    let logs = Logs::open(data_dir.join("logs"), config.max_log_bytes)?;
    let deployment = store.deployment().await.map_err(|e| failed(&e))?;
    owner::take(&data_dir, &deployment.id).await?;
    let providers = providers(&config, &deployment, &*store).await?;
    let tokens = SessionTokens::new(deployment.secret.clone());
    let transports = transports::open(&config, &deployment, &*store, tokens.clone()).await?;
    let prometheus = PrometheusBuilder::new().install_recorder().map_err(|e| failed(&e))?;
    metrics::describe();
    let plane = Plane::new(config, store, providers, transports, tokens, logs);
    let cannot = |error: ServeError| match error {
        ServeError::Open { .. } => CliError::Open(error.to_string()),
        _ => failed(&error),
    };
    serve::check_open(&plane, address).await.map_err(cannot)?;
    println!("callbox serves on http://{address}");
    serve::run(plane, listener, Some(prometheus), shutdown).await.map_err(cannot)
}

/// That every bot names a provider and transports that there are.
fn check_names(config: &Config) -> Result<(), CliError> {
    for bot in config.bots.values() {
        if !matches!(bot.provider.as_str(), "local" | "fly" | "fake") {
            let (name, provider) = (&bot.name, &bot.provider);
            return Err(CliError::Config(format!(
                "bots.{name}.provider: {provider:?} is not \"local\", \"fly\" or \"fake\""
            )));
        }
    }
    transports::check_names(config)
}

/// What an earlier dispatcher left between its fork and its exec has its listener open, too.
async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && began.elapsed() < STILL_HELD => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(source) => return Err(CliError::Listen { address, source }),
        }
    }
}

/// Opens the providers that some bot names, and those that living sessions of ours name, whose bots
/// left the configuration: their machines are still to be ended. One of these that cannot be opened
/// stops nobody.
async fn providers(
    config: &Config,
    deployment: &Deployment,
    store: &dyn Store,
) -> Result<Vec<Arc<dyn Provider>>, CliError> {
    let named: BTreeSet<&str> = config.bots.values().map(|bot| bot.provider.as_str()).collect();
    let mut providers = Vec::new();
    let replica = Replicas::of(&config.data_dir, store.can_be_shared());
    for name in &named {
        providers.extend(provider(name, config, deployment, &replica).await?);
    }
    let mut left = BTreeSet::new();
    let seen = each_living(store, None, |session| {
        if replica.reaches(&session) && !named.contains(session.provider.as_str()) {
            left.insert(session.provider);
        }
    });
    seen.await.map_err(|error| CliError::Serve(crate::error::chain(&error)))?;
    for name in left {
        tracing::warn!(provider = name, "no bot has this provider any more, but sessions do");
        match provider(&name, config, deployment, &replica).await {
            Ok(opened) => providers.extend(opened),
            Err(error) => {
                let error = crate::error::chain(&error);
                tracing::error!(provider = name, error, "its machines are left to end themselves");
            }
        }
    }
    Ok(providers)
}

/// Opens one; none under a name that there is not.
async fn provider(
    name: &str,
    config: &Config,
    deployment: &Deployment,
    replica: &Replicas,
) -> Result<Option<Arc<dyn Provider>>, CliError> {
    Ok(Some(match name {
        "local" => {
            tracing::info!("opening this host for machines");
            let local = Local::open(host_config(config)).await;
            let local = local.map_err(|fault| CliError::Host(fault.detail))?;
            let local = local.with_budget(&config.local.budget);
            let Budget { memory_mib, cpus, max_starting } = *local.budget();
            tracing::info!(memory_mib, cpus, max_starting, "this is there for machines");
            tracing::info!(accelerator = %local.host().accelerator(), qemu = local.host().qemu_version(), "this host runs machines");
            for missing in local.host().not_enforced() {
                tracing::warn!(
                    missing,
                    "development isolation: something is not enforced around machines"
                );
            }
            Arc::new(local)
        }
        "fly" => Arc::new(fly::open(config, deployment, replica.id())?),
        "fake" => {
            tracing::warn!("provider \"fake\": nothing really runs");
            Arc::new(FakeProvider::new(Script::default()))
        }
        // Of bots, checked before anything was begun; a row may name what a newer version has.
        _ => return Ok(None),
    }))
}

fn log_to_stderr(config: &Config) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&config.log_level)
        .map_err(|error| CliError::Config(format!("log.level: {error}")))?;
    let registry = tracing_subscriber::registry().with(filter);
    // Colours are for people at a terminal; a log file is for grep.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    match config.log_format {
        LogFormat::Text => registry.with(lines.with_target(false)).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
    Ok(())
}

/// Resolves at the first SIGTERM or Ctrl-C, from the beginning on: what a start has under way is
/// ended in order, too. A second one ends the process at once.
fn signals() -> Result<impl Future<Output = ()> + Send, CliError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, shutdown) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        let _ = first.send(());
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        eprintln!(
            "ended by a second signal; the next `callbox serve` goes on with the calls that are \
             left, as long as they wait for it (limits.orphan_after_s)"
        );
        std::process::exit(130);
    });
    Ok(async move {
        let _ = shutdown.await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_a_dying_dispatcher_still_holds_is_waited_for() {
        let dying = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = dying.local_addr().expect("an address");
        let (listening, ()) = tokio::join!(listen(address), async {
            // It is tried, and in vain, before the other one goes.
            sleep(Duration::from_millis(50)).await;
            drop(dying);
        });
        let held = listening.expect("it is free by now");
        let refused = listen(held.local_addr().expect("an address")).await.map(drop);
        assert!(matches!(refused, Err(CliError::Listen { .. })), "somebody serves there for good");
    }
}
