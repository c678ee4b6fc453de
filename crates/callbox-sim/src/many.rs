//! Many seeds, each in a process of its own, as many at once as there are processors.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{Args, planted, run::Found};

/// What all seeds together did.
#[derive(Default)]
struct Sum {
    seeds: u64,
    simulated_s: f64,
    lines: u64,
    counts: BTreeMap<String, u64>,
    /// Seeds that found something, with what they said.
    failed: BTreeMap<u64, Value>,
}

impl Sum {
    fn add(&mut self, found: &Value) -> anyhow::Result<()> {
        self.seeds += 1;
        self.simulated_s += found["simulated_s"].as_f64().unwrap_or_default();
        self.lines += found["lines"].as_u64().unwrap_or_default();
        for (what, count) in found["counts"].as_object().context("a child says what it did")? {
            *self.counts.entry(what.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
        if found_something(found) {
            let seed = found["seed"].as_u64().context("a child knows its seed")?;
            self.failed.insert(seed, found.clone());
        }
        Ok(())
    }
}

/// Whether a seed's answer has a violation, or is none.
fn found_something(answer: &Value) -> bool {
    answer["violations"].as_array().is_none_or(|violations| !violations.is_empty())
}

/// Runs one seed in a process of its own.
fn child(seed: u64, fault: Option<&str>) -> anyhow::Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", "--seed", &seed.to_string()]);
    command.args(fault.iter().flat_map(|fault| ["--plant", fault]));
    // Nothing of ours may decide what happens there.
    command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped());
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("seed {seed} ended with {} and no answer: {said}", output.status)
    })
}

/// Runs these seeds until one finds something (`first`), or all. Of a planted fault only those
/// count as first that find nothing without it: another trouble is no proof that it is noticed.
fn run(seeds: std::ops::Range<u64>, fault: Option<&str>, first: bool) -> anyhow::Result<Sum> {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    let at_once = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || -> anyhow::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let ended = |_: &anyhow::Error| stop.store(true, Ordering::Relaxed);
            let found = child(seed, fault).inspect_err(ended)?;
            if first
                && fault.is_some()
                && found_something(&found)
                && found_something(&child(seed, None).inspect_err(ended)?)
            {
                continue;
            }
            let mut sum = sum.lock().expect("no panic while held");
            sum.add(&found)?;
            if first && !sum.failed.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread panicked"),
        })
    })?;
    Ok(sum.into_inner().expect("no panic while held"))
}

/// Prints what one seed found.
pub fn print_one(seed: u64, found: &Found) {
    println!("seed {seed}: {}", found.weather);
    for (what, count) in &found.counts {
        println!("{count:>8} {what}");
    }
    for line in &found.tail {
        println!("  {line}");
    }
    for violation in &found.violations {
        println!("VIOLATION {}: {}", violation.what, violation.detail);
    }
    let (lines, hash) = (found.lines, found.hash);
    println!("{:.0} s of its time, {lines} lines, hash {hash:016x}", found.simulated_s);
}

/// Many seeds; tells whether nothing was found, and everything was tried.
pub fn seeds(args: &Args) -> anyhow::Result<bool> {
    let began = Instant::now();
    let range = args.from..args.from + args.seeds;
    let sum = run(range, args.plant.as_deref(), false)?;
    let took = began.elapsed().as_secs_f64();
    let never: Vec<&str> = if args.plant.is_some() {
        Vec::new()
    } else {
        EXPECTED.iter().copied().filter(|what| !happened(&sum.counts, what)).collect()
    };
    if args.json {
        let failed: Vec<&Value> = sum.failed.values().collect();
        let text = json!({
            "seeds": sum.seeds, "took_s": took, "simulated_s": sum.simulated_s,
            "lines": sum.lines, "counts": sum.counts, "failed": failed, "never": never,
        });
        println!("{text}");
    } else {
        for (what, count) in &sum.counts {
            println!("{count:>10} {what}");
        }
        for (seed, found) in sum.failed.iter().take(10) {
            print_failure(*seed, found);
        }
        for what in &never {
            println!("nothing exercised: {what}");
        }
        let hours = sum.simulated_s / 3600.0;
        println!(
            "{} seeds in {took:.0} s, {hours:.1} h of their time, {} lines; {} found something",
            sum.seeds,
            sum.lines,
            sum.failed.len()
        );
    }
    Ok(sum.failed.is_empty() && never.is_empty())
}

fn print_failure(seed: u64, found: &Value) {
    println!("seed {seed} ({})", found["weather"].as_str().unwrap_or_default());
    for line in found["tail"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        println!("  {line}");
    }
    for violation in found["violations"].as_array().into_iter().flatten() {
        let text = |key: &str| violation[key].as_str().unwrap_or_default().to_owned();
        println!("VIOLATION in seed {seed}: {}: {}", text("what"), text("detail"));
    }
}

/// Whether something of this kind happened; one that ends with `.` is a family.
fn happened(counts: &BTreeMap<String, u64>, what: &str) -> bool {
    counts.iter().any(|(name, count)| {
        *count > 0 && (name == what || what.ends_with('.') && name.starts_with(what))
    })
}

/// Plants every fault in turn; tells whether each was noticed.
pub fn planted(args: &Args) -> anyhow::Result<bool> {
    let mut all = Vec::new();
    for (fault, what) in planted::all() {
        let sum = run(args.from..args.from + args.seeds, Some(fault), true)?;
        let caught = sum.failed.iter().next().map(|(seed, found)| {
            let first = found["violations"][0]["what"].as_str().unwrap_or_default().to_owned();
            (*seed, first, seed + 1 - args.from)
        });
        if !args.json {
            match &caught {
                Some((seed, first, after)) => {
                    println!("| `{fault}` | {what} | {first} | {seed} | {after} |");
                }
                None => println!("| `{fault}` | {what} | **nothing** in {} seeds | | |", sum.seeds),
            }
        }
        all.push(json!({ "fault": fault, "what": what, "caught": caught }));
    }
    let passed = all.iter().all(|fault| !fault["caught"].is_null());
    if args.json {
        println!("{}", json!(all));
    }
    Ok(passed)
}

/// What must have happened at least once over all seeds, else the run has shown nothing of it.
const EXPECTED: &[&str] = &[
    "accepted",
    "acknowledged",
    "client.start-again",
    "client.two-at-once",
    "client.hung-up",
    "client.lost-its-dispatcher",
    "client.key-reused.409",
    "conflict",
    "taken-over",
    "machine.adopted",
    "machine.died",
    "machine.silent",
    "machine.ended-itself",
    "machine.came-late",
    "machine.destroyed-later",
    "room.adopted",
    "room.lost",
    "queue.full",
    "provider.away",
    "fault.no-answer.",
    "fault.no-answer-to-what-happened.destroy",
    "store.away",
    "store.cut-off",
    "deploy.end",
    "deploy.leave",
    "deploy.done",
    "end.alone",
    "end.bot-failed",
    "end.bot-finished",
    "end.bot-not-ready",
    "end.bot-out-of-memory",
    "end.dispatcher-shutdown",
    "end.join-timeout",
    "end.machine-lost",
    "end.max-duration",
    "end.queue-timeout",
    "end.ready-timeout",
    "end.room-failed",
    "end.start-failed",
    "end.start-timeout",
    "end.stopped",
    "crash.before.",
    "crash.after.",
    "fault.unavailable.",
    "fault.refused.",
    "fault.refused-a-lie.",
    "fault.lost-answer.",
    "fault.lost-request.",
    "fault.store-away.",
    "fault.store-refuses.",
    "fault.store-lost-answer.",
];
