//! Starts and ends: one session each, from the request until nothing of it is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use callbox_protocol::api::StartRequest;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::api_client::{ApiClient, ApiError};
use crate::bench::distribution::Distribution;
use crate::caller::millis;

/// The bot's name in the configuration.
pub const BOT: &str = "load";
/// How long nothing of a session may be left.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sessions under way at once, beyond which a rate is not held.
const MOST_UNDER_WAY: usize = 4096;

/// What one session took, in milliseconds.
struct Shot {
    /// From the request (where there is a schedule: from when it was due) to the answer.
    start: f64,
    /// From accepted to ready, by the dispatcher's clock.
    ready: f64,
    /// From the wish to end it to the answer, which says that it is written down.
    end: f64,
    /// From that wish until nothing was left.
    gone: f64,
}

/// Many of them.
#[derive(Debug, Serialize)]
pub struct Volley {
    /// As planned; absent where as many were made as could be.
    pub wanted_per_s: Option<f64>,
    pub starts: usize,
    pub failures: BTreeMap<String, usize>,
    pub seconds: f64,
    pub per_s: f64,
    pub start_ms: Option<Distribution>,
    pub ready_ms: Option<Distribution>,
    pub end_ms: Option<Distribution>,
    pub ended_ms: Option<Distribution>,
}

impl Volley {
    /// Whether the rate was held, with this bound for the 99th percentile of the answer.
    pub fn held(&self, within: Duration) -> bool {
        let quick = self.start_ms.as_ref().is_some_and(|of| of.p99 <= millis(within));
        let enough = self.wanted_per_s.is_none_or(|wanted| self.per_s >= 0.97 * wanted);
        quick && enough && self.failures.is_empty()
    }

    fn of(shots: Vec<Result<Shot, String>>, took: Duration, wanted: Option<f64>) -> Volley {
        let mut failures = BTreeMap::new();
        let mut good = Vec::new();
        for shot in shots {
            match shot {
                Ok(shot) => good.push(shot),
                Err(reason) => *failures.entry(reason).or_insert(0) += 1,
            }
        }
        let seconds = took.as_secs_f64();
        let of = |pick: fn(&Shot) -> f64| Distribution::of(good.iter().map(pick));
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let per_s = good.len() as f64 / seconds;
        Volley {
            wanted_per_s: wanted,
            starts: good.len(),
            failures,
            seconds,
            per_s,
            start_ms: of(|shot| shot.start),
            ready_ms: of(|shot| shot.ready),
            end_ms: of(|shot| shot.end),
            ended_ms: of(|shot| shot.gone),
        }
    }
}

/// As many as `at_once` clients make in this time, each the next as soon as it is done.
pub async fn as_many_as(client: &ApiClient, at_once: usize, time: Duration) -> Volley {
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..at_once {
        let client = client.clone();
        clients.spawn(async move {
            let mut shots = Vec::new();
            while begun.elapsed() < time {
                shots.push(one(&client, Instant::now()).await);
            }
            shots
        });
    }
    let shots = clients.join_all().await.into_iter().flatten().collect();
    Volley::of(shots, begun.elapsed(), None)
}

/// So many a second for this time, whether or not those before are done. Counted from when each
/// was due: one that is held up holds up nobody's clock.
pub async fn at_rate(client: &ApiClient, per_s: f64, time: Duration) -> Volley {
    let begun = Instant::now();
    let under_way = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    let mut shots = Vec::new();
    for n in 0_u32.. {
        let due = begun + Duration::from_secs_f64(f64::from(n) / per_s);
        if due.duration_since(begun) >= time {
            break;
        }
        sleep_until(due).await;
        if under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY {
            shots.push(Err(format!("{MOST_UNDER_WAY} are under way already")));
            continue;
        }
        under_way.fetch_add(1, Ordering::Relaxed);
        let (client, under_way) = (client.clone(), Arc::clone(&under_way));
        all.spawn(async move {
            let shot = one(&client, due).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
            shot
        });
    }
    shots.extend(all.join_all().await);
    Volley::of(shots, begun.elapsed(), Some(per_s))
}

/// What is asked for.
pub fn request() -> StartRequest {
    StartRequest {
        bot: Some(BOT.into()),
        transport: Some("websocket".into()),
        ..StartRequest::default()
    }
}

async fn one(client: &ApiClient, due: Instant) -> Result<Shot, String> {
    let text = |error: ApiError| crate::error::chain(&error);
    let started = client.start(&request()).await.map_err(text)?;
    let start = millis(due.elapsed());
    let ready = client.when_ready(&started.session_id, PATIENCE).await.map_err(text)?;
    let ready = ready.stages_ms.ready.ok_or("it ended before it was ready")?;
    let wish = Instant::now();
    client.stop(&started.session_id).await.map_err(text)?;
    let end = millis(wish.elapsed());
    let ended = client.when_ended(&started.session_id, PATIENCE).await.map_err(text)?;
    if ended.moments.ended.is_none() {
        return Err(format!("something was left {} s after its end", PATIENCE.as_secs()));
    }
    Ok(Shot { start, ready, end, gone: millis(wish.elapsed()) })
}
