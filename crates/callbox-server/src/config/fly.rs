//! `[fly]`: machines at Fly.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ConfigError, secret::SecretSource, wrong};

/// Where Fly's own tools look for another address, in their order.
const ADDRESSES: [&str; 2] = ["FLY_FLAPS_BASE_URL", "FLY_API_HOST"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFly {
    token: SecretSource,
    api_url: String,
    apps: Vec<String>,
    max_machines: usize,
    authorities: String,
    prices: FlyPrices,
}

/// What machines at Fly cost: US dollars for 30 days.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlyPrices {
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
    /// How many of them a bot's image has.
    pub image_gb: f64,
    /// What a region's machines cost, as a multiple.
    pub regions: BTreeMap<String, f64>,
}

impl FlyPrices {
    fn check(&self) -> Result<(), ConfigError> {
        let named = [
            ("shared_cpu", self.shared_cpu),
            ("performance_cpu", self.performance_cpu),
            ("memory_gb", self.memory_gb),
            ("rootfs_gb", self.rootfs_gb),
            ("image_gb", self.image_gb),
        ];
        let regions = self.regions.iter().map(|(name, factor)| (name.as_str(), *factor));
        for (name, price) in named.into_iter().chain(regions) {
            if !(0.0..1e6).contains(&price) {
                return Err(wrong(format!("fly.prices.{name}"), format!("{price} is no price")));
            }
        }
        Ok(())
    }
}

/// Machines at Fly.
#[derive(Clone, Debug, PartialEq)]
pub struct FlySection {
    /// Where the token is.
    pub token: SecretSource,
    /// Where the API is; none: where everybody finds it.
    pub api_url: Option<String>,
    /// The apps that machines are made in.
    pub apps: Vec<String>,
    /// Machines that there may be at once.
    pub max_machines: usize,
    /// A file of certificates that machines trust beside the public ones.
    pub authorities: Option<std::path::PathBuf>,
    /// What they cost.
    pub prices: FlyPrices,
}

pub(super) fn fly(raw: RawFly) -> Result<FlySection, ConfigError> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(app) = raw.apps.iter().find(|app| app.is_empty() || !app.chars().all(legal)) {
        return Err(wrong("fly.apps", format!("{app:?} is no app's name")));
    }
    if raw.max_machines == 0 {
        return Err(wrong("fly.max_machines", "0 machines can serve nobody"));
    }
    raw.prices.check()?;
    let from_env = || ADDRESSES.into_iter().find_map(|name| std::env::var(name).ok());
    let api_url = Some(raw.api_url).filter(|url| !url.is_empty()).or_else(from_env);
    Ok(FlySection {
        token: raw.token,
        api_url: api_url.filter(|url| !url.is_empty()),
        apps: raw.apps,
        max_machines: raw.max_machines,
        authorities: Some(raw.authorities).filter(|path| !path.is_empty()).map(Into::into),
        prices: raw.prices,
    })
}
