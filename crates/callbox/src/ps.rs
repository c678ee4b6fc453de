//! `callbox ps`: the sessions.

mod memory;

pub use memory::mebibytes;

use callbox_protocol::api::{Outcome, Session, SessionState};
use clap::value_parser;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::api_client::ApiClient;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::terminal::{BAD, DIM, GOOD, Look, WARN, printable};
use crate::waterfall::{span, state_word};

const PAGE: usize = 100;

/// List sessions
///
/// Without --all: those of which something is still left in the world. Newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 listed · 1 error · 2 usage

Examples:
  callbox ps
  callbox ps --all --bot parrot --limit 10
  callbox ps --outcome failed --since 2h
  callbox ps --all --label tenant=acme --since 2026-11-01T00:00:00Z
  callbox ps --memory
  callbox ps --json | jq -r '.sessions[].id'")]
pub struct Args {
    /// Also those that have ended
    #[arg(long, short)]
    all: bool,

    /// Only sessions of this bot
    #[arg(long, value_name = "NAME")]
    bot: Option<String>,

    /// Only sessions in this state
    #[arg(long, value_name = "STATE")]
    state: Option<String>,

    /// Only sessions that ended so: completed or failed
    #[arg(long, value_name = "OUTCOME")]
    outcome: Option<String>,

    /// Only sessions that end or ended for this reason, e.g. machine-lost
    #[arg(long, value_name = "CODE")]
    code: Option<String>,

    /// Only sessions accepted then or later: a time (RFC 3339), or how long ago (90s, 15m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,

    /// Only sessions accepted before; written as --since
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,

    /// Only sessions with this label; more than once: with all of them
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<String>,

    /// So many at most; that there are more is said on standard error
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..))]
    limit: u32,

    /// What machines use of their host instead of how they started
    #[arg(long)]
    memory: bool,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether it is the dispatcher's list of what lives, as nothing else was asked for.
    fn only_living(&self) -> bool {
        !self.all && self.state.is_none() && self.outcome.is_none() && self.code.is_none()
    }

    /// What is asked for, without the page.
    fn query(&self) -> Vec<(&'static str, String)> {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let mut query = Vec::new();
        query.extend(self.all.then(|| ("all", "true".to_owned())));
        for (name, value) in [
            ("bot", self.bot.clone()),
            ("state", self.state.clone()),
            ("outcome", self.outcome.clone()),
            ("code", self.code.clone()),
            ("since", time(self.since)),
            ("until", time(self.until)),
        ] {
            query.extend(value.map(|value| (name, value)));
        }
        query.extend(self.label.iter().map(|label| ("label", label.clone())));
        query
    }
}

/// A time, or how long ago it was.
pub fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong =
        || format!("{text:?} is no time as 2026-11-01T00:00:00Z, and no span as 90s, 15m, 2h, 7d");
    let (count, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let count: u32 = count.parse().map_err(|_| wrong())?;
    let ago = SignedDuration::from_secs(i64::from(count) * unit);
    Timestamp::now().checked_sub(ago).map_err(|_| wrong())
}

/// A label as the API wants it.
fn label(text: &str) -> Result<String, String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not written NAME=VALUE"))?;
    Ok(format!("{name}:{value}"))
}

#[derive(Serialize)]
struct Listing {
    sessions: Vec<Session>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<memory::Total>,
}

/// Lists.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let (sessions, more) = newest(&client, &args).await?;
    if more && !context.quiet() {
        eprintln!("there are more than these {}; --limit N shows N", sessions.len());
    }
    if args.json {
        let memory = args.memory.then(|| memory::Total::of(&sessions));
        return output::json(&Listing { sessions, memory });
    }
    if sessions.is_empty() {
        let which = if args.only_living() { "no sessions are alive" } else { "no sessions" };
        return output::text(&format!("{}\n", context.look.paint(DIM, which)));
    }
    let now = Timestamp::now();
    output::text(&match args.memory {
        true => memory::table(&sessions, now, context.look),
        false => table(&sessions, now, context.look),
    })
}

