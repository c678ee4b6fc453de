//! What was seen, for people and for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::hogs::Hog;

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What kind of promise it is about.
    pub part: &'static str,
    /// What is tried, as a group.
    pub class: String,
    pub what: String,
    /// What became of it.
    pub said: String,
    pub ok: bool,
}

impl Finding {
    pub fn new(
        part: &'static str,
        class: impl Into<String>,
        what: impl Into<String>,
        said: impl Into<String>,
        ok: bool,
    ) -> Finding {
        Finding { part, class: class.into(), what: what.into(), said: said.into(), ok }
    }

    fn json(&self) -> Value {
        let Finding { part, class, what, said, ok } = self;
        json!({ "part": part, "class": class, "what": what, "said": said, "ok": ok })
    }
}

/// All that was seen.
#[derive(Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub hogs: Vec<Hog>,
    /// What this host could not do, and why.
    pub not_tried: Vec<String>,
    /// What callbox itself says that it does not enforce here.
    pub not_enforced: Vec<String>,
    /// What the bots may do to their own machines, by who they are there. For the record.
    pub rights: BTreeMap<String, Value>,
    pub prepared_s: f64,
    pub took_s: f64,
}

impl Report {
    pub fn ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.ok)
    }

    pub fn json(&self) -> Value {
        json!({
            "test": "sealed",
            "ok": self.ok(),
            "tried": self.findings.len(),
            "failed": self.failed().map(Finding::json).collect::<Vec<_>>(),
            "not_tried": self.not_tried,
            "not_enforced": self.not_enforced,
            "hogs": self.hogs.iter().map(Hog::json).collect::<Vec<_>>(),
            "rights": self.rights,
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "prepared_s": self.prepared_s,
            "took_s": self.took_s,
        })
    }

    fn failed(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.ok)
    }

    pub fn print(&self) {
        println!("{:<9} {:<46} {:>5} {:>6}", "part", "what", "tried", "failed");
        let mut groups: Vec<(&str, &str, usize, usize)> = Vec::new();
        for Finding { part, class, ok, .. } in &self.findings {
            let known = groups.iter_mut().find(|group| (group.0, group.1) == (*part, class));
            match known {
                Some(group) => {
                    group.2 += 1;
                    group.3 += usize::from(!ok);
                }
                None => groups.push((part, class, 1, usize::from(!ok))),
            }
        }
        for (part, class, tried, failed) in groups {
            let word = if failed == 0 { "ok" } else { "FAIL" };
            println!("{part:<9} {class:<46} {tried:>5} {failed:>6}  {word}");
        }
        for Finding { part, class, what, said, .. } in self.failed() {
            println!("FAIL: {part}, {class}: {what}: {said}");
        }
        Hog::print(&self.hogs);
        for missing in &self.not_enforced {
            println!("not enforced here: {missing}");
        }
        for why in &self.not_tried {
            println!("\n*** NOT TRIED: {why} ***");
        }
        println!(
            "\n{}: {} things tried in {:.1} s, of which {:.1} s until the templates were there",
            if self.ok() { "sealed" } else { "NOT AS PROMISED" },
            self.findings.len(),
            self.took_s,
            self.prepared_s,
        );
    }
}
