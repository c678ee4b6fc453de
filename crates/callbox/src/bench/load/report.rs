//! What was found out. `--json` prints it as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::footprint::Footprint;
use super::shot::Volley;
use crate::bench::distribution::Distribution;
use crate::bench::host::Host;

/// The benchmark's result. Fields are only ever added.
#[derive(Serialize)]
pub struct Report {
    benchmark: &'static str,
    callbox: &'static str,
    /// By the clock of the host below.
    at: String,
    pub host: Host,
    /// Of that host over the last minute, before anything began.
    pub load_average: f64,
    /// Whether this binary was built with optimization.
    pub optimized: bool,
    /// `sqlite`, or as it was given.
    pub store: &'static str,
    /// Bound for the 99th percentile of the answer, in milliseconds.
    pub within_ms: u64,
    /// A fake machine and the link to it, as measured alone; part of the sessions' memory.
    pub fake_machine_bytes: u64,
    pub rounds: Vec<Round>,
    /// Numbers of each round, divided by those of the first.
    pub ratios: BTreeMap<String, BTreeMap<&'static str, f64>>,
}

/// One dispatcher with so many sessions.
#[derive(Serialize)]
pub struct Round {
    pub sessions: u32,
    pub fill: Fill,
    pub memory: Memory,
    pub idle: Idle,
    /// As many starts as could be made, with no regard to how long each took.
    pub most: Option<Volley>,
    /// At the highest steady rate, or the one that was wanted.
    pub steady: Volley,
    /// Whether that rate was held.
    pub held: bool,
    pub cost: Cost,
    /// Of its store, per session that lives.
    pub store_bytes_per_session: u64,
    pub log_bytes_per_session: u64,
    pub failures: BTreeMap<String, usize>,
}

/// How it was filled.
#[derive(Serialize)]
pub struct Fill {
    pub seconds: f64,
    pub start_ms: Option<Distribution>,
    #[serde(skip)]
    pub failures: BTreeMap<String, usize>,
}

/// The dispatcher's memory.
#[derive(Serialize)]
pub struct Memory {
    pub empty: Footprint,
    /// All bots are ready, nobody has joined.
    pub ready: Footprint,
    /// The clients are in their calls, which are carried by the dispatcher itself: fake machines
    /// have no port that a relay could reach.
    pub live: Footprint,
    /// Bytes (PSS) per session, less those of the empty dispatcher.
    pub bytes_per_session: u64,
    /// Clients that are in their calls.
    pub calls: usize,
    /// What carrying one takes besides.
    pub bytes_per_call: u64,
}

/// What it does while nothing is asked of it.
#[derive(Serialize)]
pub struct Idle {
    pub seconds: f64,
    /// Of one processor.
    pub cpu_percent: f64,
}

/// What starts and ends cost beside those that live.
#[derive(Serialize)]
pub struct Cost {
    /// Of the dispatcher, for 1000 sessions started and ended. What the others cost while nothing
    /// happens is in it.
    pub cpu_s_per_1000: f64,
    /// Of this client.
    pub client_cpu_s_per_1000: f64,
    pub store_bytes_per_1000: u64,
    pub log_bytes_per_1000: u64,
}

impl Report {
    pub fn new(
        machine: u64,
        load_average: f64,
        within_ms: u64,
        elsewhere: bool,
        rounds: Vec<Round>,
    ) -> Report {
        Report {
            benchmark: "load",
            callbox: env!("CARGO_PKG_VERSION"),
            at: jiff::Timestamp::now().to_string(),
            host: Host::describe(),
            load_average,
            optimized: !cfg!(debug_assertions),
            store: if elsewhere { "as given" } else { "sqlite" },
            within_ms,
            fake_machine_bytes: machine,
            ratios: ratios(&rounds),
            rounds,
        }
    }

    /// How many sessions failed, of how many.
    pub fn failed(&self) -> (usize, usize) {
        let failed = self.rounds.iter().map(|round| {
            round.failures.values().chain(round.steady.failures.values()).sum::<usize>()
        });
        let all = self.rounds.iter().map(|round| round.sessions as usize + round.steady.starts);
        let failed = failed.sum();
        (failed, all.sum::<usize>() + failed)
    }
}

impl Memory {
    pub fn of(
        empty: &Footprint,
        ready: &Footprint,
        live: &Footprint,
        sessions: usize,
        calls: usize,
    ) -> Memory {
        let each = |more: &Footprint, less: &Footprint, count: usize| {
            more.pss_bytes.saturating_sub(less.pss_bytes) / (count as u64).max(1)
        };
        Memory {
            bytes_per_session: each(ready, empty, sessions),
            calls,
            bytes_per_call: each(live, ready, calls),
            empty: *empty,
            ready: *ready,
            live: *live,
        }
    }
}

impl Idle {
    pub fn of(cpu: Duration, over: Duration) -> Idle {
        let seconds = over.as_secs_f64();
        Idle { seconds, cpu_percent: 100.0 * cpu.as_secs_f64() / seconds }
    }
}

impl Cost {
    pub fn of(
        steady: &Volley,
        cpu: Duration,
        client: Duration,
        before: (u64, u64),
        after: (u64, u64),
    ) -> Cost {
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let thousands = (steady.starts.max(1) as f64) / 1000.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts of bytes
        #[allow(clippy::cast_precision_loss)]
        let bytes =
            |after: u64, before: u64| (after.saturating_sub(before) as f64 / thousands) as u64;
        Cost {
            cpu_s_per_1000: cpu.as_secs_f64() / thousands,
            client_cpu_s_per_1000: client.as_secs_f64() / thousands,
            store_bytes_per_1000: bytes(after.0, before.0),
            log_bytes_per_1000: bytes(after.1, before.1),
        }
    }
}

/// How what should not grow with the number of sessions grows: 1 is not at all.
fn ratios(rounds: &[Round]) -> BTreeMap<String, BTreeMap<&'static str, f64>> {
    let Some((first, others)) = rounds.split_first() else { return BTreeMap::new() };
    let numbers = |round: &Round| {
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let memory = |bytes: u64| Some(bytes as f64);
        let start = |pick: fn(&Distribution) -> f64| round.steady.start_ms.as_ref().map(pick);
        [
            ("memory_per_session", memory(round.memory.bytes_per_session)),
            ("memory_per_call", memory(round.memory.bytes_per_call)),
            ("rate", Some(round.steady.per_s)),
            ("start_p50", start(|of| of.p50)),
            ("start_p99", start(|of| of.p99)),
            ("cpu_per_start", Some(round.cost.cpu_s_per_1000)),
            ("idle_cpu", Some(round.idle.cpu_percent)),
        ]
    };
    let compare = |round: &Round| {
        let pairs = numbers(round).into_iter().zip(numbers(first));
        pairs
            .filter_map(|((name, over), (_, under))| {
                let under = under.filter(|under| *under > 0.0)?;
                Some((name, (over? / under * 100.0).round() / 100.0))
            })
            .collect()
    };
    let name = |round: &Round| format!("{}_over_{}", round.sessions, first.sessions);
    others.iter().map(|round| (name(round), compare(round))).collect()
}
