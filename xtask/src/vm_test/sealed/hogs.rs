//! Bots that take all that there is, beside a call that must not notice.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    QUIET, ROOT,
    call::{Api, Call},
    machine::{Machine, field_of},
    report::Finding,
};

/// What a bot can take too much of, and how its session ends if it does so by that.
const HOGS: [(&str, Option<&str>); 6] = [
    ("memory", Some("bot-out-of-memory")),
    ("processes", None),
    ("disk", None),
    ("log", None),
    ("console", None),
    ("cpu", None),
];
/// How long the neighbour is listened to, before and during.
const BEFORE: Duration = Duration::from_secs(2);
const DURING: Duration = Duration::from_secs(4);
/// A message every so often: as often as speech has packets, or nearly.
const EVERY: Duration = Duration::from_millis(40);
/// What a session's log may have, and what its last line may be too much.
const LOG_BYTES: u64 = (8 << 20) + (64 << 10);
/// Threads of a QEMU, at most.
const MAX_PIDS: u64 = 128;
/// What the dispatcher may take more for a session: the log that it keeps of it, twice.
const RSS_MORE_KIB: u64 = 32 << 10;
/// How long a bot that the kernel ends may take to end its session.
const END_MS: u64 = 60_000;

/// Times, sorted.
#[derive(Clone, Debug, Default)]
pub struct Spread(Vec<Duration>);

impl Spread {
    fn of(mut times: Vec<Duration>) -> Spread {
        times.sort_unstable();
        Spread(times)
    }

    fn at(&self, percent: usize) -> f64 {
        let index = (self.0.len().saturating_sub(1)) * percent / 100;
        self.0.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    fn json(&self) -> Value {
        json!({ "n": self.0.len(), "p50": self.at(50), "p95": self.at(95), "max": self.at(100) })
    }
}

/// What was heard and seen for a while.
#[derive(Default)]
struct Heard {
    echo: Spread,
    api: Spread,
    memory_peak: Option<u64>,
    pids: Option<u64>,
}

/// What one hog did to others.
pub struct Hog {
    what: &'static str,
    echo_before: Spread,
    echo_during: Spread,
    api_before: Spread,
    api_during: Spread,
    rss_kib: [u64; 2],
    memory_peak: Option<u64>,
    memory_limit: Option<u64>,
    pids: Option<u64>,
    end: String,
}

impl Hog {
    pub fn json(&self) -> Value {
        json!({
            "what": self.what,
            "echo_ms": { "before": self.echo_before.json(), "during": self.echo_during.json() },
            "api_ms": { "before": self.api_before.json(), "during": self.api_during.json() },
            "dispatcher_rss_kib": { "before": self.rss_kib[0], "after": self.rss_kib[1] },
            "memory_peak_bytes": self.memory_peak,
            "memory_limit_bytes": self.memory_limit,
            "pids": self.pids,
            "end": self.end,
        })
    }

    pub fn print(hogs: &[Hog]) {
        println!(
            "\n{:<10} {:>23} {:>23} {:>6} {:>15} {:>13} {:>5}  end",
            "hog",
            "echo before p50/p95/max",
            "during, ms",
            "p95 x",
            "API p95, ms",
            "memory, MiB",
            "pids"
        );
        let mib = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |b| (b >> 20).to_string());
        for hog in hogs {
            let three =
                |of: &Spread| format!("{:.1} / {:.1} / {:.1}", of.at(50), of.at(95), of.at(100));
            println!(
                "{:<10} {:>23} {:>23} {:>6.2} {:>15} {:>13} {:>5}  {}",
                hog.what,
                three(&hog.echo_before),
                three(&hog.echo_during),
                hog.echo_during.at(95) / hog.echo_before.at(95),
                format!("{:.1} -> {:.1}", hog.api_before.at(95), hog.api_during.at(95)),
                format!("{} / {}", mib(hog.memory_peak), mib(hog.memory_limit)),
                hog.pids.map_or("?".to_owned(), |pids| pids.to_string()),
                hog.end,
            );
        }
    }
}

/// Where all of it happens.
pub struct Ground<'a> {
    pub api: &'a Api,
    pub data_dir: &'a Path,
    pub dispatcher: u32,
}

