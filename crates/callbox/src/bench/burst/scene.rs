//! One dispatcher, one cloud, and many starts at once.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use callbox_protocol::api::{Session, StartRequest};
use futures::future::join_all;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

use super::cloud::Cloud;
use super::report::Scene;
use crate::api_client::{ApiClient, ApiError};
use crate::bench::dispatcher::{self, CONFIG, Dispatcher};
use crate::bench::distribution::Distribution;
use crate::caller::millis;
use crate::error::CliError;
use crate::progress::Progress;
use crate::secret::Secret;

/// The bot's name in the configuration.
const BOT: &str = "burst";
/// Opens the stand-in, and nothing else.
const TOKEN: &str = "FlyV1 fm2_benchmark";
/// How long a session may take to become ready, its wait in the queue included.
const READY: Duration = Duration::from_secs(600);
/// How long a reserve may take to fill.
const FILLS: Duration = Duration::from_secs(600);
/// How long nothing of a session may be left.
const ENDS: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// What is to be shown.
pub struct Plan {
    pub name: String,
    pub apps: usize,
    pub reserve: usize,
    pub kind: Option<&'static str>,
    pub machine_cap: u32,
    pub starts: usize,
    pub max_queued: usize,
}

/// What became of one start.
struct Shot {
    answer: f64,
    ready: f64,
    session: Session,
}

enum Missed {
    Refused,
    Failed(String),
}

/// Sets it up, and shows it.
pub async fn run(plan: &Plan, progress: &Progress) -> Result<Scene, CliError> {
    progress.doing("opening a cloud and a dispatcher");
    let apps: Vec<String> = (1..=plan.apps).map(|n| format!("bots-{n}")).collect();
    let cloud = Cloud::open(&apps, plan.machine_cap, TOKEN).await?;
    let (dispatcher, client) = open(plan, &apps, &cloud).await?;
    fill(plan, &client, progress).await?;
    cloud.take_calls();

    progress.tell(&format!("{}: {} starts at once", plan.name, plan.starts));
    let begun = Instant::now();
    let shots = join_all((0..plan.starts).map(|_| one(&client))).await;
    let gone = timeout(ENDS, nothing_is_left(&cloud)).await;
    let seconds = begun.elapsed().as_secs_f64();
    let calls = cloud.take_calls();
    let left = if gone.is_ok() { 0 } else { of_sessions(&cloud).len() };
    let bought_twice = cloud.bought_twice();
    drop(dispatcher);

    let mut scene = Scene {
        name: plan.name.clone(),
        apps: plan.apps,
        reserve: plan.reserve,
        reserve_kind: plan.kind.map(str::to_owned),
        machine_cap: plan.machine_cap,
        ready: 0,
        refused: 0,
        failed: BTreeMap::new(),
        answer_ms: None,
        ready_ms: None,
        start_ms: None,
        seconds,
        from: BTreeMap::new(),
        bought_twice,
        left,
        calls,
    };
    count(&mut scene, shots);
    Ok(scene)
}

async fn open(
    plan: &Plan,
    apps: &[String],
    cloud: &Cloud,
) -> Result<(Dispatcher, ApiClient), CliError> {
    let home = tempfile::tempdir()?;
    // Machines are told where it is before it is there.
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let configuration = configuration(plan, apps, &home, port);
    std::fs::write(home.path().join(CONFIG), &configuration)?;
    let key = key(&home).await?;
    let environment = [("FLY_API_TOKEN", TOKEN), ("FLY_FLAPS_BASE_URL", cloud.url.as_str())];
    let dispatcher = Dispatcher::start(home, &configuration, &environment).await?;
    let client = ApiClient::new(&dispatcher.url, Some(key))?;
    Ok((dispatcher, client))
}

/// Machines come from elsewhere, so nothing is served without a key.
async fn key(home: &TempDir) -> Result<Secret, CliError> {
    let create = ["keys", "create", "--private", "--json"];
    let made = dispatcher::command(home, &create)?.stderr(Stdio::inherit()).output().await?;
    let answer: Value = serde_json::from_slice(&made.stdout).unwrap_or_default();
    let key = answer["key"].as_str();
    key.map(Secret::new).ok_or_else(|| CliError::Serve("no key was made".to_owned()))
}

