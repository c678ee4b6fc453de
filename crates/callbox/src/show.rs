//! `callbox show`: one session.

use std::fmt::Write as _;

use callbox_protocol::api::{IsolationLevel, Session, Usage, Warning, WarningState};

use crate::context::Context;
use crate::error::CliError;
use crate::ps::mebibytes;
use crate::terminal::{DIM, Look, printable};
use crate::{lookup, output, waterfall};

/// Show one session and where its time went
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 shown · 1 error · 2 usage, or no such session

Examples:
  callbox show 3f9c
  callbox show 3f9c2a41-8f0e-4f4e-9d5a-0c1b2d3e4f50 --json | jq .stages_ms")]
pub struct Args {
    /// The session's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,

    /// Print JSON instead of the picture
    #[arg(long)]
    json: bool,
}

/// Shows.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let session = lookup::session(&context.client()?, &args.id).await?;
    if args.json {
        return output::json(&session);
    }
    let picture = waterfall::render(&session, None, context.look);
    output::text(&(picture + &facts(&session, context.look) + "\n"))
}

fn facts(session: &Session, look: Look) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {} {value}", look.paint(DIM, format_args!("{label:<10}")));
    };
    line("state", waterfall::end_line(session, look));
    if let Some(version) = &session.version {
        line("version", printable(version));
    }
    line("transport", printable(&session.transport));
    if let Some(machine) = &session.machine {
        line("machine", format!("{} (incarnation {})", printable(machine), session.incarnation));
    }
    if let Some(isolation) = &session.isolation {
        let level = match isolation.level {
            IsolationLevel::Production => "production",
            IsolationLevel::Development => "development",
        };
        line("isolation", level.to_owned());
        for missing in &isolation.not_enforced {
            line("", printable(missing));
        }
    }
    if let Some(accepted) = &session.moments.accepted {
        line("accepted", printable(accepted));
    }
    if let Some(place) = &session.queue {
        let wait = place.wait_ms.map(|ms| format!(", about {}", waterfall::span(ms)));
        line("queue", format!("position {}{}", place.position, wait.unwrap_or_default()));
    }
    if let Some(usage) = &session.usage {
        let Usage { unique_bytes, highest_unique_bytes, shared_bytes, .. } = *usage;
        let [unique, highest, shared] =
            [unique_bytes, highest_unique_bytes, shared_bytes].map(mebibytes);
        line("memory", format!("{unique} of its own (at most {highest}), {shared} shared"));
    }
    if let Some(cost) = &session.cost {
        let (usd, day) = (cost.machine_usd, printable(&cost.prices_as_of));
        line("cost", format!("{usd:.4} USD for the machine (list prices of {day})"));
    }
    if let Some(restart) = waterfall::restart_line(session) {
        line("restart", restart);
    }
    if let Some(Warning { at, state }) = &session.warning {
        let state = match state {
            WarningState::Ahead => "",
            WarningState::Due => " (the bot is being told)",
            WarningState::Delivered => " (the bot was told)",
            WarningState::GivenUp => " (the bot could not be told)",
        };
        line("warning", format!("{}{state}", printable(at)));
    }
    if let Some(deadline) = &session.deadline_at {
        line("deadline", printable(deadline));
    }
    text
}
