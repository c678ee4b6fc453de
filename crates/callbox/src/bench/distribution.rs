//! Order statistics. Nearest rank, no interpolation: every number was really measured.

use serde::Serialize;

/// A distribution, in the unit of its samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distribution {
    pub count: usize,
    pub min: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Distribution {
    /// `None` where nothing was measured.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Distribution> {
        let mut sorted: Vec<f64> =
            samples.into_iter().filter(|sample| sample.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied()
        };
        Some(Distribution {
            count: sorted.len(),
            min: *sorted.first()?,
            p50: rank(50)?,
            p95: rank(95)?,
            p99: rank(99)?,
            max: *sorted.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let distribution = Distribution::of((1..=200).rev().map(f64::from));
        let expected =
            Distribution { count: 200, min: 1.0, p50: 100.0, p95: 190.0, p99: 198.0, max: 200.0 };
        assert_eq!(distribution, Some(expected));
    }

    #[test]
    fn few_samples_are_no_trouble() {
        assert_eq!(Distribution::of([]), None);
        assert_eq!(Distribution::of([f64::NAN]), None);
        let expected = Distribution { count: 1, min: 7.0, p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 };
        assert_eq!(Distribution::of([7.0]), Some(expected));
    }
}
