//! A benchmark's result for people.

use std::fmt::Write as _;

use super::distribution::Distribution;
use super::report::Report;
use super::summary::Summary;
use crate::ps::mebibytes;
use crate::terminal::{BAD, BOLD, DIM, Look, WARN, printable};
use crate::waterfall::span;

/// All reports, and how they compare.
pub fn draw(summary: &Summary, look: Look) -> String {
    let mut text: String = summary.reports.iter().map(|report| one(report, look)).collect();
    for (name, ratio) in &summary.ratios {
        let _ = writeln!(text, "  {:<28}{ratio:>8.2}", name.replace('_', " "));
    }
    if !summary.ratios.is_empty() {
        text.push('\n');
    }
    text
}

fn one(report: &Report, look: Look) -> String {
    let dot = look.glyph("·", "|");
    let good = report.good();
    let mut text = format!(
        "\n  {} {dot} {} {dot} {good} of {} good {dot} {}\n",
        look.paint(BOLD, format!("start from {}", report.from)),
        report.mode,
        report.runs,
        span(report.wall_ms),
    );
    let machine = format!(
        "{} {dot} {} cores {dot} {} MiB {dot} Linux {} {dot} {} {}",
        report.host.cpu,
        report.host.cores,
        report.host.memory_mib,
        report.host.kernel,
        report.providers.join("+"),
        report.accelerators.join("+"),
    );
    let _ = writeln!(text, "  {}\n", look.paint(DIM, printable(machine.trim_end())));
    if good > 0 {
        numbers(&mut text, report, look);
    }
    outcomes(&mut text, report, look);
    for (reason, count) in &report.failures {
        let times = look.paint(BAD, format!("{count} failed"));
        let _ = writeln!(text, "  {times}  {}", printable(reason));
    }
    if !report.failures.is_empty() {
        text.push('\n');
    }
    text
}

fn numbers(text: &mut String, report: &Report, look: Look) {
    let header =
        format!("{:<18}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p95", "p99", "min", "max");
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
    for (name, of) in &report.stages_ms.0 {
        // All zeros: nobody had to wait.
        if name == "admitted" && of.max < 1.0 {
            continue;
        }
        line(name, of, true);
        if name == "started" {
            for (part, of) in &report.start_stages_ms.0 {
                line(&format!("  {part}"), of, false);
            }
            if let Some(of) = &report.overhead_ms {
                line("  overhead", of, false);
            }
        }
    }
    for (name, of) in &report.client_ms.0 {
        line(&format!("you: {}", name.replace('_', " ")), of, false);
    }
    text.push('\n');
    memory(text, report, look);
}

fn memory(text: &mut String, report: &Report, look: Look) {
    if report.unique_bytes.0.is_empty() {
        return;
    }
    let header =
        format!("{:<18}{:>12}{:>12}{:>12}{:>12}", "unique memory", "p50", "p95", "min", "max");
    let _ = writeln!(text, "  {}", look.paint(DIM, header));
    for (name, of) in &report.unique_bytes.0 {
        let [p50, p95, min, max] = [of.p50, of.p95, of.min, of.max].map(|bytes| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts of bytes
            mebibytes(bytes as u64)
        });
        let _ = writeln!(text, "  {name:<18}{p50:>12}{p95:>12}{min:>12}{max:>12}");
    }
    text.push('\n');
}

fn outcomes(text: &mut String, report: &Report, look: Look) {
    let of = &report.outcomes;
    let waited = of.queued + of.refused > 0;
    if waited || report.mode == "burst" {
        let position = of.highest_position.map(|at| format!(" (highest position {at})"));
        let retry = of.retry_after_s.as_ref();
        let retry = retry.map(|of| format!(" (Retry-After {} to {} s)", of.min, of.max));
        let _ = writeln!(
            text,
            "  {} admitted at once, {} queued{}, {} refused{}, {} failed\n",
            of.admitted,
            of.queued,
            position.unwrap_or_default(),
            of.refused,
            retry.unwrap_or_default(),
            of.failed
        );
    }
    for (start, count) in &report.otherwise {
        let what = format!("{count} started from {}, not counted above", printable(start));
        let _ = writeln!(text, "  {}", look.paint(WARN, what));
    }
    if let Some(idle) = &report.idle {
        let ms = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), span);
        let (first, median) = (ms(idle.ready_ms), ms(idle.median_ready_ms));
        let _ = writeln!(
            text,
            "  first use after {} s of idling: ready in {first} (median before: {median})\n",
            idle.seconds
        );
    }
}
