//! `callbox doctor`: what works on this host.

use callbox_core::Fault;
use callbox_machines::{
    Local,
    local::{Accelerator, Check, checks},
};
use serde::Serialize;

use crate::{
    context::Context,
    error::CliError,
    operator::{ConfigArgs, host_config},
    output,
    stages::Stages,
    terminal::{BAD, GOOD, WARN},
};

/// Say what works on this host, and what to do about what does not
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 machines can run here · 1 they cannot · 2 the configuration cannot be used

Examples:
  callbox doctor
  callbox doctor --json | jq '.checks[] | select(.ok | not)'")]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Looks and tells.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let config = args.config.load()?.config;
    let host = host_config(&config);
    let stages = Stages::new(args.json || context.quiet());
    stages.begin("trying out this host (a few seconds the first time)");
    // Opening it gets a kernel and tries KVM; why it fails, the checks say one by one.
    let opened = Local::open(host.clone()).await;
    stages.finish();
    let looking = tokio::task::spawn_blocking(move || checks(&host));
    let mut checks = looking.await.expect("looking does not panic");
    checks.push(whole(&opened));
    checks.extend(opened.ok().map(|local| isolation(&local)));
    checks.push(port(config.listen).await);
    let ok = checks.iter().all(|check| check.ok);
    if args.json {
        output::json(&Report { ok, checks })?;
    } else {
        output::text(&picture(&checks, context))?;
    }
    if ok { Ok(()) } else { Err(CliError::Doctor) }
}

/// All of it together: what the checks before may have missed, one by one.
fn whole(opened: &Result<Local, Fault>) -> Check {
    let (ok, detail) = match opened {
        Ok(local) => (true, format!("machines run under {}", local.host().accelerator())),
        Err(fault) => (false, fault.detail.clone()),
    };
    let hint = (!ok).then(|| "see what is marked `no` above".to_owned());
    Check { name: "machines", ok, detail, hint }
}

/// How well machines are kept apart, and from what.
fn isolation(local: &Local) -> Check {
    let mut missing = local.host().not_enforced().to_vec();
    if local.host().accelerator() == Accelerator::Tcg {
        missing.insert(0, "software emulation: no hardware keeps guests apart".to_owned());
    }
    let (detail, hint) = if missing.is_empty() {
        ("production: hardware virtualisation, and every machine is caged".to_owned(), None)
    } else {
        let hint =
            "production isolation takes KVM and root; docs/isolation.md says what each gives";
        (format!("development: {}", missing.join("; ")), Some(hint.to_owned()))
    };
    Check { name: "isolation", ok: true, detail, hint }
}

async fn port(address: std::net::SocketAddr) -> Check {
    let (ok, detail, hint) = match tokio::net::TcpListener::bind(address).await {
        Ok(_) => (true, format!("{address} is free"), None),
        Err(error) => {
            let hint = "a dispatcher may run already; else set `listen` to another address";
            (false, format!("{address}: {error}"), Some(hint.to_owned()))
        }
    };
    Check { name: "address", ok, detail, hint }
}

fn picture(checks: &[Check], context: &Context) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match (check.ok, &check.hint) {
            (true, None) => context.look.paint(GOOD, "ok  "),
            (true, Some(_)) => context.look.paint(WARN, "note"),
            (false, _) => context.look.paint(BAD, "no  "),
        };
        text.push_str(&format!("{mark}  {:<18} {}\n", check.name, check.detail));
        if let Some(hint) = &check.hint {
            text.push_str(&format!("      {:<18} → {hint}\n", ""));
        }
    }
    text
}
