//! `callbox sweep`: remove what is left on this host and belongs to nobody.

use callbox_core::SessionId;
use callbox_machines::local::leftovers::{self, Leftover};
use callbox_protocol::api::{Sweep, SweepFound, SweepNotListed};
use callbox_server::{claims::Claims, config::Config, media::relay::Relays, owner};

use crate::{
    context::Context,
    error::CliError,
    operator::{ConfigArgs, lock},
    output,
    terminal::printable,
};

/// Remove what is left and belongs to nobody
///
/// Machines and calls that no living session claims, reserves, templates in the making, processes, cgroups
/// and networks without a machine. It takes the place of a dispatcher while it works.
///
/// While a dispatcher runs on this data directory, that one is asked to sweep instead (as it does
/// every minute by itself): machines and rooms at all its providers and transports, and calls. What
/// another deployment owns, and what is younger than `limits.sweep_grace_s`, is left alone.
///
/// Sessions that were alive when their dispatcher ended keep their machines and calls, as the next
/// `callbox serve` goes on with them. With --all they lose them too: for the day on which callbox
/// leaves this host for good, and for one whose database is gone: with another database than the
/// one that they were made with, a sweep is refused as long as anything is left of them. Images,
/// templates, logs and the database stay; remove the data directory to be rid of those.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nothing is left · 1 something could not be removed, or listed, or the database is \
another one's

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
    /// What was removed; in a dry run, what would be.
    found: Vec<Found>,
    /// What belongs to no session and is left alone, and why.
    left_alone: Vec<Found>,
    /// What could not be removed, or listed, and why.
    failed: Vec<String>,
}

#[derive(serde::Serialize)]
struct Found {
    kind: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Report {
    fn new(dry_run: bool) -> Report {
        Report { dry_run, found: Vec::new(), left_alone: Vec::new(), failed: Vec::new() }
    }

    /// What became of something that was to be removed.
    fn tried(&mut self, found: Found, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.found.push(found),
            Err(why) => {
                self.failed.push(format!("cannot remove {} {}: {why}", found.kind, found.name));
            }
        }
    }
}

impl Found {
    fn of(leftover: &Leftover) -> Found {
        let kind = serde_json::to_value(leftover.kind).unwrap_or_default();
        let kind = kind.as_str().unwrap_or_default().to_owned();
        Found { kind, name: leftover.name.clone(), why: None }
    }
}

/// Looks, removes, tells.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let config = args.config.load()?.config;
    let data_dir = &config.data_dir;
    if !data_dir.exists() {
        return tell(&args, &Report::new(args.dry_run));
    }
    let _place = match lock(data_dir) {
        // With `all`, living sessions would lose what they have under their dispatcher's hands.
        Err(CliError::Busy(_)) if !args.all => return through_the_dispatcher(&args, context).await,
        place => place?,
    };
    let failed = |error: &dyn std::error::Error| CliError::Serve(crate::error::chain(error));
    let claimed = if args.all { Claims::default() } else { claimed(&config).await? };
    let relays = Relays::of(data_dir);
    let calls = relays.sessions();
    let calls: Vec<&SessionId> = calls.iter().filter(|id| !claimed.session(**id)).collect();
    let found = leftovers::find(data_dir, &|name| claimed.machine(name)).await;
    let found = found.map_err(|e| failed(&e))?;
    let call =
        |session: &&SessionId| Found { kind: "call".into(), name: session.to_string(), why: None };
    let mut report = Report::new(args.dry_run);
    // The calls first: who is in one hears a good-bye.
    for session in &calls {
        let gone = args.dry_run || relays.retire(**session).await;
        report.tried(call(session), gone.then_some(()).ok_or("its relay does not end".into()));
    }
    for leftover in &found {
        let outcome = match args.dry_run {
            true => Ok(()),
            false => leftovers::remove(data_dir, leftover).await,
        };
        report.tried(Found::of(leftover), outcome.map_err(|error| crate::error::chain(&error)));
    }
    tell(&args, &report)
}

/// The dispatcher that runs sweeps.
async fn through_the_dispatcher(args: &Args, context: &Context) -> Result<(), CliError> {
    let Sweep { found, not_listed, dry_run } = context.client()?.sweep(args.dry_run).await?;
    let mut report = Report::new(dry_run);
    for one in found {
        let SweepFound { kind, provider, name, outcome, detail } = one;
        let name = format!("{}/{}", printable(&provider), printable(&name));
        let kind = printable(&kind);
        match outcome.as_str() {
            "remove" | "removed" => report.tried(Found { kind, name, why: None }, Ok(())),
            "failed" => {
                report.tried(Found { kind, name, why: None }, Err(printable(&detail)));
            }
            _ => report.left_alone.push(Found { kind, name, why: Some(printable(&detail)) }),
        }
    }
    let not_listed = not_listed.iter().map(|SweepNotListed { kind, provider, detail }| {
        format!(
            "cannot list the {}s of {}: {}",
            printable(kind),
            printable(provider),
            printable(detail)
        )
    });
    report.failed.extend(not_listed);
    tell(args, &report)
}

/// What the sessions of this directory's deployment claim.
async fn claimed(config: &Config) -> Result<Claims, CliError> {
    if !config.store.may_be_there(&config.data_dir) {
        owner::check(&config.data_dir, None).await?;
        return Ok(Claims::default());
    }
    let failed =
        |error: callbox_server::store::StoreError| CliError::Serve(crate::error::chain(&error));
    let store = config.store.open(&config.data_dir).await.map_err(failed)?;
    let deployment = store.deployment().await.map_err(failed)?;
    owner::check(&config.data_dir, Some(&deployment.id)).await?;
    Claims::of(&*store).await.map_err(failed)
}

fn tell(args: &Args, report: &Report) -> Result<(), CliError> {
    match args.json {
        true => output::json(report)?,
        false => output::text(&text(report))?,
    }
    match report.failed.is_empty() {
        true => Ok(()),
        false => Err(CliError::Serve(report.failed.join("; "))),
    }
}

fn text(report: &Report) -> String {
    let verb = if report.dry_run { "would remove" } else { "removed" };
    let mut text = String::new();
    for Found { kind, name, .. } in &report.found {
        text.push_str(&format!("{verb}  {kind:<10}  {name}\n"));
    }
    for Found { kind, name, why } in &report.left_alone {
        let why = why.as_deref().unwrap_or_default();
        text.push_str(&format!("left alone  {kind:<10}  {name}: {why}\n"));
    }
    if report.found.is_empty() && report.failed.is_empty() {
        text.push_str("nothing is left that belongs to nobody\n");
    }
    text
}
