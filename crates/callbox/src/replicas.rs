//! `callbox replicas`: the dispatchers that share a database.

use callbox_protocol::api::{Replica, ReplicaState};

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::terminal::{BAD, DIM, GOOD, Look, printable};

/// List the dispatchers that share the database of the one at --url
///
/// A dispatcher that was silent for 6 seconds has its sessions taken over by the others; after some
/// minutes it is not listed any more. `*` is the one that answered.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 listed · 1 error · 2 usage

Examples:
  callbox replicas
  callbox replicas --json | jq -r '.replicas[] | select(.state == \"silent\").url'")]
pub struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Lists.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let list = context.client()?.replicas().await?;
    if args.json {
        return output::json(&list);
    }
    output::text(&table(&list.replicas, context.look))
}

/// That the dispatcher which was asked first is the one that `answers`; one that is older than
/// this program does not say who it is.
pub fn one_replica(asked: &str, answers: &str) -> Result<(), CliError> {
    if asked.is_empty() || asked == answers {
        return Ok(());
    }
    let (asked, answers) = (printable(asked), printable(answers));
    Err(CliError::OtherReplica { asked, answers })
}

fn table(replicas: &[Replica], look: Look) -> String {
    let header = format!("{:<18}  {:<7}  {:>8}  URL", "REPLICA", "STATE", "SESSIONS");
    let mut text = format!("{}\n", look.paint(DIM, header));
    for replica in replicas {
        let mark = if replica.answered { "*" } else { "" };
        let id = format!("{}{mark}", printable(&replica.id));
        let (word, style) = match replica.state {
            ReplicaState::Alive => ("alive", GOOD),
            ReplicaState::Silent => ("silent", BAD),
            ReplicaState::Unknown => ("?", DIM),
        };
        let state = look.paint(style, format!("{word:<7}"));
        let (sessions, url) = (replica.sessions, printable(&replica.url));
        text.push_str(&format!("{id:<18}  {state}  {sessions:>8}  {url}\n"));
    }
    text
}
