//! What machines at Fly cost, by list prices (fly.md section 8).
//!
//! Started machines are billed by the second for their processors and memory, stopped and suspended
//! ones for their root file system. Traffic, taxes, discounts and reserved blocks are left out.

use std::collections::BTreeMap;

use crate::wire::{CpuKind, Guest};

/// A month of 30 days, as the prices are for.
const MONTH_S: f64 = 30.0 * 24.0 * 3600.0;

/// Prices in US dollars for a month of 30 days.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// The day that they are of.
    pub as_of: String,
    /// A shared processor.
    pub shared_cpu: f64,
    /// A processor of one's own.
    pub performance_cpu: f64,
    /// A GiB of memory.
    pub memory_gb: f64,
    /// A GB of the root file system of a machine that is stopped or suspended.
    pub rootfs_gb: f64,
    /// What a region's machines cost, as a multiple.
    pub regions: BTreeMap<String, f64>,
}

impl Prices {
    /// Billionths of a US dollar for a second of a started machine. In a region that is not in the
    /// list it costs as in the dearest: rather too much than too little.
    pub fn started(&self, guest: &Guest, region: Option<&str>) -> u64 {
        let cpu = match guest.cpu_kind {
            Some(CpuKind::Performance) => self.performance_cpu,
            _ => self.shared_cpu,
        };
        let cpus = f64::from(guest.cpus.unwrap_or(1));
        let memory = f64::from(guest.memory_mb.unwrap_or(256)) / 1024.0;
        nanos_per_s((cpu * cpus + self.memory_gb * memory) * self.factor(region))
    }

    /// Billionths of a US dollar for a second of a machine that is stopped or suspended.
    pub fn parked(&self, rootfs_gb: f64) -> u64 {
        nanos_per_s(self.rootfs_gb * rootfs_gb)
    }

    fn factor(&self, region: Option<&str>) -> f64 {
        let known = region.and_then(|region| self.regions.get(region).copied());
        known.unwrap_or_else(|| self.regions.values().copied().fold(1.0, f64::max))
    }
}

fn nanos_per_s(a_month: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rounded, and a price
    let nanos = (a_month / MONTH_S * 1e9).round() as u64;
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        Prices {
            as_of: "2026-06-07".into(),
            shared_cpu: 0.695,
            performance_cpu: 21.0,
            memory_gb: 5.0,
            rootfs_gb: 0.15,
            regions: [("iad", 1.0), ("ams", 1.038), ("gru", 1.62)]
                .map(|(region, factor)| (region.to_owned(), factor))
                .into(),
        }
    }

    fn guest(cpu_kind: CpuKind, cpus: u32, memory_mb: u32) -> Guest {
        Guest {
            cpu_kind: Some(cpu_kind),
            cpus: Some(cpus),
            memory_mb: Some(memory_mb),
            ..Guest::default()
        }
    }

    #[test]
    fn the_table_of_the_fact_sheet() {
        use CpuKind::{Performance, Shared};
        for (kind, cpus, memory, expected) in [
            (Shared, 1, 256, 750),
            (Shared, 1, 1024, 2_197),
            (Shared, 1, 2048, 4_126),
            (Shared, 2, 2048, 4_394),
            (Performance, 1, 2048, 11_960),
            (Performance, 2, 4096, 23_920),
        ] {
            let is = prices().started(&guest(kind, cpus, memory), Some("iad"));
            assert_eq!(is, expected, "{cpus} cpus, {memory} MB");
        }
    }

    #[test]
    fn regions_differ_and_an_unknown_one_is_the_dearest() {
        let small = guest(CpuKind::Shared, 1, 256);
        assert_eq!(prices().started(&small, Some("ams")), 779, "2.02 dollars a month");
        assert_eq!(prices().started(&small, Some("xyz")), prices().started(&small, Some("gru")));
        assert_eq!(prices().started(&small, None), prices().started(&small, Some("gru")));
    }

    #[test]
    fn fifty_parked_machines_cost_fifteen_dollars_a_month() {
        #[allow(clippy::cast_precision_loss)]
        let month = prices().parked(2.0) as f64 * 1e-9 * MONTH_S * 50.0;
        assert!((month - 15.0).abs() < 0.1, "{month}");
    }
}
