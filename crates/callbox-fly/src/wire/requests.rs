//! What the calls on machines take and give (fly.md sections 2.1, 3.2, 3.4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient::{nullable, or_default};
use super::{GoDuration, MachineConfig, State};

/// Body of a create.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct CreateMachine {
    /// Unique in the app; made up by Fly when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// One code, or a list in order of preference with aliases: `lhr,eu`, `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What it is made of.
    #[serde(default, deserialize_with = "nullable")]
    pub config: MachineConfig,
    /// Create holding a lease for so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ttl: Option<i64>,
    /// Make it, but do not boot it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_launch: Option<bool>,
    /// Make it so that Fly's proxy leaves it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_service_registration: Option<bool>,
    /// Do not give it the app's secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_secrets: Option<bool>,
    /// Wait for this version of the app's secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_secrets_version: Option<u64>,
}

/// Body of an update: the whole configuration, nothing is merged. A running machine reboots.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct UpdateMachine {
    /// What it will be made of.
    #[serde(default, deserialize_with = "nullable")]
    pub config: MachineConfig,
    /// The version that is meant; any other is a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_version: Option<String>,
    /// Change it, but do not boot it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_launch: Option<bool>,
    /// See [`CreateMachine::lease_ttl`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ttl: Option<i64>,
}

/// Body of a stop. All of it may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct StopRequest {
    /// Such as `SIGTERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Grace until it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
}

/// Body of a signal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SignalRequest {
    /// Such as `SIGTERM`.
    pub signal: String,
}

/// `{"ok":true}`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Ok {
    /// Always true where it was seen.
    #[serde(default, deserialize_with = "or_default")]
    pub ok: bool,
}

/// Answer of a start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Started {
    /// What it was before. Does not tell whether a suspended machine was resumed or booted
    /// cold: nothing does (fly.md section 4).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub previous_state: Option<State>,
    /// Whether it moved to another host.
    #[serde(default, deserialize_with = "or_default")]
    pub migrated: bool,
    /// The other host.
    #[serde(default, deserialize_with = "or_default")]
    pub new_host: String,
}

/// Answer of a wait. Older servers say no more than `ok`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct WaitAnswer {
    /// Always true where it was seen.
    #[serde(default, deserialize_with = "or_default")]
    pub ok: bool,
    /// The state that it is in.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The version that is in it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The event by which it came there.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
}

/// One value of a machine's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MetadataValue {
    /// The value.
    #[serde(default, deserialize_with = "nullable")]
    pub value: String,
}

/// Body of `PUT` (all of it) and `PATCH` (these keys) of a machine's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MetadataUpdate {
    /// The keys and values.
    #[serde(default, deserialize_with = "nullable")]
    pub metadata: BTreeMap<String, String>,
    /// The version that is meant; any other is refused with 412.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_version: Option<String>,
}
