//! Regions, placements and the machines of a whole organisation (fly.md section 3.4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient::{nullable, or_default, readable};
use super::{Guest, MachineConfig, State};

/// Answer of `GET /platform/regions`. Upper case was seen, lower case is specified: the names
/// of the two outer fields are read in both.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Regions {
    /// The regions.
    #[serde(default, alias = "Regions", deserialize_with = "readable")]
    pub regions: Vec<Region>,
    /// The one near the caller.
    #[serde(default, alias = "Nearest", deserialize_with = "or_default")]
    pub nearest: String,
}

/// One region.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Region {
    /// Such as `iad`.
    #[serde(default, deserialize_with = "or_default")]
    pub code: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The part of the world.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub geo_region: Option<String>,
}

/// Body of `POST /platform/placements`: where machines would go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct PlacementsRequest {
    /// The organisation.
    #[serde(default, deserialize_with = "nullable")]
    pub org_slug: String,
    /// The shape that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Guest>,
    /// A list of regions and aliases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// How many; 0 asks for the organisation's limit in each region.
    #[serde(default, deserialize_with = "nullable")]
    pub count: u32,
    /// What matters how much.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, i64>,
}

/// Answer of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Placements {
    /// By region.
    #[serde(default, deserialize_with = "readable")]
    pub regions: Vec<Placement>,
}

/// How many would go where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Placement {
    /// Such as `iad`.
    #[serde(default, deserialize_with = "or_default")]
    pub region: String,
    /// Machines there.
    #[serde(default, deserialize_with = "or_default")]
    pub count: u32,
    /// How many of them can be made at once.
    #[serde(default, deserialize_with = "or_default")]
    pub concurrency: u32,
}

/// Answer of `GET /orgs/{org}/machines`: a page, in the order of `updated_at`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct OrgMachines {
    /// The page.
    #[serde(default, deserialize_with = "readable")]
    pub machines: Vec<OrgMachine>,
    /// Where the next page begins; absent on the last.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Of the page's last machine.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub last_machine_id: Option<String>,
    /// Of the page's last machine.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub last_updated_at: Option<String>,
    /// Regions that did not answer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub error_regions: Vec<String>,
}

/// A machine in it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct OrgMachine {
    /// See [`super::Machine::id`].
    pub id: String,
    /// Its app.
    #[serde(default, deserialize_with = "or_default")]
    pub app_name: String,
    /// Its name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its state.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Its region.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Its version.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The same by its older name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Its address.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub private_ip: Option<String>,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Image, guest and metadata of it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub config: Option<MachineConfig>,
}
