//! The result for people.

use std::fmt::Write as _;

use super::report::{Report, Round};
use crate::bench::distribution::Distribution;
use crate::terminal::{BAD, BOLD, DIM, Look, WARN, printable};

/// All rounds, and how they compare.
pub fn draw(report: &Report, look: Look) -> String {
    let dot = look.glyph("·", "|");
    let host = &report.host;
    let machine = format!(
        "{} {dot} {} cores (load {:.1} before) {dot} {} MiB {dot} Linux {} {dot} store {}",
        host.cpu, host.cores, report.load_average, host.memory_mib, host.kernel, report.store
    );
    let mut text = format!("\n  {}\n", look.paint(DIM, printable(&machine)));
    if !report.optimized {
        let _ = writeln!(text, "  {}", look.paint(WARN, "built without optimization"));
    }
    for round in &report.rounds {
        one(&mut text, round, report, look);
    }
    for (name, numbers) in &report.ratios {
        let numbers: Vec<String> = numbers
            .iter()
            .map(|(name, ratio)| format!("{} {ratio:.2}", name.replace('_', " ")))
            .collect();
        let _ = writeln!(text, "  {}: {}", name.replace('_', " "), numbers.join(", "));
    }
    text
}

fn one(text: &mut String, round: &Round, report: &Report, look: Look) {
    let _ = writeln!(text, "\n  {}", look.paint(BOLD, format!("{} live sessions", round.sessions)));
    let kib = |bytes: u64| format!("{} KiB", bytes / 1024);
    let memory = &round.memory;
    let _ = writeln!(
        text,
        "  memory per session  {}, of that a fake machine {}; {} more where its client is carried here ({} are)",
        look.paint(BOLD, kib(memory.bytes_per_session)),
        kib(report.fake_machine_bytes),
        kib(memory.bytes_per_call),
        memory.calls,
    );
    let mib = |bytes: u64| bytes / (1 << 20);
    let _ = writeln!(
        text,
        "  the whole process   {} MiB, {} MiB when empty; {} open files, {} threads",
        mib(memory.live.pss_bytes),
        mib(memory.empty.pss_bytes),
        memory.live.open_files,
        memory.live.threads,
    );
    let _ = writeln!(
        text,
        "  filled in           {:.1} s, {:.0} sessions a second",
        round.fill.seconds,
        f64::from(round.sessions) / round.fill.seconds
    );
    let _ = writeln!(text, "  idle                {:.1} % of a processor", round.idle.cpu_percent);
    if let Some(most) = &round.most {
        let _ = writeln!(text, "  at most             {:.0} starts and ends a second", most.per_s);
    }
    let steady = &round.steady;
    let _ = writeln!(
        text,
        "  steady              {} starts and ends a second for {:.0} s{}",
        look.paint(BOLD, format!("{:.0}", steady.per_s)),
        steady.seconds,
        if round.held { "" } else { " (not held)" }
    );
    let cost = &round.cost;
    let _ = writeln!(
        text,
        "  for 1000 of them    {:.2} s of a processor (the client: {:.2} s), {} in the store, {} of logs\n",
        cost.cpu_s_per_1000,
        cost.client_cpu_s_per_1000,
        kib(cost.store_bytes_per_1000),
        kib(cost.log_bytes_per_1000),
    );
    let header = format!("{:<18}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p95", "p99", "max");
    let _ = writeln!(text, "  {}", look.paint(DIM, header));
    let rows: [(&str, &Option<Distribution>); 4] = [
        ("start answered", &steady.start_ms),
        ("ready", &steady.ready_ms),
        ("end answered", &steady.end_ms),
        ("ended", &steady.ended_ms),
    ];
    for (name, of) in rows {
        if let Some(of) = of {
            let Distribution { p50, p95, p99, max, .. } = of;
            let _ = writeln!(text, "  {name:<18}{p50:>10.1}{p95:>10.1}{p99:>10.1}{max:>10.1}");
        }
    }
    text.push('\n');
    for (reason, count) in round.failures.iter().chain(&steady.failures) {
        let times = look.paint(BAD, format!("{count} failed"));
        let _ = writeln!(text, "  {times}  {}", printable(reason));
    }
}
