//! `callbox stop`: end a session.

use std::time::Duration;

use callbox_protocol::api::SessionState;

use crate::context::Context;
use crate::error::CliError;
use crate::terminal::printable;
use crate::{lookup, output, waterfall};

/// End a session
///
/// Returns once the end has been asked for; with --wait, once nothing of the session is left.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 asked for (with --wait: ended) · 1 error · 2 usage, or no such session

Examples:
  callbox stop 3f9c
  callbox stop 3f9c --wait 30")]
pub struct Args {
    /// The session's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,

    /// Wait until it has ended, so many seconds at most
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    wait: Option<u64>,

    /// Print the session as JSON
    #[arg(long)]
    json: bool,
}

/// Stops.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let id = lookup::session(&client, &args.id).await?.id;
    let mut session = client.stop(&id).await?;
    if let Some(limit) = args.wait.map(Duration::from_secs) {
        session = client.when_ended(&id, limit).await?;
        if session.state != SessionState::Ended {
            let what = format!("session {id} has not ended");
            return Err(CliError::TooSlow { what, limit });
        }
    }
    if args.json {
        return output::json(&session);
    }
    let end = waterfall::end_line(&session, context.look);
    output::text(&format!("{} {end}\n", printable(&session.id)))
}
