//! `callbox rollout`: which version of a bot new sessions get.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use callbox_protocol::api::{Rollout, RolloutList, RolloutState, RolloutVersion};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use crate::api_client::{ApiClient, ApiError};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::patience::Patience;
use crate::progress::Progress;
use crate::ps::{age, nothing};
use crate::replicas::one_replica;
use crate::terminal::{BAD, DIM, GOOD, Look, WARN, printable};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// So much of a version tells it apart.
const SHORT: usize = 12;

/// Look at the versions of bots
///
/// A bot's version is the digest of its image. New sessions get the version that was there when
/// the dispatcher was started, or when `callbox drain --bot NAME` was last asked for; an image
/// that is built anew changes nothing by itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show each bot's versions: what is served, what is prepared, what still has calls
    ///
    /// States: `preparing` (its template is being made or its reserve filled; the note says what
    /// it is at), `serving` (new sessions get it), `finishing` (earlier sessions have it),
    /// `failed` (it could not be prepared; the note says why). A version that is finished with
    /// is removed with its template and is not shown any more.
    #[command(after_help = "\
Exit codes: 0 shown · 1 error · 2 usage, or no such bot · 130 watched until Ctrl-C

Examples:
  callbox rollout status
  callbox rollout status --bot parrot --watch
  callbox rollout status --json | jq -r '.rollouts[].versions[] | select(.current).version'")]
    Status {
        /// Only of this bot
        #[arg(long, value_name = "NAME")]
        bot: Option<String>,
        /// Go on until Ctrl-C, and show every change
        #[arg(long, short)]
        watch: bool,
        /// Print JSON; with --watch, one object a line
        #[arg(long)]
        json: bool,
    },
}

/// Shows.
pub async fn run(args: Args, context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let Command::Status { bot, watch, json } = args.command;
    let bot = bot.as_deref();
    if watch {
        return self::watch(&client, bot, json, context.look).await;
    }
    let list = known(bot, client.rollouts(bot).await)?;
    if json {
        return output::json(&list);
    }
    output::text(&table(&list.rollouts, Timestamp::now(), context.look))
}

/// Every change: drawn over the last one at a terminal, one after the other elsewhere.
async fn watch(
    client: &ApiClient,
    bot: Option<&str>,
    json: bool,
    look: Look,
) -> Result<(), CliError> {
    let over = std::io::stdout().is_terminal() && !json;
    let first = |list: &Option<RolloutList>| list.as_ref()?.rollouts.first().cloned();
    let mut before = None;
    let mut drawn = 0;
    loop {
        let list = known(bot, client.rollouts(bot).await)?;
        if let (Some(before), Some(now)) = (first(&before), list.rollouts.first()) {
            one_replica(&before.replica, &now.replica)?;
        }
        // Ages grow at a terminal; elsewhere only what changed is news.
        if over || before.as_ref() != Some(&list) {
            if json {
                output::json_line(&list)?;
            } else {
                let text = table(&list.rollouts, Timestamp::now(), look);
                let up = if over && drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { "".into() };
                drawn = text.lines().count();
                output::text(&(up + &text))?;
            }
        }
        before = Some(list);
        tokio::time::sleep(LOOK).await;
    }
}

/// `callbox drain --bot`: asks for it, and follows until the old version is gone.
pub async fn roll(
    client: &ApiClient,
    bot: &str,
    detach: bool,
    json: bool,
    context: &Context,
) -> Result<(), CliError> {
    let begun = known(Some(bot), client.roll(bot).await)?;
    let rollout = match detach {
        true => begun,
        false => {
            let progress = Progress::new(context.quiet());
            let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened to");
            tokio::select! {
                done = follow(client, begun, &progress) => done?,
                _ = interrupt.recv() => return Err(CliError::Left(
                    "the rollout goes on; `callbox rollout status` shows how far it is".to_owned(),
                )),
            }
        }
    };
    if json {
        return output::json(&rollout);
    }
    output::text(&table(&[rollout], Timestamp::now(), context.look))
}

async fn follow(
    client: &ApiClient,
    begun: Rollout,
    progress: &Progress,
) -> Result<Rollout, CliError> {
    let (mut rollout, mut patience) = (begun, Patience::default());
    while let Some(what) = left_to_do(&rollout)? {
        progress.tell(&what);
        let list = loop {
            tokio::time::sleep(LOOK).await;
            let answer = client.rollouts(Some(&rollout.bot)).await;
            match patience.bear(answer, Instant::now())? {
                Ok(list) => break list,
                Err(silence) => progress.tell(&silence),
            }
        };
        let Rollout { bot, replica, .. } = rollout;
        let found = list.rollouts.into_iter().find(|one| one.bot == bot);
        rollout = found.ok_or_else(|| CliError::Overtaken(format!("bot {bot:?} is gone")))?;
        one_replica(&replica, &rollout.replica)?;
    }
    Ok(rollout)
}

/// A name that the dispatcher does not know is the fault of who typed it.
fn known<T>(bot: Option<&str>, answer: Result<T, ApiError>) -> Result<T, CliError> {
    match (bot, answer) {
        (Some(bot), Err(error)) if error.is_not_found() => Err(CliError::Usage(format!(
            "there is no bot {bot:?}; `callbox rollout status` shows all"
        ))),
        (_, answer) => Ok(answer?),
    }
}

