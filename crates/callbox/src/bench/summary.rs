//! One report, or several and how they compare.

use std::collections::BTreeMap;

use serde::Serialize;

use super::report::Report;
use crate::error::CliError;
use crate::output;

/// What one command measured.
#[derive(Serialize)]
pub struct Summary {
    benchmark: &'static str,
    pub reports: Vec<Report>,
    /// Medians of `ready`, divided.
    pub ratios: BTreeMap<String, f64>,
}

impl Summary {
    pub fn of(reports: Vec<Report>) -> Summary {
        let ratios = ratios(&reports);
        Summary { benchmark: "start", reports, ratios }
    }

    /// One report is printed as it always was.
    pub fn print_json(&self) -> Result<(), CliError> {
        match self.reports.as_slice() {
            [report] => output::json(report),
            _ => output::json(self),
        }
    }
}

fn ratios(reports: &[Report]) -> BTreeMap<String, f64> {
    let find = |from: &str, mode: &str| {
        reports.iter().find(|report| report.from == from && report.mode == mode)
    };
    let ready = |from: &str, mode: &str| find(from, mode)?.ready_p50();
    let mut ratios = BTreeMap::new();
    let mut add = |name: String, over: Option<f64>, under: Option<f64>| {
        if let (Some(over), Some(under)) = (over, under.filter(|under| *under > 0.0)) {
            ratios.insert(name, (over / under * 100.0).round() / 100.0);
        }
    };
    for (slow, quick) in [("cold", "clone"), ("clone", "reserve"), ("cold", "reserve")] {
        add(format!("{slow}_over_{quick}"), ready(slow, "seq"), ready(quick, "seq"));
    }
    for from in ["cold", "clone", "reserve"] {
        // In a burst, those that found the reserve empty belong to the picture.
        let burst = find(from, "burst").and_then(|report| report.any_ready_ms.as_ref());
        add(format!("{from}_burst_over_seq"), burst.map(|of| of.p50), ready(from, "seq"));
    }
    ratios
}
