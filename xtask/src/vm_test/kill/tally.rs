//! What is counted over all rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::super::scene::{caller::Outcome, host::Leak};

#[derive(Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    /// Deaths, by who died.
    pub deaths: BTreeMap<&'static str, u64>,
    /// Deaths of the dispatcher, by where the session stood that it was aimed at.
    pub phases: BTreeMap<&'static str, u64>,
    pub ended: BTreeMap<String, u64>,
    pub acknowledged: BTreeSet<String>,
    /// Start requests that were cut.
    pub cut_requests: u64,
    pub came_again: u64,
    /// The longest silence over each absence of the dispatcher, of each call that went on.
    pub across: Vec<Duration>,
    pub frames: u64,
    /// The most objects that were seen at once, by kind.
    pub most: BTreeMap<&'static str, usize>,
    /// From a dispatcher's start until it answered.
    pub serving: Vec<Duration>,
    /// From there until nothing was left that belonged to nobody.
    pub clean: Vec<Duration>,
    /// Kinds of things that were left on purpose at the end, and not noticed.
    pub overlooked: Vec<&'static str>,
    /// Everything from here on must be empty. A session, and what became of it.
    pub leaked: Vec<(String, Leak)>,
    pub doubled: Vec<(String, String)>,
    pub lost: BTreeSet<String>,
    pub cut: Vec<(String, String)>,
    /// Audio that came twice, late or not at all.
    pub damaged: Vec<(String, String)>,
    /// Sessions that came to another end than planned, or to none.
    pub failed: Vec<(String, String)>,
}

impl Tally {
    /// How a session went. Of victims, no good end is expected.
    pub fn note(&mut self, outcome: Outcome, victim: bool) {
        let id = outcome.id;
        self.acknowledged.insert(id.clone());
        *self.ended.entry(outcome.code.clone()).or_default() += 1;
        self.cut_requests += outcome.cut_requests;
        self.came_again += outcome.came_again;
        if outcome.unknown {
            self.lost.insert(id.clone());
        }
        if let Some(other) = outcome.other_session {
            self.doubled.push((id.clone(), format!("its repeated start gave {other}")));
        }
        let heard = outcome.heard;
        self.frames += heard.next;
        self.across.extend(&heard.across);
        let lost = heard.lost() + outcome.unanswered;
        let (duplicated, reordered, garbled) = (heard.duplicated, heard.reordered, heard.garbled);
        if duplicated + reordered + garbled > 0 || (lost > 0 && !victim) {
            let what = format!(
                "{lost} frames lost, {duplicated} duplicated, {reordered} reordered, {garbled} garbled"
            );
            self.damaged.push((id.clone(), what));
        }
        if victim || outcome.unknown {
            return;
        }
        if let Some(why) = outcome.broken {
            self.cut.push((id, why));
        } else if outcome.code != outcome.planned {
            let what =
                format!("it ended with {}, and should with {}", outcome.code, outcome.planned);
            self.failed.push((id, what));
        }
    }

    pub fn ok(&self) -> bool {
        let seen = |kind| self.most.get(kind).is_some_and(|most| *most > 0);
        // Without these, nothing was looked at. Cgroups and networks are not on every host.
        ["run-directory", "machine-process", "relay", "relay-file"].into_iter().all(seen)
            && self.overlooked.is_empty()
            && self.leaked.is_empty()
            && self.doubled.is_empty()
            && self.lost.is_empty()
            && self.cut.is_empty()
            && self.damaged.is_empty()
            && self.failed.is_empty()
    }
}
