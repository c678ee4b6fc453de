//! A burst for people.

use std::fmt::Write as _;

use super::report::{Report, Scene};
use crate::bench::distribution::Distribution;
use crate::terminal::{BAD, BOLD, DIM, Look, printable};

/// Scene by scene.
pub fn draw(report: &Report, look: Look) -> String {
    let host = &report.host;
    let on = format!("{}, {} cores, Linux {}", host.cpu, host.cores, host.kernel);
    let mut text = format!(
        "\n  {}  {} starts at once at a stand-in for Fly, with its documented limits\n  {}\n",
        look.paint(BOLD, "burst"),
        report.starts,
        look.paint(DIM, printable(&on)),
    );
    report.scenes.iter().for_each(|scene| one(&mut text, scene, look));
    text.push('\n');
    text
}

fn one(text: &mut String, scene: &Scene, look: Look) {
    let _ = writeln!(
        text,
        "\n  {}  {} ready, {} refused in {:.1} s (room for {} machines)",
        look.paint(BOLD, &scene.name),
        scene.ready,
        scene.refused,
        scene.seconds,
        scene.machine_cap,
    );
    let head = format!("{:<22}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p95", "p99", "max");
    let _ = writeln!(text, "  {}", look.paint(DIM, head));
    for (name, of) in [
        ("answer", &scene.answer_ms),
        ("ready", &scene.ready_ms),
        ("ready, from its turn", &scene.start_ms),
    ] {
        if let Some(Distribution { p50, p95, p99, max, .. }) = of {
            let _ = writeln!(text, "  {name:<22}{p50:>10.0}{p95:>10.0}{p99:>10.0}{max:>10.0}");
        }
    }
    let from = scene.from.iter().map(|(from, count)| format!("{count} {from}"));
    let _ = writeln!(text, "  from    {}", from.collect::<Vec<_>>().join(", "));
    let calls = scene.calls.actions.iter().map(|(action, of)| format!("{action} {}", of.calls));
    let _ = writeln!(text, "  calls   {}", calls.collect::<Vec<_>>().join(", "));
    let (often, twice, left) = (scene.too_often(), scene.bought_twice, scene.left);
    let _ =
        writeln!(text, "  refused by Fly as too often {often}, bought twice {twice}, left {left}");
    for (why, count) in &scene.failed {
        let times = look.paint(BAD, format!("{count} failed"));
        let _ = writeln!(text, "  {times}  {}", printable(why));
    }
}
