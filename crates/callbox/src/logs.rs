//! `callbox logs`: what bot, agent and dispatcher wrote.

use anstyle::Style;
use callbox_protocol::api::{LogEntry, LogSource};
use futures::StreamExt;
use jiff::Timestamp;

use crate::context::Context;
use crate::error::CliError;
use crate::terminal::{BOLD, DIM, Look, WARN, printable};
use crate::{lookup, output};

/// Print a session's log
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 printed · 1 error · 2 usage, or no such session

Examples:
  callbox logs 3f9c
  callbox logs 3f9c --follow
  callbox logs 3f9c --json | jq -r 'select(.source == \"bot\").text'")]
pub struct Args {
    /// The session's id, or the beginning of it
    #[arg(value_name = "ID")]
    id: String,

    /// Wait for more until the session ends
    #[arg(long, short)]
    follow: bool,

    /// Print one JSON object per line of the log
    #[arg(long)]
    json: bool,
}

/// Prints.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let id = lookup::session(&client, &args.id).await?.id;
    if !args.follow {
        for entry in client.logs(&id).await? {
            print(&entry, args.json, context.look)?;
        }
        return Ok(());
    }
    let mut entries = client.follow_logs(&id).await?;
    while let Some(entry) = entries.next().await {
        print(&entry?, args.json, context.look)?;
    }
    Ok(())
}

fn print(entry: &LogEntry, json: bool, look: Look) -> Result<(), CliError> {
    if json { output::json_line(entry) } else { output::text(&line(entry, look)) }
}

fn line(entry: &LogEntry, look: Look) -> String {
    let (source, style): (_, Style) = match entry.source {
        LogSource::Bot => ("bot", BOLD),
        LogSource::Agent => ("agent", DIM),
        LogSource::Dispatcher => ("dispatcher", WARN),
    };
    let time = i64::try_from(entry.at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "?".to_owned(), |at| at.strftime("%H:%M:%S%.3f").to_string());
    format!(
        "{} {} {}\n",
        look.paint(DIM, time),
        look.paint(style, format!("{source:<10}")),
        printable(&entry.text)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_and_writer_and_steers_no_terminal() {
        let look = Look { colour: false, unicode: true };
        let mut entry = LogEntry {
            seq: 1,
            at_ms: 1_700_000_000_123,
            source: LogSource::Bot,
            text: "hi\x1b[2J".into(),
        };
        assert_eq!(line(&entry, look), "22:13:20.123 bot        hi\u{fffd}[2J\n");
        entry.at_ms = u64::MAX;
        assert!(line(&entry, look).starts_with("? "));
    }
}
