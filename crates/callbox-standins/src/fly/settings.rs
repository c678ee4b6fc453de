//! What the stand-in is made with, and its limits.

use std::collections::BTreeMap;

use callbox_fly::{Token, limits};
use serde::{Deserialize, Serialize};

/// What the stand-in is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The one organisation.
    pub organization: String,
    /// Apps that exist from the start.
    pub apps: Vec<String>,
    /// The region that a create without one goes to: Fly takes one near the caller.
    pub region: String,
    /// Who may do what. Never empty; the first may do everything.
    pub tokens: Vec<Grant>,
    /// What is refused.
    pub limits: Limits,
    /// Of ids, names and chances.
    pub seed: u64,
}

/// What one token may do.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The token.
    pub token: Token,
    /// Only on these apps; everything when absent.
    pub apps: Option<Vec<String>>,
}

impl Settings {
    /// One app, one token for everything, the documented limits.
    pub fn new(app: &str, token: Token) -> Settings {
        Settings {
            organization: "personal".into(),
            apps: vec![app.to_owned()],
            region: "iad".into(),
            tokens: vec![Grant { token, apps: None }],
            limits: Limits::default(),
            seed: 0,
        }
    }

    /// What is wrong with them, in words.
    ///
    /// # Errors
    /// A region that there is not, an app without a name, or nobody who may do anything.
    pub fn check(&self) -> Result<(), String> {
        if !limits::REGIONS.iter().any(|(code, _)| *code == self.region) {
            let codes = limits::REGIONS.map(|(code, _)| code).join(", ");
            return Err(format!("{:?} is no region; there are {codes}", self.region));
        }
        if self.apps.iter().any(String::is_empty) {
            return Err("an app has no name".to_owned());
        }
        if self.tokens.is_empty() {
            return Err("there is no token".to_owned());
        }
        Ok(())
    }
}

/// What the stand-in refuses, as Fly does. The default are the documented limits.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Whether calls are limited by action and scope ([`limits::rate`]).
    pub rates: bool,
    /// Machines of the organisation, running or not; no end when absent.
    pub machines: Option<u32>,
    /// Of single regions; one that is not named has no end.
    pub regions: BTreeMap<String, RegionLimits>,
}

/// What one region has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegionLimits {
    /// Room for so many machines that run or are suspended: beyond it 422 for a create, 409 for
    /// a start.
    pub capacity: Option<u32>,
    /// Memory in MB that the organisation may use: beyond it 403.
    pub quota_mb: Option<u64>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { rates: true, machines: Some(limits::MACHINES_PER_ORG), regions: BTreeMap::new() }
    }
}

impl Limits {
    /// Nothing is refused.
    pub fn none() -> Limits {
        Limits { rates: false, machines: None, regions: BTreeMap::new() }
    }
}
