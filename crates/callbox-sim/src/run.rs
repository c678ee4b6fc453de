//! One seed: a storm, then peace, then a look at what is left.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    audit::SETTLED,
    clients::{Answers, Client},
    determinism,
    dice::Dice,
    dispatcher::Keeper,
    weather::Weather,
    world::{Violation, World},
};

/// What a run found.
pub struct Found {
    /// What must never be, and was.
    pub violations: Vec<Violation>,
    /// How often each thing happened.
    pub counts: BTreeMap<String, u64>,
    /// Of the whole trace.
    pub hash: u64,
    /// How many lines the trace has.
    pub lines: u64,
    /// How long it took in the world's own time.
    pub simulated_s: f64,
    /// The last lines that speak of what was violated, or of everything.
    pub tail: Vec<String>,
    /// What kind of world it was.
    pub weather: String,
}

impl Found {
    /// As one line for whoever started this process.
    pub fn json(&self, seed: u64) -> Value {
        let violations = self.violations.iter();
        let violations: Vec<Value> =
            violations.map(|v| json!({ "what": v.what, "detail": v.detail })).collect();
        json!({
            "seed": seed, "violations": violations, "counts": self.counts,
            "hash": format!("{:016x}", self.hash), "lines": self.lines,
            "simulated_s": self.simulated_s, "tail": self.tail, "weather": self.weather,
        })
    }
}

/// Runs one seed; this process is good for no other after that.
///
/// # Errors
/// When the disk does not take a few small files.
pub fn run(seed: u64, loud: bool) -> anyhow::Result<Found> {
    let dir = tempfile::tempdir()?;
    determinism::begin(seed);
    let began = Arc::new(Mutex::new(None::<Instant>));
    let follow = Arc::clone(&began);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        // Time passes only while everybody waits.
        .on_thread_unpark(move || {
            let began = *follow.lock().expect("no panic while held");
            if let Some(began) = began {
                let since = began.elapsed().as_nanos();
                determinism::set_time(u64::try_from(since).unwrap_or(u64::MAX));
            }
        })
        .build()?;
    runtime.block_on(async {
        *began.lock().expect("no panic while held") = Some(Instant::now());
        live(seed, dir.path(), loud).await
    })
}

async fn live(seed: u64, dir: &std::path::Path, loud: bool) -> anyhow::Result<Found> {
    let weather = Weather::of(&mut Dice::of(seed, 1));
    let world = World::new(weather.clone(), Dice::of(seed, 2), loud);
    world.note("weather", || format!("{weather:?}"));
    for replica in 0..weather.replicas {
        let dir = dir.join(replica.to_string());
        std::fs::create_dir(&dir)?;
        tokio::spawn(Keeper::new(&world, replica, &dir)?.run());
    }
    let watch = Arc::clone(&world);
    tokio::spawn(async move { watch.watch_over().await });
    tokio::spawn(storm(Arc::clone(&world)));
    let answers = Arc::new(Mutex::new(Answers::default()));
    let mut dice = Dice::of(seed, 3);
    let mut clients = Vec::new();
    for number in 0..weather.clients {
        let comes = dice.between(500, u64::try_from(weather.storm.as_millis())?);
        let client = Client {
            world: Arc::clone(&world),
            answers: Arc::clone(&answers),
            dice: dice.fork(),
            number,
        };
        clients.push(tokio::spawn(async move {
            sleep(comes).await;
            client.run().await;
        }));
    }
    sleep(weather.storm).await;
    world.inner().calm = true;
    world.note("calm", String::new);
    for client in clients {
        client.await?;
    }
    let end = Instant::now() + SETTLED;
    while !world.is_settled() && Instant::now() < end {
        sleep(std::time::Duration::from_secs(1)).await;
    }
    let alive: Vec<_> = std::mem::take(&mut world.inner().machines).into_values().collect();
    alive.iter().for_each(|machine| world.bury(machine));
    let all = alive.into_iter().map(|machine| (machine.name(), machine)).collect();
    world.inner().machines = all;
    world.look_back(&answers);
    Ok(found(&world))
}

/// What befalls everybody: the store or the provider is away now and then.
async fn storm(world: Arc<World>) {
    loop {
        sleep(std::time::Duration::from_secs(10)).await;
        if world.happens(world.weather.provider_away / 6.0) {
            let span = world.inner().dice.between(2_000, 40_000);
            world.note("provider.away", || format!("{span:?}"));
            world.inner().provider_away_until = Instant::now() + span;
            world.upset_until(Instant::now() + span);
        }
        if world.happens(world.weather.store_away / 12.0) {
            let span = world.inner().dice.between(1_000, 60_000);
            world.note("store.away", || format!("{span:?}"));
            world.inner().store_away_until = Instant::now() + span;
            world.upset_until(Instant::now() + span);
            sleep(span).await;
        }
    }
}

fn found(world: &World) -> Found {
    let inner = world.inner();
    // What a violation speaks of: a session's id, in whichever form.
    let ids: Vec<String> = inner
        .violations
        .iter()
        .flat_map(|violation| {
            violation.detail.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'))
        })
        .filter(|word| word.len() >= 32)
        .flat_map(|word| {
            let plain = word.trim_start_matches("cb-").to_owned();
            let simple = plain.replace('-', "");
            [plain, simple]
        })
        .collect();
    let about = |line: &str| {
        ids.iter().any(|id| line.contains(id.as_str()))
            || line.contains("dispatcher.")
            || line.contains("crash.")
            || line.contains("deploy.")
            || line.contains("store.")
    };
    let tail = if inner.violations.is_empty() { Vec::new() } else { inner.trace.tail(120, about) };
    Found {
        violations: inner.violations.clone(),
        counts: inner.counts.clone(),
        hash: inner.trace.hash(),
        lines: inner.trace.count(),
        simulated_s: world.age().as_secs_f64(),
        tail,
        weather: format!("{:?}", world.weather),
    }
}