fn configuration(plan: &Plan, apps: &[String], home: &TempDir, port: u16) -> String {
    let data = home.path().join("data");
    let reserve = match plan.kind {
        Some(kind) => {
            let many = plan.reserve;
            format!("[bots.{BOT}.reserve]\nmin = {many}\nmax = {many}\nkind = {kind:?}\n")
        }
        None => String::new(),
    };
    format!(
        "listen = \"127.0.0.1:{port}\"\npublic_url = \"http://127.0.0.1:{port}\"\n\
         data_dir = {data:?}\n\
         [limits]\nmax_sessions = {most}\nmax_queued = {queued}\n\
         [fly]\napps = {apps:?}\nmax_machines = {cap}\n\
         [bots.{BOT}]\nprovider = \"fly\"\nimage = \"registry.fly.io/bots@sha256:00\"\n\
         max_sessions = {most}\nregions = [\"iad\", \"ord\"]\n\
         [bots.{BOT}.timeouts]\nqueued_s = 600\nstart_s = 600\n{reserve}",
        most = plan.starts * 2,
        queued = plan.max_queued,
        cap = plan.machine_cap,
    )
}

/// Waits until as many machines wait as shall.
async fn fill(plan: &Plan, client: &ApiClient, progress: &Progress) -> Result<(), CliError> {
    if plan.reserve == 0 {
        return Ok(());
    }
    let filled = async {
        let mut told = None;
        loop {
            let ready = client.info().await?.reserves.get(BOT).map_or(0, |reserve| reserve.ready);
            let ready = usize::try_from(ready).unwrap_or(usize::MAX);
            if told.replace(ready / 10) != Some(ready / 10) {
                progress.many("machines in reserve", ready, plan.reserve);
            }
            if ready >= plan.reserve {
                return Ok::<_, ApiError>(());
            }
            sleep(LOOK).await;
        }
    };
    let late = || CliError::Serve(format!("the reserve was not full after {} s", FILLS.as_secs()));
    Ok(timeout(FILLS, filled).await.map_err(|_| late())??)
}

async fn one(client: &ApiClient) -> Result<Shot, Missed> {
    let failed = |error: ApiError| Missed::Failed(crate::error::chain(&error));
    let begun = Instant::now();
    let request = StartRequest {
        bot: Some(BOT.into()),
        transport: Some("websocket".into()),
        ..StartRequest::default()
    };
    let started = match client.start(&request).await {
        Ok(started) => started,
        Err(ApiError::Refused { retry_after: Some(_), .. }) => return Err(Missed::Refused),
        Err(error) => return Err(failed(error)),
    };
    let answer = millis(begun.elapsed());
    let session = client.when_ready(&started.session_id, READY).await.map_err(failed)?;
    let ready = millis(begun.elapsed());
    client.stop(&started.session_id).await.map_err(failed)?;
    let ended = client.when_ended(&started.session_id, ENDS).await.map_err(failed)?;
    if session.stages_ms.ready.is_none() {
        let why = ended.end_reason.map(|why| format!("{}: {}", why.code, why.detail));
        return Err(Missed::Failed(why.unwrap_or_else(|| "it was not ready in time".to_owned())));
    }
    if ended.moments.ended.is_none() {
        return Err(Missed::Failed("something of it was left".to_owned()));
    }
    Ok(Shot { answer, ready, session })
}

fn count(scene: &mut Scene, shots: Vec<Result<Shot, Missed>>) {
    let mut good = Vec::new();
    for shot in shots {
        match shot {
            Ok(shot) => {
                let from = shot.session.start.clone().unwrap_or_else(|| "unknown".to_owned());
                *scene.from.entry(from).or_default() += 1;
                good.push(shot);
            }
            Err(Missed::Refused) => scene.refused += 1,
            Err(Missed::Failed(why)) => *scene.failed.entry(why).or_default() += 1,
        }
    }
    scene.ready = good.len();
    scene.answer_ms = Distribution::of(good.iter().map(|shot| shot.answer));
    scene.ready_ms = Distribution::of(good.iter().map(|shot| shot.ready));
    let stages = good.iter().map(|shot| &shot.session.stages_ms);
    scene.start_ms = Distribution::of(stages.filter_map(|of| Some(of.ready? - of.admitted?)));
}

/// Machines that are, or were, a session's.
fn of_sessions(cloud: &Cloud) -> Vec<String> {
    let mut names = cloud.machines();
    names.retain(|name| callbox_core::of_machine_name(name).is_some());
    names
}

async fn nothing_is_left(cloud: &Cloud) {
    while !of_sessions(cloud).is_empty() {
        sleep(LOOK).await;
    }
}
