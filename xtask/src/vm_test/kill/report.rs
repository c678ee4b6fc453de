//! What was seen, for people and for programs.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::{super::scene::host::Leak, tally::Tally};

/// All that was seen.
pub struct Report<'a> {
    pub seed: u64,
    pub tally: &'a Tally,
    pub took: Duration,
    /// Where the dispatchers' log and the sessions' logs are, if something is wrong.
    pub kept: &'a Path,
}

impl Report<'_> {
    pub fn ok(&self) -> bool {
        self.tally.ok()
    }

    fn offences(&self) -> Vec<Value> {
        let tally = self.tally;
        let of = |kind: &'static str| move |(session, what): &(String, String)| json!({ "kind": kind, "session": session, "what": what });
        let leak = |(when, Leak { kind, name }): &(String, Leak)| json!({ "kind": "leaked", "object": kind, "what": name, "when": when });
        let unknown = "it was acknowledged, and nobody knows it";
        let lost = tally.lost.iter().map(|id| (id.clone(), unknown.to_owned()));
        let leaked = tally.leaked.iter().map(leak);
        leaked
            .chain(tally.doubled.iter().map(of("doubled")))
            .chain(lost.map(|one| of("lost")(&one)))
            .chain(tally.cut.iter().map(of("cut")))
            .chain(tally.damaged.iter().map(of("damaged")))
            .chain(tally.failed.iter().map(of("failed")))
            .collect()
    }

    pub fn json(&self) -> Value {
        let tally = self.tally;
        json!({
            "test": "kill",
            "ok": self.ok(),
            "seed": self.seed,
            "rounds": tally.rounds,
            "deaths": tally.deaths,
            "dispatcher_killed_while": tally.phases,
            "sessions": {
                "acknowledged": tally.acknowledged.len(),
                "start_requests_cut_and_repeated": tally.cut_requests,
                "clients_that_came_again": tally.came_again,
                "went_on_across_a_death": tally.across.len(),
                "ended": tally.ended,
            },
            "audio": {
                "frames": tally.frames,
                "longest_gap_across_a_death_ms": spread(&tally.across),
            },
            "restart": {
                "until_it_serves_ms": spread(&tally.serving),
                "until_nothing_is_left_ms": spread(&tally.clean),
            },
            "most_at_once": tally.most,
            "overlooked_of_what_was_left_on_purpose": tally.overlooked,
            "leaked": tally.leaked.len(),
            "doubled": tally.doubled.len(),
            "lost": tally.lost.len(),
            "calls_cut": tally.cut.len(),
            "calls_with_damaged_audio": tally.damaged.len(),
            "sessions_failed": tally.failed.len(),
            "offences": self.offences(),
            "kept": (!self.ok()).then(|| self.kept.display().to_string()),
            "took_s": (self.took.as_secs_f64() * 10.0).round() / 10.0,
        })
    }

    pub fn print(&self) {
        let tally = self.tally;
        let row = |name: &str, value: String| println!("{name:<44} {value}");
        let counts = |counts: &std::collections::BTreeMap<&'static str, u64>| {
            counts.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
        };
        row("rounds", format!("{} (seed {})", tally.rounds, self.seed));
        row("deaths", counts(&tally.deaths));
        row("dispatcher killed while", counts(&tally.phases));
        row("sessions acknowledged", tally.acknowledged.len().to_string());
        row("  start requests cut, and repeated", tally.cut_requests.to_string());
        row("  clients that came again", tally.came_again.to_string());
        for (code, n) in &tally.ended {
            row(&format!("  ended: {code}"), n.to_string());
        }
        row("calls that went on across a death", tally.across.len().to_string());
        row("  longest gap in audio, ms", line(&tally.across));
        row("restart until it serves, ms", line(&tally.serving));
        row("restart until nothing is left, ms", line(&tally.clean));
        row("frames of audio", tally.frames.to_string());
        let most: Vec<_> = tally.most.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        row("most at once", most.join(", "));
        let overlooked = match tally.overlooked.as_slice() {
            [] => "all of it".to_owned(),
            kinds => format!("not {}", kinds.join(", ")),
        };
        row("noticed of what was left on purpose", overlooked);
        let must_be_0 = [
            ("leaked", tally.leaked.len()),
            ("doubled", tally.doubled.len()),
            ("lost", tally.lost.len()),
            ("calls cut", tally.cut.len()),
            ("calls with damaged audio", tally.damaged.len()),
            ("sessions failed", tally.failed.len()),
        ];
        for (name, n) in must_be_0 {
            row(name, format!("{n}{}", if n == 0 { "" } else { "  must be 0" }));
        }
        for offence in self.offences() {
            println!("{offence}");
        }
        if !self.ok() {
            println!("kept: {}", self.kept.display());
        }
        println!("{} in {:.1} s", if self.ok() { "ok" } else { "NOT OK" }, self.took.as_secs_f64());
    }
}

fn percentiles(of: &[Duration]) -> Option<[f64; 4]> {
    let mut sorted: Vec<f64> = of.iter().map(|one| one.as_secs_f64() * 1e3).collect();
    sorted.sort_by(f64::total_cmp);
    // Nearest rank: every number printed was measured.
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map(|ms| (ms * 10.0).round() / 10.0)
    };
    Some([at(0)?, at(50)?, at(95)?, at(100)?])
}

fn spread(of: &[Duration]) -> Value {
    percentiles(of).map_or(Value::Null, |[min, p50, p95, max]| {
        json!({ "n": of.len(), "min": min, "p50": p50, "p95": p95, "max": max })
    })
}

fn line(of: &[Duration]) -> String {
    percentiles(of).map_or("-".to_owned(), |[min, p50, p95, max]| {
        format!("min {min}, p50 {p50}, p95 {p95}, max {max}")
    })
}