/// What a rollout is at; none when it is over.
fn left_to_do(rollout: &Rollout) -> Result<Option<String>, CliError> {
    let mut finishing = Vec::new();
    // What is prepared comes before what failed earlier and before what finishes.
    if let Some(next) = rollout.versions.iter().find(|one| one.state == RolloutState::Preparing) {
        let stage = next.stage.as_deref().map(printable).unwrap_or_default();
        return Ok(Some(format!("preparing {}: {stage}", short(next))));
    }
    for one in &rollout.versions {
        match one.state {
            RolloutState::Failed => {
                let why = one.why.as_deref().map(printable).unwrap_or_default();
                return Err(CliError::RolloutFailed { bot: printable(&rollout.bot), why });
            }
            RolloutState::Finishing => {
                let calls = if one.live == 1 { "call" } else { "calls" };
                finishing.push(format!("{} {calls} on {}", one.live, short(one)));
            }
            RolloutState::Preparing | RolloutState::Serving => {}
        }
    }
    let current = rollout.versions.iter().find(|one| one.current).map_or_else(nothing, short);
    Ok((!finishing.is_empty())
        .then(|| format!("new sessions get {current}; left to finish: {}", finishing.join(", "))))
}

fn table(rollouts: &[Rollout], now: Timestamp, look: Look) -> String {
    let header = ["BOT", "VERSION", "STATE", "LIVE", "RESERVE", "SINCE", "NOTE"];
    let mut rows = vec![(header.map(str::to_owned), DIM)];
    for rollout in rollouts {
        rows.extend(rollout.versions.iter().map(|one| (cells(&rollout.bot, one, now), style(one))));
    }
    let width = |column: usize| rows.iter().map(|(row, _)| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..header.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, (row, style)) in rows.iter().enumerate() {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let cell = match column {
                    3..=5 => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                };
                if index == 0 || column == 2 { look.paint(*style, cell) } else { cell }
            })
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(bot: &str, one: &RolloutVersion, now: Timestamp) -> [String; 7] {
    let note = one.why.as_deref().or(one.stage.as_deref()).map(printable).unwrap_or_default();
    [
        printable(bot),
        short(one),
        word(one.state).to_owned(),
        one.live.to_string(),
        one.reserve.map_or_else(nothing, |reserve| format!("{}/{}", reserve.ready, reserve.target)),
        age(&one.since, now).unwrap_or_else(nothing),
        note,
    ]
}

fn short(one: &RolloutVersion) -> String {
    let version = one.version.as_deref().map(|text| text.chars().take(SHORT).collect::<String>());
    version.map_or_else(nothing, |version| printable(&version))
}

fn word(state: RolloutState) -> &'static str {
    match state {
        RolloutState::Preparing => "preparing",
        RolloutState::Serving => "serving",
        RolloutState::Finishing => "finishing",
        RolloutState::Failed => "failed",
    }
}

fn style(one: &RolloutVersion) -> anstyle::Style {
    match one.state {
        RolloutState::Serving => GOOD,
        RolloutState::Preparing => WARN,
        RolloutState::Finishing => DIM,
        RolloutState::Failed => BAD,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use callbox_protocol::api::Reserve;

    use super::*;

    const PLAIN: Look = Look { colour: false, unicode: true };

    fn version(digit: char, state: RolloutState, live: u32) -> RolloutVersion {
        RolloutVersion {
            version: Some(String::from(digit).repeat(64)),
            current: state == RolloutState::Serving,
            state,
            stage: None,
            why: None,
            since: "2026-11-24T09:00:00.000000Z".into(),
            live,
            reserve: None,
        }
    }

    fn rollouts() -> Vec<Rollout> {
        use RolloutState::{Failed, Finishing, Preparing, Serving};
        let stage = Some("filling its reserve".to_owned());
        let why = Some("the bot exited with code 1".to_owned());
        let reserve = Some(Reserve { ready: 2, target: 3 });
        let of =
            |bot: &str, versions| Rollout { replica: String::new(), bot: bot.into(), versions };
        vec![
            of(
                "parrot",
                vec![
                    RolloutVersion { reserve, ..version('a', Serving, 12) },
                    RolloutVersion { stage, ..version('b', Preparing, 0) },
                    version('c', Finishing, 1),
                ],
            ),
            of(
                "support",
                vec![version('d', Serving, 0), RolloutVersion { why, ..version('e', Failed, 0) }],
            ),
            of("plain", vec![RolloutVersion { version: None, ..version('f', Serving, 0) }]),
        ]
    }

    #[test]
    fn all_that_is_under_way_is_in_one_table() {
        let now = "2026-11-24T09:05:00Z".parse().unwrap();
        insta::assert_snapshot!(table(&rollouts(), now, PLAIN));
    }

    #[test]
    fn a_rollout_is_over_when_nothing_is_prepared_and_nobody_finishes() {
        let [mut parrot, support, plain]: [Rollout; 3] = rollouts().try_into().unwrap();
        let doing = left_to_do(&parrot).unwrap().unwrap();
        assert_eq!(doing, "preparing bbbbbbbbbbbb: filling its reserve");
        parrot.versions.remove(1);
        let doing = left_to_do(&parrot).unwrap().unwrap();
        assert_eq!(doing, "new sessions get aaaaaaaaaaaa; left to finish: 1 call on cccccccccccc");
        parrot.versions.remove(1);
        assert_eq!(left_to_do(&parrot).unwrap(), None);
        assert_eq!(left_to_do(&plain).unwrap(), None);
        let error = left_to_do(&support).unwrap_err();
        assert!(error.to_string().contains("the bot exited with code 1"), "{error}");
    }
}
