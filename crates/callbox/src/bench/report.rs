//! What a benchmark prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use callbox_protocol::api::{Session, Stage, StagesMs};
use serde::{Serialize, Serializer};

use super::distribution::Distribution;
use super::host::Host;
use crate::caller::ClientMs;
use crate::terminal::{BAD, BOLD, DIM, Look, printable};

/// One start.
#[derive(Serialize)]
pub struct Run {
    session_id: Option<String>,
    provider: Option<String>,
    accelerator: Option<String>,
    start: Option<String>,
    stages_ms: StagesMs,
    client_ms: ClientMs,
    start_stages: Vec<Stage>,
    /// Why it does not count.
    pub failure: Option<String>,
}

impl Run {
    /// A start that led to a session.
    pub fn of(session: Session, client_ms: ClientMs, failure: Option<String>) -> Run {
        Run {
            session_id: Some(session.id),
            provider: Some(session.provider),
            accelerator: session.accelerator,
            start: session.start,
            stages_ms: session.stages_ms,
            client_ms,
            start_stages: session.start_stages,
            failure,
        }
    }

    /// A start that did not.
    pub fn failed(failure: String) -> Run {
        Run {
            session_id: None,
            provider: None,
            accelerator: None,
            start: None,
            stages_ms: StagesMs::default(),
            client_ms: ClientMs::default(),
            start_stages: Vec::new(),
            failure: Some(failure),
        }
    }
}

/// A benchmark's result; `--json` prints it. Fields are only ever added.
#[derive(Serialize)]
pub struct Report {
    benchmark: &'static str,
    callbox: &'static str,
    /// By the clock of the host below.
    at: String,
    from: String,
    mode: String,
    runs: usize,
    failed: usize,
    /// Reason and how often.
    failures: BTreeMap<String, usize>,
    /// As the sessions report them.
    providers: Vec<String>,
    accelerators: Vec<String>,
    /// The host of this client; on loopback it is the dispatcher's too.
    host: Host,
    /// Milliseconds from `accepted`, by the dispatcher's clock; good runs only.
    stages_ms: Table,
    /// Milliseconds from the request, by the client's clock; good runs only.
    client_ms: Table,
    /// Milliseconds that parts of the start took; good runs only.
    start_stages_ms: Table,
    samples: Vec<Run>,
}

/// A number of a run, by name.
type Pick<T> = (&'static str, fn(&T) -> Option<f64>);

/// In the order in which they come; the names are those of the API.
const STAGES: [Pick<StagesMs>; 5] = [
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

impl Report {
    /// Counts and sorts.
    pub fn new(from: String, mode: String, samples: Vec<Run>, host: Host) -> Report {
        let good: Vec<&Run> = samples.iter().filter(|run| run.failure.is_none()).collect();
        let mut failures = BTreeMap::new();
        for reason in samples.iter().filter_map(|run| run.failure.clone()) {
            *failures.entry(reason).or_insert(0) += 1;
        }
        let mut start_stages_ms = Table::default();
        let mut stages_ms = Table::default();
        let mut client_ms = Table::default();
        for name in part_names(&good) {
            let parts = good.iter().flat_map(|run| &run.start_stages);
            let samples = parts.filter(|part| part.name == name).map(|part| part.ms);
            start_stages_ms.add(name, samples);
        }
        for (name, pick) in STAGES {
            stages_ms.add(name, good.iter().filter_map(|run| pick(&run.stages_ms)));
        }
        for (name, pick) in CLIENT {
            client_ms.add(name, good.iter().filter_map(|run| pick(&run.client_ms)));
        }
        Report {
            benchmark: "start",
            callbox: env!("CARGO_PKG_VERSION"),
            at: jiff::Timestamp::now().to_string(),
            from,
            mode,
            runs: samples.len(),
            failed: samples.len() - good.len(),
            failures,
            providers: distinct(samples.iter().filter_map(|run| run.provider.as_deref())),
            accelerators: distinct(samples.iter().filter_map(|run| run.accelerator.as_deref())),
            host,
            stages_ms,
            client_ms,
            start_stages_ms,
            samples,
        }
    }

    /// How many runs do not count.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// The same for people.
    pub fn table(&self, look: Look) -> String {
        let dot = look.glyph("·", "|");
        let good = self.runs - self.failed;
        let mut text = format!(
            "\n  {} {dot} {} {dot} {good} of {} good\n",
            look.paint(BOLD, format!("start from {}", self.from)),
            self.mode,
            self.runs
        );
        let machine = format!(
            "{} {dot} {} cores {dot} {} MiB {dot} Linux {} {dot} {} {}",
            self.host.cpu,
            self.host.cores,
            self.host.memory_mib,
            self.host.kernel,
            self.providers.join("+"),
            self.accelerators.join("+"),
        );
        let _ = writeln!(text, "  {}\n", look.paint(DIM, printable(machine.trim_end())));
        if good > 0 {
            self.write_numbers(&mut text, look);
        }
        for (reason, count) in &self.failures {
            let times = look.paint(BAD, format!("{count} failed"));
            let _ = writeln!(text, "  {times}  {}", printable(reason));
        }
        if !self.failures.is_empty() {
            text.push('\n');
        }
        text
    }

    fn write_numbers(&self, text: &mut String, look: Look) {
        let header = format!(
            "{:<18}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "ms", "p50", "p95", "p99", "min", "max"
        );
        let _ = writeln!(text, "  {}", look.paint(DIM, header));
        let mut line = |name: &str, of: &Distribution, bold: bool| {
            let name: String = printable(name).chars().take(17).collect();
            let p50 = format!("{:>10.1}", of.p50);
            let _ = writeln!(
                text,
                "  {name:<18}{}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
                if bold { look.paint(BOLD, p50) } else { p50 },
                of.p95,
                of.p99,
                of.min,
                of.max
            );
        };
        for (name, of) in &self.stages_ms.0 {
            line(name, of, true);
            if name == "started" {
                for (part, of) in &self.start_stages_ms.0 {
                    line(&format!("  {part}"), of, false);
                }
            }
        }
        for (name, of) in &self.client_ms.0 {
            line(&format!("you: {}", name.replace('_', " ")), of, false);
        }
        text.push('\n');
    }
}

/// Distributions by name, in an order that means something; JSON keeps it.
#[derive(Default)]
struct Table(Vec<(String, Distribution)>);

impl Table {
    /// Nothing where nothing was measured.
    fn add(&mut self, name: &str, samples: impl Iterator<Item = f64>) {
        self.0.extend(Distribution::of(samples).map(|of| (name.to_owned(), of)));
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

fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    words.sort();
    words.dedup();
    words
}
