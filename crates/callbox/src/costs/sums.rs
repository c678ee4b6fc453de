//! Adding up what sessions cost.

use std::collections::BTreeMap;

use callbox_protocol::api::Session;
use serde::Serialize;

/// What some sessions cost together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sum {
    /// How many there are.
    pub sessions: u64,
    /// Of them, those of which it is not known what they cost, or that cost nothing.
    pub without_price: u64,
    /// Hours that the machines of the others ran.
    pub machine_hours: f64,
    /// US dollars for them.
    pub machine_usd: f64,
    /// The oldest day that a price is of.
    pub prices_as_of: Option<String>,
}

impl Sum {
    fn add(&mut self, session: &Session) {
        self.sessions += 1;
        let Some(cost) = &session.cost else {
            self.without_price += 1;
            return;
        };
        self.machine_hours += cost.machine_ms / 3_600_000.0;
        self.machine_usd += cost.machine_usd;
        let day = &cost.prices_as_of;
        if self.prices_as_of.as_ref().is_none_or(|oldest| day < oldest) {
            self.prices_as_of = Some(day.clone());
        }
    }
}

/// Sums by a key, and the sum of all.
#[derive(Debug, Default)]
pub struct Costs {
    lines: BTreeMap<String, Sum>,
    total: Sum,
}

impl Costs {
    /// One more session.
    pub fn add(&mut self, key: String, session: &Session) {
        self.lines.entry(key).or_default().add(session);
        self.total.add(session);
    }

    /// The sums in the order of their keys, and of all.
    pub fn lines(self) -> (Vec<(String, Sum)>, Sum) {
        (self.lines.into_iter().collect(), self.total)
    }
}
