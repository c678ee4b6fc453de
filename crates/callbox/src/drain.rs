//! `callbox drain`: no new sessions here, or none on a bot's old version.

use std::time::{Duration, Instant};

use callbox_protocol::api::{Drain, DrainSession};
use tokio::signal::unix::{SignalKind, signal};

use crate::api_client::ApiClient;
use crate::context::Context;
use crate::error::CliError;
use crate::patience::Patience;
use crate::progress::Progress;
use crate::replicas::one_replica;
use crate::terminal::printable;
use crate::waterfall::state_word;
use crate::{output, rollout};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// So many sessions are named in one line.
const NAMED: usize = 3;

/// Take no new sessions and wait until those that live have ended
///
/// From now on the dispatcher refuses new sessions (503, code `draining`, with Retry-After) and
/// its /readyz is red, so that a load balancer asks others. All else works: calls go on, and who
/// waits for room still gets it. Returns when no session is left. Ctrl-C only stops watching:
/// the drain stays on until --cancel, or until the dispatcher is started anew. It is of one
/// dispatcher: of several, give --url the address of the one that is meant (`callbox replicas`).
///
/// With --bot, the dispatcher is not drained, but the version of one bot: its image is looked at
/// anew, and if it is another version, that is prepared (template, reserve) while new sessions
/// still get the old one; then new sessions get the new one, and those that live end on theirs.
/// A version that cannot be prepared changes nothing, and is an error here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nobody is left (with --status, --cancel, --detach: done) · 1 error · 2 usage, or no \
such bot · 130 interrupted; the drain stays on

Examples:
  callbox drain                          before the host is maintained
  callbox drain --deadline 10m           who still talks then is warned before, and ended
  callbox drain --status
  callbox drain --cancel
  callbox image build my-bot.tar --name my-bot && callbox drain --bot my-bot")]
pub struct Args {
    /// End what still lives after so long (`90s`, `10m`, `2h`), `drained`; bots are warned before
    #[arg(long, value_name = "SPAN", value_parser = span)]
    deadline: Option<Duration>,

    /// Have new sessions of this bot get its newest version, and wait until the old one is gone
    #[arg(long, value_name = "NAME", conflicts_with = "deadline")]
    bot: Option<String>,

    /// Only say whether it is drained, and who lives; with --bot, see `callbox rollout status`
    #[arg(long, conflicts_with_all = ["deadline", "bot", "cancel", "detach"])]
    status: bool,

    /// Take sessions again. What a deadline has ended stays ended
    #[arg(long, conflicts_with_all = ["deadline", "bot", "detach"])]
    cancel: bool,

    /// Do not wait: return as soon as it is on
    #[arg(long, short)]
    detach: bool,

    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// Drains.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    if let Some(bot) = &args.bot {
        return rollout::roll(&client, bot, args.detach, args.json, context).await;
    }
    let drain = match (args.status, args.cancel) {
        (true, _) => client.drain_status().await?,
        (false, true) => client.drain_cancel().await?,
        (false, false) => {
            let begun = client.drain(args.deadline).await?;
            if args.detach { begun } else { follow(&client, begun, context.quiet()).await? }
        }
    };
    if args.json {
        return output::json(&drain);
    }
    output::text(&format!("{}\n", words(&drain)))
}

/// Until nobody is left.
async fn follow(client: &ApiClient, begun: Drain, quiet: bool) -> Result<Drain, CliError> {
    let progress = Progress::new(quiet);
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened to");
    let following = async {
        let (mut drain, mut patience) = (begun, Patience::default());
        while drain.live > 0 {
            if !drain.draining {
                let why = "the drain was cancelled, or the dispatcher was started anew";
                return Err(CliError::Overtaken(why.to_owned()));
            }
            progress.tell(&words(&drain));
            drain = loop {
                tokio::time::sleep(LOOK).await;
                match patience.bear(client.drain_status().await, Instant::now())? {
                    Ok(answer) => break of_the_same(&drain.replica, answer)?,
                    Err(silence) => progress.tell(&silence),
                }
            };
        }
        Ok(drain)
    };
    tokio::select! {
        done = following => done,
        _ = interrupt.recv() => Err(CliError::Left(
            "the drain stays on; `callbox drain --cancel` takes sessions again".to_owned(),
        )),
    }
}

/// A drain is of one dispatcher: what another one says of itself is no answer.
fn of_the_same(asked: &str, answer: Drain) -> Result<Drain, CliError> {
    one_replica(asked, &answer.replica)?;
    Ok(answer)
}

fn words(drain: &Drain) -> String {
    let state = match (drain.draining, &drain.deadline_at) {
        (true, Some(at)) => format!("draining until {}", printable(at)),
        (true, None) => "draining".to_owned(),
        (false, _) => "serving".to_owned(),
    };
    if drain.live == 0 {
        let nobody = if drain.draining { "nobody is left" } else { "nobody is here" };
        return format!("{state}: {nobody}");
    }
    let mut named: Vec<String> = drain.sessions.iter().take(NAMED).map(name).collect();
    let more = usize::try_from(drain.live).unwrap_or(usize::MAX).saturating_sub(named.len());
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let sessions = if drain.live == 1 { "session is" } else { "sessions are" };
    format!("{state}: {} {sessions} left ({})", drain.live, named.join(", "))
}

fn name(session: &DrainSession) -> String {
    let id: String = session.id.chars().take(8).collect();
    format!("{} {} {}", printable(&id), printable(&session.bot), state_word(session.state))
}

/// `90`, `90s`, `10m`, `2h`.
fn span(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        unit => return Err(format!("{unit:?} is not s, m or h")),
    };
    let count: u32 = digits.parse().map_err(|_| format!("{digits:?} is not a whole number"))?;
    Ok(Duration::from_secs(u64::from(count) * seconds))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use callbox_protocol::api::SessionState;

    use super::*;

    #[test]
    fn spans_are_what_people_write() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200), ("0", 0)] {
            assert_eq!(span(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for bad in ["", "m", "1d", "1.5h", "-1", "10 m", "99999999999"] {
            assert!(span(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_says_who_is_left() {
        let session = |number: u32| DrainSession {
            id: format!("{number:08x}-0000-4000-8000-000000000000"),
            bot: "parrot".into(),
            state: SessionState::Live,
            accepted: "2026-11-24T09:00:00.000000Z".into(),
            deadline_at: "2026-11-24T11:00:00.000000Z".into(),
        };
        let drain = |live: u32, draining| Drain {
            replica: String::new(),
            draining,
            since: None,
            deadline_at: None,
            live,
            queued: 0,
            sessions: (0..live).map(session).collect(),
        };
        insta::assert_snapshot!(
            [drain(0, false), drain(0, true), drain(1, true), drain(5, true)]
                .map(|drain| words(&drain))
                .join("\n")
        );
    }
}
