//! What was seen, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    client::Seen,
    clock::{Clocks, TARGET_MS},
    compare::{REPEATS_UNLESS_RESEEDED, Verdict, compare, one_template},
};

/// All that was seen.
pub struct Report<'a> {
    pub bot: &'a str,
    pub clones: &'a [Seen],
    /// Clones whose process was not reseeded.
    pub control: Option<&'a [Seen]>,
    /// Until the dispatcher had its templates.
    pub prepared: Duration,
    pub took: Duration,
}

impl Report<'_> {
    pub fn ok(&self) -> bool {
        one_template(&templates(self.clones))
            && verdicts(self.clones).iter().all(Verdict::ok)
            && (self.control.is_none() || self.reserved() > 0)
            && self.control_misses().is_none_or(|misses| misses.is_empty())
    }

    /// What should have repeated itself in the control, and did not.
    fn control_misses(&self) -> Option<Vec<&'static str>> {
        let verdicts = verdicts(self.control?);
        let silent = verdicts.iter().filter(|verdict| {
            REPEATS_UNLESS_RESEEDED.contains(&verdict.name) && verdict.repeated == 0
        });
        Some(silent.map(|verdict| verdict.name).collect())
    }

    /// How many of them had waited in a reserve.
    fn reserved(&self) -> usize {
        self.clones.iter().filter(|clone| clone.start == "reserve").count()
    }

    fn answered_ms(&self) -> Vec<u128> {
        let mut answered: Vec<_> = self.clones.iter().map(|c| c.answered.as_millis()).collect();
        answered.sort_unstable();
        answered
    }

    fn clocks(&self) -> Clocks {
        Clocks(self.clones.iter().map(|clone| clone.clock).collect())
    }

    pub fn json(&self) -> Value {
        let answered = self.answered_ms();
        json!({
            "test": "clones",
            "ok": self.ok(),
            "bot": self.bot,
            "clones": self.clones.len(),
            "of_them_from_a_reserve": self.reserved(),
            "one_template": one_template(&templates(self.clones)),
            "values": verdicts(self.clones).iter().map(Verdict::json).collect::<Vec<_>>(),
            "clock": self.clocks().json(),
            "control": self.control.map(|control| json!({
                "what": "clones of which only the kernel was reseeded: these must repeat themselves",
                "clones": control.len(),
                "repeated": repeated(control),
                "missed": self.control_misses(),
            })),
            "first_answer_ms": { "p50": answered[(answered.len() - 1) / 2], "max": answered.last() },
            "prepared_s": self.prepared.as_secs_f64(),
            "took_s": self.took.as_secs_f64(),
        })
    }

    pub fn print(&self) {
        let (clones, reserve) = (self.clones.len(), self.reserved());
        println!(
            "{clones} clones of one template of {}, {reserve} of them from a reserve\n",
            self.bot
        );
        println!(
            "{:<17} {:>6} {:>9} {:>8}      what it shows",
            "value", "drawn", "repeated", "missing"
        );
        for verdict in verdicts(self.clones) {
            let Verdict { name, shows, values, repeated, missing } = verdict;
            let word = if verdict.ok() { "ok  " } else { "FAIL" };
            println!("{name:<17} {values:>6} {repeated:>9} {missing:>8} {word} {shows}");
        }
        if !one_template(&templates(self.clones)) {
            println!("FAIL: the clones are not of one template");
        }
        self.print_clock();
        if let (Some(control), Some(misses)) = (self.control, self.control_misses()) {
            println!(
                "control: {} clones whose process was not reseeded repeat {}",
                control.len(),
                repeated(control).join(", ")
            );
            if !misses.is_empty() {
                println!("FAIL: the control does not repeat {}", misses.join(", "));
            }
        }
        println!(
            "\n{}: {:.1} s, of which {:.1} s until the templates were there",
            if self.ok() { "nothing twice" } else { "NOT AS PROMISED" },
            self.took.as_secs_f64(),
            self.prepared.as_secs_f64(),
        );
    }

    fn print_clock(&self) {
        let clock = self.clocks().json();
        let spread = |of: &Value| {
            let at = |key: &str| of[key].as_f64().unwrap_or(f64::NAN);
            format!("p50 {:.1}, p95 {:.1}, max {:.1} ms", at("p50"), at("p95"), at("max"))
        };
        println!(
            "\nclock error: {} (with half the way to the machine and back: {})",
            spread(&clock["error_ms"]),
            spread(&clock["error_with_doubt_ms"]),
        );
        println!(
            "   {} of {} are within {TARGET_MS} ms even so",
            clock["within_target"], clock["clones"]
        );
        let answered = self.answered_ms();
        println!(
            "first answer after the request: p50 {} ms, max {} ms",
            answered[(answered.len() - 1) / 2],
            answered[answered.len() - 1]
        );
    }
}

fn templates(clones: &[Seen]) -> Vec<&Value> {
    clones.iter().map(|clone| &clone.template).collect()
}

fn verdicts(clones: &[Seen]) -> Vec<Verdict> {
    let drawn: Vec<_> = clones.iter().map(|clone| &clone.drawn).collect();
    let template = clones.first().map_or(&Value::Null, |clone| &clone.template);
    compare(&drawn, template)
}

fn repeated(clones: &[Seen]) -> Vec<&'static str> {
    let verdicts = verdicts(clones);
    verdicts.iter().filter(|verdict| verdict.repeated > 0).map(|verdict| verdict.name).collect()
}