/// Those that were asked for, and whether there are more.
async fn newest(client: &ApiClient, args: &Args) -> Result<(Vec<Session>, bool), CliError> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    let mut before: Option<String> = None;
    let asked = args.query();
    loop {
        let page_size = PAGE.min(limit - found.len()).to_string();
        let mut query = vec![("limit", page_size.as_str())];
        query.extend(asked.iter().map(|(name, value)| (*name, value.as_str())));
        query.extend(before.as_deref().map(|before| ("before", before)));
        let page = client.sessions(&query).await?;
        let nothing_new = page.sessions.is_empty() || page.next == before;
        found.extend(page.sessions);
        let more = page.next.is_some() && !nothing_new || found.len() > limit;
        if !more || found.len() >= limit {
            found.truncate(limit);
            return Ok((found, more));
        }
        before = page.next;
    }
}

fn table(sessions: &[Session], now: Timestamp, look: Look) -> String {
    let header = ["SESSION", "BOT", "STATE", "START", "ON", "READY", "AUDIBLE", "AGE"];
    draw(&header, 5, sessions, |session| cells(session, now), look)
}

/// Columns from `numbers` on are set to the right.
fn draw<const N: usize>(
    header: &[&str; N],
    numbers: usize,
    sessions: &[Session],
    cells: impl Fn(&Session) -> [String; N],
    look: Look,
) -> String {
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(sessions.iter().map(cells));
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let cell = if column >= numbers {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                };
                match (index, column) {
                    (0, _) => look.paint(DIM, cell),
                    (_, 2) => look.paint(state_style(&sessions[index - 1]), cell),
                    _ => cell,
                }
            })
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(session: &Session, now: Timestamp) -> [String; 8] {
    let on = match &session.accelerator {
        Some(accelerator) => format!("{}/{accelerator}", session.provider),
        None => session.provider.clone(),
    };
    [
        short(session),
        printable(&session.bot),
        state_text(session),
        session.start.as_deref().map_or_else(nothing, printable),
        printable(&on),
        session.stages_ms.ready.map_or_else(nothing, span),
        session.stages_ms.audible.map_or_else(nothing, span),
        age_text(session, now),
    ]
}

/// What stands where there is nothing to say.
pub fn nothing() -> String {
    "-".to_owned()
}

fn short(session: &Session) -> String {
    printable(&session.id.chars().take(8).collect::<String>())
}

fn age_text(session: &Session, now: Timestamp) -> String {
    session.moments.accepted.as_deref().and_then(|at| age(at, now)).unwrap_or_else(nothing)
}

fn state_text(session: &Session) -> String {
    match (session.outcome, &session.end_reason, &session.queue) {
        (Some(_), Some(reason), _) => printable(&reason.code),
        (None, _, Some(place)) => format!("queued {}", place.position),
        _ => state_word(session.state).to_owned(),
    }
}

fn state_style(session: &Session) -> anstyle::Style {
    match (session.outcome, session.state) {
        (Some(Outcome::Failed), _) => BAD,
        (Some(Outcome::Completed), _) => DIM,
        (None, SessionState::Live) => GOOD,
        _ => WARN,
    }
}

/// How long ago that was, shortly; none if it is no time.
pub fn age(accepted: &str, now: Timestamp) -> Option<String> {
    let accepted: Timestamp = accepted.parse().ok()?;
    let seconds = now.as_second().saturating_sub(accepted.as_second()).max(0);
    Some(match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_may_be_spans() {
        let at = time("2026-11-01T00:00:00+01:00").unwrap();
        assert_eq!(at.to_string(), "2026-10-31T23:00:00Z");
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)] {
            let then = time(text).unwrap();
            let ago = Timestamp::now().duration_since(then).as_secs();
            assert!((seconds..seconds + 60).contains(&ago), "{text}: {ago}");
        }
        for wrong in ["", "h", "2", "2w", "-2h", "yesterday", "ü", "99999999999d"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(label("a=b=c").unwrap(), "a:b=c");
        assert!(label("a").is_err());
    }

    #[test]
    fn ages_are_short() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (accepted, expected) in [
            ("2026-11-23T11:59:01.5Z", Some("59s")),
            ("2026-11-23T12:00:05Z", Some("0s")),
            ("2026-11-23T11:00:00Z", Some("60m")),
            ("2026-11-20T11:00:00Z", Some("3d")),
            ("yesterday", None),
        ] {
            assert_eq!(age(accepted, now).as_deref(), expected, "{accepted}");
        }
    }
}
