//! One dispatcher, filled with so many sessions.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::time::Instant;

use super::callers::{self, Callers};
use super::footprint::own_cpu;
use super::report::{Cost, Fill, Idle, Memory, Round};
use super::shot::{self, BOT, Volley};
use crate::api_client::{ApiClient, Started};
use crate::bench::dispatcher::Dispatcher;
use crate::bench::distribution::Distribution;
use crate::caller::millis;
use crate::error::CliError;
use crate::progress::Progress;

/// So many clients at once fill it, and look how much it can at most.
const AT_ONCE: usize = 32;
/// How long a rate is tried before it is believed.
const PROBE: Duration = Duration::from_secs(5);
/// So many rates between none and the most are tried.
const PROBES: u32 = 5;
/// For at most so long nothing is asked of it: every machine is asked whether it lives in that
/// time.
const IDLE: Duration = Duration::from_secs(20);
/// A rate that was not held for the whole time is lowered so often.
const ATTEMPTS: u32 = 4;

/// What is wanted of every round.
pub struct Plan<'a> {
    pub seconds: Duration,
    /// Starts a second; none: the highest.
    pub rate: Option<f64>,
    pub within: Duration,
    pub store: Option<&'a str>,
    /// As many clients may join.
    pub most_calls: usize,
}

/// Fills one and measures it.
pub async fn run(sessions: u32, plan: &Plan<'_>, progress: &Progress) -> Result<Round, CliError> {
    progress.doing("starting a dispatcher");
    let home = tempfile::tempdir()?;
    let configuration = configuration(&home, sessions, plan.store);
    let dispatcher = Dispatcher::start(home, &configuration, &[]).await?;
    let client = ApiClient::new(&dispatcher.url, None)?;
    // The first is dearer than the others: what it makes stays.
    shot::as_many_as(&client, 1, Duration::from_millis(200)).await;
    let empty = dispatcher.footprint()?;
    let (store_before, logs_before) = dispatcher.on_disk();

    let (started, fill) = fill(&client, sessions, progress).await;
    let ready = dispatcher.footprint()?;
    let calls = &started[..started.len().min(plan.most_calls)];
    let (mut callers, mut failures) = join(calls, progress).await;
    let live = dispatcher.footprint()?;
    let (store_full, logs_full) = dispatcher.on_disk();
    for (reason, count) in &fill.failures {
        *failures.entry(reason.clone()).or_insert(0) += count;
    }
    let memory = Memory::of(&empty, &ready, &live, started.len(), calls.len());
    let per_session = |bytes: u64| bytes / (started.len() as u64).max(1);

    progress.doing("letting them live");
    let begun = Instant::now();
    tokio::time::sleep(plan.seconds.min(IDLE)).await;
    let idle = Idle::of(dispatcher.footprint()?.cpu.saturating_sub(live.cpu), begun.elapsed());

    let (most, steady, cost) = beside(&client, &dispatcher, plan, progress).await?;
    let lost = callers.lost();
    if lost > 0 {
        failures.insert("a call broke that nobody ended".into(), lost);
    }
    let round = Round {
        sessions,
        fill,
        memory,
        idle,
        most,
        held: steady.held(plan.within),
        steady,
        cost,
        store_bytes_per_session: per_session(store_full.saturating_sub(store_before)),
        log_bytes_per_session: per_session(logs_full.saturating_sub(logs_before)),
        failures,
    };
    progress.doing("ending the dispatcher");
    drop(callers);
    drop(dispatcher);
    Ok(round)
}

