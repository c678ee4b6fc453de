//! What a benchmark found out: distributions and counts. `--json` prints it as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use callbox_protocol::api::{StagesMs, Usage};
use serde::{Serialize, Serializer};

use super::distribution::Distribution;
use super::host::Host;
use super::run::{Outcome, Run};
use crate::caller::{ClientMs, millis};

/// A benchmark's result. Fields are only ever added.
#[derive(Serialize)]
pub struct Report {
    benchmark: &'static str,
    callbox: &'static str,
    /// By the clock of the host below.
    at: String,
    pub from: String,
    pub mode: String,
    pub runs: usize,
    failed: usize,
    /// Reason and how often.
    pub failures: BTreeMap<String, usize>,
    /// As the sessions report them.
    pub providers: Vec<String>,
    pub accelerators: Vec<String>,
    /// The host of this client; on loopback it is the dispatcher's too.
    pub host: Host,
    /// Milliseconds from `accepted`, by the dispatcher's clock; good runs only.
    pub stages_ms: Table,
    /// Milliseconds from the request, by the client's clock; good runs only.
    pub client_ms: Table,
    /// Milliseconds that parts of the start took; good runs only.
    pub start_stages_ms: Table,
    /// From admitted to started without the machine's own stages; good runs only.
    pub overhead_ms: Option<Distribution>,
    /// Bytes that each machine had for itself, when ready, at the first audio, at the end; good
    /// runs only.
    pub unique_bytes: Table,
    /// What the dispatcher made of the starts.
    pub outcomes: Outcomes,
    /// Calls that went well but started from something else, and from what.
    pub otherwise: BTreeMap<String, usize>,
    /// `ready` of all calls that went well, whatever they started from.
    pub any_ready_ms: Option<Distribution>,
    /// From the first request to the end of the last call.
    pub wall_ms: f64,
    /// The first use after idling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    samples: Vec<Run>,
}

/// How many starts were what.
#[derive(Serialize)]
pub struct Outcomes {
    pub admitted: usize,
    pub queued: usize,
    pub highest_position: Option<u32>,
    pub refused: usize,
    pub retry_after_s: Option<Distribution>,
    pub failed: usize,
}

/// A reserve's first use after it was left alone.
#[derive(Serialize)]
pub struct Idle {
    pub seconds: u64,
    pub ready_ms: Option<f64>,
    /// Of the runs before.
    pub median_ready_ms: Option<f64>,
    run: Run,
}

impl Idle {
    pub fn of(seconds: u64, run: Run) -> Idle {
        let ready_ms = run.stages_ms.ready.filter(|_| run.counts());
        Idle { seconds, ready_ms, median_ready_ms: None, run }
    }
}