impl Ground<'_> {
    /// Lets one hog after the other loose beside the same neighbour.
    pub fn hogs(&self, neighbour: &mut Call<'_>) -> anyhow::Result<(Vec<Hog>, Vec<Finding>)> {
        let (mut hogs, mut found) = (Vec::new(), Vec::new());
        let next_door = Machine::of(self.data_dir, &neighbour.view()?)?;
        let swapped = swapped_out();
        for (what, code) in HOGS {
            eprintln!("── a hog of {what}");
            let hog = self.hog(what, code, neighbour, &mut found)?;
            let alive = next_door.alive() && self.dispatcher_answers();
            let said = if alive { "alive" } else { "gone" };
            found.push(Finding::new("hogs", what, "neighbour and dispatcher", said, alive));
            hogs.push(hog);
        }
        let more = swapped_out().saturating_sub(swapped);
        let said = format!("{more} pages swapped out");
        found.push(Finding::new("hogs", "the host", "does not swap", said, more == 0));
        Ok((hogs, found))
    }

    fn hog(
        &self,
        what: &'static str,
        code: Option<&str>,
        neighbour: &mut Call<'_>,
        found: &mut Vec<Finding>,
    ) -> anyhow::Result<Hog> {
        // The console is its own bot's only for who is root.
        let mut call = self.api.call(if what == "console" { ROOT } else { QUIET })?;
        // Once it has answered it is as quiet as its neighbour.
        call.echo()?;
        let machine = Machine::of(self.data_dir, &call.view()?)?;
        let rss_before = self.rss_kib();
        let memory_limit = machine.cgroup_number(&["memory.max", "memory.limit_in_bytes"]);
        let before = self.listen(neighbour, &machine, BEFORE)?;
        call.say(&json!({ "do": "hog", "what": what }))?;
        let during = self.listen(neighbour, &machine, DURING)?;
        let session = match code {
            Some(_) => call.end(END_MS)?,
            None => call.hang_up()?,
        };
        let end = session["end_reason"]["code"].as_str().unwrap_or("no end").to_owned();
        let hog = Hog {
            what,
            echo_before: before.echo,
            echo_during: during.echo,
            api_before: before.api,
            api_during: during.api,
            rss_kib: [rss_before, self.rss_kib()],
            memory_peak: during.memory_peak,
            memory_limit,
            pids: during.pids,
            end,
        };
        found.extend(self.judge(&hog, code, &session, &machine)?);
        Ok(hog)
    }

    fn judge(
        &self,
        hog: &Hog,
        code: Option<&str>,
        session: &Value,
        machine: &Machine,
    ) -> anyhow::Result<Vec<Finding>> {
        let mut found = Vec::new();
        let mut note = |what: &str, said: String, ok: bool| {
            found.push(Finding::new("hogs", hog.what, what, said, ok));
        };
        let expected = code.unwrap_or("client-left");
        note(&format!("ends as {expected}"), hog.end.clone(), hog.end == expected);
        if let (Some(peak), Some(limit)) = (hog.memory_peak, hog.memory_limit) {
            note("within its memory", format!("{peak} of {limit}"), peak <= limit);
        }
        if let Some(pids) = hog.pids {
            note("within its processes", pids.to_string(), pids <= MAX_PIDS);
        }
        let [before, after] = hog.rss_kib;
        let rss = format!("{before} KiB, then {after} KiB");
        note("the dispatcher's memory", rss, after < before + RSS_MORE_KIB);
        let left = machine.cgroups();
        let gone = !machine.alive() && left.is_empty();
        note("its machine is gone", format!("{left:?}"), gone);
        let lost = format!("{} messages there and back", hog.echo_during.0.len());
        note("the neighbour lost nothing", lost, !hog.echo_during.0.is_empty());
        let id = session["id"].as_str().context("a session without an id")?;
        let log = log_bytes(&self.data_dir.join("logs"), id)?;
        note("its log is bounded", format!("{log} bytes"), log > 0 && log <= LOG_BYTES);
        Ok(found)
    }

    /// Talks to the neighbour and to the dispatcher for a while, with an eye on the hog's machine.
    fn listen(
        &self,
        neighbour: &mut Call<'_>,
        machine: &Machine,
        long: Duration,
    ) -> anyhow::Result<Heard> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let heard = scope.spawn(|| self.watch(machine, &over));
            let began = Instant::now();
            let mut echoes = || -> anyhow::Result<Vec<Duration>> {
                let mut times = Vec::new();
                while began.elapsed() < long {
                    let time = neighbour.echo()?;
                    times.push(time);
                    std::thread::sleep(EVERY.saturating_sub(time));
                }
                Ok(times)
            };
            let echoes = echoes();
            over.store(true, Ordering::Relaxed);
            let heard = heard.join().expect("it does not panic")?;
            Ok(Heard { echo: Spread::of(echoes?), ..heard })
        })
    }

    /// Asks the dispatcher whether it is there, until told otherwise. A hog may end before that,
    /// and its cgroup with it, so this is where its bounds are read.
    fn watch(&self, machine: &Machine, over: &AtomicBool) -> anyhow::Result<Heard> {
        let (mut heard, mut api) = (Heard::default(), Vec::new());
        while !over.load(Ordering::Relaxed) {
            api.push(self.api.healthz()?);
            let peak = machine.cgroup_number(&["memory.peak", "memory.max_usage_in_bytes"]);
            heard.memory_peak = heard.memory_peak.max(peak);
            heard.pids = heard.pids.max(machine.cgroup_number(&["pids.current"]));
            std::thread::sleep(EVERY * 2);
        }
        Ok(Heard { api: Spread::of(api), ..heard })
    }

    fn dispatcher_answers(&self) -> bool {
        self.api.healthz().is_ok()
    }

    fn rss_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.dispatcher);
        let text = field_of(path.as_ref(), "VmRSS");
        text.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }
}

/// Size of the log files of a session.
fn log_bytes(directory: &Path, id: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(id) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Pages that the host has ever written to its swap.
fn swapped_out() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("pswpout "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
