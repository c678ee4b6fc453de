//! `callbox sweep`: remove what is left on this host and belongs to nobody.

use callbox_core::SessionId;
use callbox_machines::local::leftovers::{self, Leftover};
use callbox_server::{claims::Claims, config::Config, media::relay::Relays};

use crate::{
    error::CliError,
    operator::{ConfigArgs, lock},
    output,
};

/// Remove what is left on this host and belongs to nobody
///
/// Machines and calls that no living session claims, reserves, templates in the making, processes, cgroups
/// and networks without a machine. A running dispatcher does this by itself, so this is for the
/// time after one: it takes the place of a dispatcher while it works, and refuses while one runs.
///
/// Sessions that were alive when their dispatcher ended keep their machines and calls, as the next
/// `callbox serve` goes on with them. With --all they lose them too: for the day on which callbox
/// leaves this host for good. Images, templates, logs and the database stay; remove the data
/// directory to be rid of those.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nothing is left · 1 something could not be removed, or a dispatcher runs

Examples:
  callbox sweep --dry-run        what would be removed
  callbox sweep
  callbox sweep --all --json")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Also the machines and calls of sessions that the next dispatcher would go on with
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Report {
    dry_run: bool,
    found: Vec<Found>,
    /// What could not be removed, and why.
    failed: Vec<String>,
}

#[derive(serde::Serialize)]
struct Found {
    kind: String,
    name: String,
}

impl Found {
    fn of(leftover: &Leftover) -> Found {
        let kind = serde_json::to_value(leftover.kind).unwrap_or_default();
        let kind = kind.as_str().unwrap_or_default().to_owned();
        Found { kind, name: leftover.name.clone() }
    }
}

/// Looks, removes, tells.
pub async fn run(args: Args) -> Result<(), CliError> {
    let config = args.config.load()?.config;
    let data_dir = &config.data_dir;
    if !data_dir.exists() {
        return tell(
            &args,
            Report { dry_run: args.dry_run, found: Vec::new(), failed: Vec::new() },
        );
    }
    let _place = lock(data_dir)?;
    let failed = |error: &dyn std::error::Error| CliError::Serve(crate::error::chain(error));
    let claimed = if args.all { Claims::default() } else { claimed(&config).await? };
    let relays = Relays::of(data_dir);
    let calls = relays.sessions();
    let calls: Vec<&SessionId> = calls.iter().filter(|id| !claimed.session(**id)).collect();
    let found = leftovers::find(data_dir, &|name| claimed.machine(name)).await;
    let found = found.map_err(|e| failed(&e))?;
    let call = |session: &&SessionId| Found { kind: "call".into(), name: session.to_string() };
    let all = calls.iter().map(call).chain(found.iter().map(Found::of)).collect();
    let mut report = Report { dry_run: args.dry_run, found: all, failed: Vec::new() };
    if !args.dry_run {
        // The calls first: who is in one hears a good-bye.
        for session in calls {
            if !relays.retire(*session).await {
                report.failed.push(format!("{session}: its relay does not end"));
            }
        }
        for leftover in &found {
            if let Err(error) = leftovers::remove(data_dir, leftover).await {
                let error = crate::error::chain(&error);
                report.failed.push(format!("{}: {error}", leftover.name));
            }
        }
    }
    tell(&args, report)
}

async fn claimed(config: &Config) -> Result<Claims, CliError> {
    if !config.store.may_be_there(&config.data_dir) {
        return Ok(Claims::default());
    }
    let failed =
        |error: callbox_server::store::StoreError| CliError::Serve(crate::error::chain(&error));
    let store = config.store.open(&config.data_dir).await.map_err(failed)?;
    Claims::of(&*store).await.map_err(failed)
}

fn tell(args: &Args, report: Report) -> Result<(), CliError> {
    let failed = report.failed.join("; ");
    if args.json {
        output::json(&report)?;
    } else {
        let verb = if report.dry_run { "would remove" } else { "removed" };
        let mut text = String::new();
        for leftover in &report.found {
            let Found { kind, name } = leftover;
            text.push_str(&format!("{verb}  {kind:<10}  {name}\n"));
        }
        if report.found.is_empty() {
            text.push_str("nothing is left on this host that belongs to nobody\n");
        }
        output::text(&text)?;
    }
    if failed.is_empty() { Ok(()) } else { Err(CliError::Serve(format!("not removed: {failed}"))) }
}