/// Starts that many sessions and waits until their bots are ready.
async fn fill(client: &ApiClient, sessions: u32, progress: &Progress) -> (Vec<Started>, Fill) {
    progress.doing("filling it");
    let begun = Instant::now();
    let mut starts = stream::iter(0..sessions)
        .map(|_| async {
            let asked = Instant::now();
            let started = client.start(&shot::request()).await.map_err(|e| e.to_string())?;
            let answered = millis(asked.elapsed());
            client.when_ready(&started.session_id, PATIENCE).await.map_err(|e| e.to_string())?;
            Ok::<_, String>((started, answered))
        })
        .buffer_unordered(AT_ONCE);
    let (mut all, mut answers, mut failures) = (Vec::new(), Vec::new(), BTreeMap::new());
    while let Some(start) = starts.next().await {
        match start {
            Ok((started, answered)) => {
                all.push(started);
                answers.push(answered);
            }
            Err(reason) => *failures.entry(reason).or_insert(0) += 1,
        }
        progress.many("sessions started", all.len(), sessions as usize);
    }
    let fill = Fill {
        seconds: begun.elapsed().as_secs_f64(),
        start_ms: Distribution::of(answers),
        failures,
    };
    (all, fill)
}

/// How long a fake bot may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets a client into every session, and has it hear its bot.
async fn join(started: &[Started], progress: &Progress) -> (Callers, BTreeMap<String, usize>) {
    let mut callers = Callers::default();
    let mut failures = BTreeMap::new();
    let mut joins = stream::iter(started.iter().enumerate())
        .map(|(index, started)| callers::join(started, index))
        .buffer_unordered(AT_ONCE);
    let mut joined = 0;
    while let Some(caller) = joins.next().await {
        match caller {
            Ok(caller) => callers.stay(caller),
            Err(reason) => *failures.entry(reason).or_insert(0) += 1,
        }
        joined += 1;
        progress.many("clients joined", joined, started.len());
    }
    (callers, failures)
}

/// Starts and ends beside those that live: as many as can be, the highest rate that is held, and
/// what that costs.
async fn beside(
    client: &ApiClient,
    dispatcher: &Dispatcher,
    plan: &Plan<'_>,
    progress: &Progress,
) -> Result<(Option<Volley>, Volley, Cost), CliError> {
    let (most, mut rate) = match plan.rate {
        Some(rate) => (None, rate),
        None => {
            progress.doing("looking for the highest rate");
            let most = shot::as_many_as(client, AT_ONCE, PROBE).await;
            let rate = highest(client, most.per_s, plan.within).await;
            (Some(most), rate)
        }
    };
    progress.doing("starting and ending sessions beside them");
    for attempt in 1.. {
        let (before, ours) = (dispatcher.footprint()?.cpu, own_cpu());
        let store = dispatcher.on_disk();
        let steady = shot::at_rate(client, rate, plan.seconds).await;
        let cpu = dispatcher.footprint()?.cpu.saturating_sub(before);
        let cost =
            Cost::of(&steady, cpu, own_cpu().saturating_sub(ours), store, dispatcher.on_disk());
        if steady.held(plan.within) || plan.rate.is_some() || attempt == ATTEMPTS {
            return Ok((most, steady, cost));
        }
        rate *= 0.8;
    }
    unreachable!("the loop ends at the last attempt")
}

/// The highest rate below `most` that a short time says can be held.
async fn highest(client: &ApiClient, most: f64, within: Duration) -> f64 {
    let (mut held, mut not_held) = (most / 4.0, most * 1.1);
    for _ in 0..PROBES {
        let rate = f64::midpoint(held, not_held);
        if shot::at_rate(client, rate, PROBE).await.held(within) {
            held = rate;
        } else {
            not_held = rate;
        }
    }
    held
}

/// Deadlines are out of the way, and so are caps: nothing ends but what is ended.
fn configuration(home: &TempDir, sessions: u32, store: Option<&str>) -> String {
    let data = home.path().join("data");
    let most = u64::from(sessions) + 100_000;
    let store = store.map(|url| format!("store = {url:?}\n")).unwrap_or_default();
    format!(
        "listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\n{store}\
         [limits]\nmax_sessions = {most}\nmax_queued = {most}\n\
         [bots.{BOT}]\nprovider = \"fake\"\nmax_sessions = {most}\n\
         [bots.{BOT}.timeouts]\nstart_s = 3600\nready_s = 3600\njoin_s = 86400\nlive_s = 86400\n"
    )
}