/// A number of a run, by name.
type Pick<T> = (&'static str, fn(&T) -> Option<f64>);

/// In the order in which they come; the names are those of the API.
const STAGES: [Pick<StagesMs>; 6] = [
    ("admitted", |ms| ms.admitted),
    ("started", |ms| ms.started),
    ("ready", |ms| ms.ready),
    ("joined", |ms| ms.joined),
    ("audible", |ms| ms.audible),
    ("ended", |ms| ms.ended),
];

const CLIENT: [Pick<ClientMs>; 5] = [
    ("request", |ms| ms.request),
    ("connected", |ms| ms.connected),
    ("bot_ready", |ms| ms.bot_ready),
    ("first_audio", |ms| ms.first_audio),
    ("first_sound", |ms| ms.first_sound),
];

#[allow(clippy::cast_precision_loss)] // far below 2^52
const MEMORY: [Pick<Usage>; 3] = [
    ("ready", |usage| usage.ready_unique_bytes.map(|bytes| bytes as f64)),
    ("audible", |usage| usage.audible_unique_bytes.map(|bytes| bytes as f64)),
    ("end", |usage| usage.end_unique_bytes.map(|bytes| bytes as f64)),
];

impl Report {
    /// Counts and sorts.
    pub fn new(
        from: String,
        mode: String,
        samples: Vec<Run>,
        wall: Duration,
        host: Host,
    ) -> Report {
        let good: Vec<&Run> = samples.iter().filter(|run| run.counts()).collect();
        let well = || samples.iter().filter(|run| run.went_well());
        let mut start_stages_ms = Table::default();
        for name in part_names(&good) {
            let parts = good.iter().flat_map(|run| &run.start_stages);
            let samples = parts.filter(|part| part.name == name).map(|part| part.ms);
            start_stages_ms.add(name, samples);
        }
        let usages: Vec<&Usage> = good.iter().filter_map(|run| run.usage.as_ref()).collect();
        Report {
            benchmark: "start",
            callbox: env!("CARGO_PKG_VERSION"),
            at: jiff::Timestamp::now().to_string(),
            from,
            mode,
            runs: samples.len(),
            failed: samples.iter().filter(|run| run.failure.is_some()).count(),
            failures: counts(samples.iter().filter_map(|run| run.failure.clone())),
            providers: distinct(samples.iter().filter_map(|run| run.provider.as_deref())),
            accelerators: distinct(samples.iter().filter_map(|run| run.accelerator.as_deref())),
            host,
            stages_ms: Table::of(&STAGES, good.iter().map(|run| &run.stages_ms)),
            client_ms: Table::of(&CLIENT, good.iter().map(|run| &run.client_ms)),
            start_stages_ms,
            overhead_ms: Distribution::of(good.iter().filter_map(|run| run.overhead_ms)),
            unique_bytes: Table::of(&MEMORY, usages.into_iter()),
            outcomes: Outcomes::of(&samples),
            otherwise: counts(well().filter(|run| run.otherwise).filter_map(|r| r.start.clone())),
            any_ready_ms: Distribution::of(well().filter_map(|run| run.stages_ms.ready)),
            wall_ms: millis(wall),
            idle: None,
            samples,
        }
    }

    /// How many runs failed.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// How many runs there were.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// How many runs the numbers are of.
    pub fn good(&self) -> usize {
        self.samples.iter().filter(|run| run.counts()).count()
    }

    /// The median of the moment `ready`.
    pub fn ready_p50(&self) -> Option<f64> {
        self.stages_ms.get("ready").map(|of| of.p50)
    }

    /// Adds the first use after idling.
    pub fn set_idle(&mut self, idle: Idle) {
        let failure = idle.run.failure.clone().or_else(|| {
            (!idle.run.counts()).then(|| "the first use was not from the reserve".to_owned())
        });
        if let Some(failure) = failure {
            *self.failures.entry(format!("after idling: {failure}")).or_insert(0) += 1;
            self.failed += 1;
        }
        self.idle = Some(Idle { median_ready_ms: self.ready_p50(), ..idle });
    }
}

impl Outcomes {
    fn of(samples: &[Run]) -> Outcomes {
        let count = |outcome| {
            let failed = |run: &Run| run.failure.is_some() && run.outcome != Outcome::Refused;
            let is = |run: &Run| if failed(run) { Outcome::Failed } else { run.outcome };
            samples.iter().filter(|run| is(run) == outcome).count()
        };
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let retries = samples.iter().filter_map(|run| run.retry_after_s.map(|s| s as f64));
        Outcomes {
            admitted: count(Outcome::Admitted),
            queued: count(Outcome::Queued),
            highest_position: samples.iter().filter_map(|run| run.highest_position).max(),
            refused: count(Outcome::Refused),
            retry_after_s: Distribution::of(retries),
            failed: count(Outcome::Failed),
        }
    }
}

/// Distributions by name, in an order that means something; JSON keeps it.
#[derive(Default)]
pub struct Table(pub Vec<(String, Distribution)>);

impl Table {
    fn of<'a, T: 'a>(picks: &[Pick<T>], all: impl Iterator<Item = &'a T> + Clone) -> Table {
        let mut table = Table::default();
        for (name, pick) in picks {
            table.add(name, all.clone().filter_map(pick));
        }
        table
    }

    /// Nothing where nothing was measured.
    fn add(&mut self, name: &str, samples: impl Iterator<Item = f64>) {
        self.0.extend(Distribution::of(samples).map(|of| (name.to_owned(), of)));
    }

    /// The distribution of this name.
    pub fn get(&self, name: &str) -> Option<&Distribution> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, of)| of)
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, of)| (name, of)))
    }
}

/// The parts of a start, in the order in which they are done.
fn part_names<'a>(runs: &[&'a Run]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for part in runs.iter().flat_map(|run| &run.start_stages) {
        if !names.contains(&part.name.as_str()) {
            names.push(part.name.as_str());
        }
    }
    names
}

fn counts(words: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_insert(0) += 1);
    counts
}

fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    words.sort();
    words.dedup();
    words
}
