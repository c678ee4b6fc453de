//! `callbox costs`: what sessions have cost, and what the reserves do.

mod sums;
mod table;

use callbox_protocol::api::{BotPrice, Session};
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;

use crate::api_client::ApiClient;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::progress::Progress;
use crate::ps;
use sums::{Costs, Sum};

/// Sessions of one page: as many as the dispatcher gives.
const PAGE: &str = "500";

/// What the machines of sessions have cost, and what waits in reserve costs a day
///
/// An estimate by list prices ([fly.prices] in the configuration), from a machine's start until it
/// was gone: without traffic, taxes and discounts. Machines of this host cost nothing here. Sessions
/// are counted that were accepted in the time asked for and are still remembered ([history]).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 reckoned · 1 error · 2 usage

Examples:
  callbox costs                             the last 30 days, a line for each bot
  callbox costs --by day --since 7d
  callbox costs --by session --bot parrot --since 2h
  callbox costs --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --json")]
pub struct Args {
    /// A line for each of them
    #[arg(long, value_enum, default_value = "bot")]
    by: By,

    /// Only sessions of this bot
    #[arg(long, value_name = "NAME")]
    bot: Option<String>,

    /// Only sessions accepted then or later: a time (RFC 3339), or how long ago (90s, 15m, 2h, 7d)
    #[arg(long, value_name = "TIME", value_parser = ps::time, default_value = "30d")]
    since: Timestamp,

    /// Only sessions accepted before; written as --since
    #[arg(long, value_name = "TIME", value_parser = ps::time)]
    until: Option<Timestamp>,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What there is a line for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Each bot
    Bot,
    /// Each day (UTC) on which sessions were accepted
    Day,
    /// Each session
    Session,
}

#[derive(Serialize)]
struct Report {
    by: By,
    since: Timestamp,
    until: Option<Timestamp>,
    lines: Vec<Line>,
    total: Sum,
    /// What the bots' machines cost as the dispatcher is configured now.
    bots: Vec<BotPrice>,
}

/// One line of the sums.
#[derive(Serialize)]
struct Line {
    /// The bot, the day or the session.
    of: String,
    #[serde(flatten)]
    sum: Sum,
}

/// Reckons.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let mut bots = client.prices().await?.bots;
    bots.retain(|price| args.bot.as_ref().is_none_or(|bot| *bot == price.bot));
    let progress = Progress::new(context.quiet());
    let costs = reckon(&client, &args, &progress).await;
    progress.done();
    let (lines, total) = costs?.lines();
    let lines = lines.into_iter().map(|(of, sum)| Line { of, sum }).collect();
    let report = Report { by: args.by, since: args.since, until: args.until, lines, total, bots };
    if args.json {
        return output::json(&report);
    }
    output::text(&table::draw(&report, context.look))
}

/// Page by page: there may be more sessions than fit anywhere.
async fn reckon(client: &ApiClient, args: &Args, progress: &Progress) -> Result<Costs, CliError> {
    let mut costs = Costs::default();
    let mut before: Option<String> = None;
    let since = args.since.to_string();
    let until = args.until.map(|until| until.to_string());
    progress.doing("reading the sessions");
    loop {
        let mut query = vec![("all", "true"), ("limit", PAGE), ("since", since.as_str())];
        query.extend(until.as_deref().map(|until| ("until", until)));
        query.extend(args.bot.as_deref().map(|bot| ("bot", bot)));
        query.extend(before.as_deref().map(|before| ("before", before)));
        let page = client.sessions(&query).await?;
        page.sessions.iter().for_each(|session| costs.add(key(args.by, session), session));
        if page.sessions.is_empty() || page.next.is_none() || page.next == before {
            return Ok(costs);
        }
        before = page.next;
    }
}

fn key(by: By, session: &Session) -> String {
    match by {
        By::Bot => session.bot.clone(),
        By::Session => session.id.clone(),
        By::Day => {
            let accepted = session.moments.accepted.as_deref().unwrap_or_default();
            accepted.split('T').next().unwrap_or_default().to_owned()
        }
    }
}
