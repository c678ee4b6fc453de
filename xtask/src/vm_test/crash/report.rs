//! What was seen, as a table and as JSON.

use serde_json::{Value, json};

use super::sweep::Crash;

/// All deaths on one store.
pub struct Report {
    pub store: &'static str,
    pub crashes: Vec<Crash>,
}

impl Report {
    /// Somebody must have died, or nothing was tried.
    pub fn ok(&self) -> bool {
        !self.crashes.is_empty() && self.crashes.iter().all(Crash::ok)
    }

    pub fn print(&self) {
        println!("store {}: died after", self.store);
        for crash in &self.crashes {
            let Crash { after, call, code, cut_requests, came_again, took, .. } = crash;
            let verdict = if crash.ok() { "ok" } else { "BROKEN" };
            println!(
                "  {after:>3}  {call:<18} {code:<14} cut requests {cut_requests}, came again \
                 {came_again}, {:.1} s  {verdict}",
                took.as_secs_f64()
            );
            let leaks =
                crash.leaked.iter().map(|leak| format!("left: {} {}", leak.kind, leak.name));
            let doubled = crash.doubled.iter().map(|what| format!("doubled: {what}"));
            let others = [("lost", &crash.lost), ("cut", &crash.broken)];
            let others =
                others.into_iter().filter_map(|(w, why)| Some(format!("{w}: {}", why.as_ref()?)));
            leaks.chain(doubled).chain(others).for_each(|line| println!("       {line}"));
        }
        let [leaked, doubled, lost, cut] = self.figures();
        println!(
            "  {} deaths: leaked {leaked}, doubled {doubled}, lost {lost}, calls cut {cut}",
            self.crashes.len()
        );
    }

    fn figures(&self) -> [usize; 4] {
        let all = &self.crashes;
        [
            all.iter().map(|crash| crash.leaked.len()).sum(),
            all.iter().map(|crash| crash.doubled.len()).sum(),
            all.iter().filter(|crash| crash.lost.is_some()).count(),
            all.iter().filter(|crash| crash.broken.is_some()).count(),
        ]
    }

    pub fn json(&self) -> Value {
        let [leaked, doubled, lost, cut] = self.figures();
        let crashes: Vec<Value> = self
            .crashes
            .iter()
            .map(|crash| {
                json!({
                    "after": crash.after, "call": crash.call, "code": crash.code,
                    "cut_requests": crash.cut_requests, "came_again": crash.came_again,
                    "took_s": crash.took.as_secs_f64(), "ok": crash.ok(),
                })
            })
            .collect();
        json!({
            "store": self.store, "deaths": self.crashes.len(), "leaked": leaked,
            "doubled": doubled, "lost": lost, "calls_cut": cut, "crashes": crashes,
        })
    }
}
