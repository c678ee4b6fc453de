//! A machine as the API tells of it (fly.md sections 2.3, 3.1).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lenient::{or_default, readable};
use super::word::words;
use super::{Event, MachineConfig};

words! {
    /// States of a machine.
    ///
    /// Resting: created, started, stopped, suspended, failed. Final: destroyed, and for a
    /// version replaced and migrated. The rest passes; one that is not known is "wait".
    State {
        /// Being made.
        Creating = "creating",
        /// Room is reserved, the image is pulled, the root file system is built. A start is
        /// refused here with 412.
        Created = "created",
        /// Booting.
        Starting = "starting",
        /// The VM has booted, which says nothing of the program in it.
        Started = "started",
        /// The main process was told to end.
        Stopping = "stopping",
        /// Not running; the root file system stays.
        Stopped = "stopped",
        /// Memory is being kept.
        Suspending = "suspending",
        /// Not running; memory is kept, which may be lost.
        Suspended = "suspended",
        /// Between two runs.
        Restarting = "restarting",
        /// Could not be made or run.
        Failed = "failed",
        /// Could not be launched; goes on to destroyed.
        LaunchFailed = "launch_failed",
        /// Gets a new configuration.
        Updating = "updating",
        /// A new version takes its place.
        Replacing = "replacing",
        /// Of a version: another one took its place.
        Replaced = "replaced",
        /// Of a version: it is on another host.
        Migrated = "migrated",
        /// Being taken away.
        Destroying = "destroying",
        /// Gone.
        Destroyed = "destroyed",
    }
}

impl State {
    /// Whether nothing more will come of a machine in it, or it is as good as gone.
    pub fn is_gone(&self) -> bool {
        matches!(self, State::Destroying | State::Destroyed | State::LaunchFailed)
    }

    /// Whether it stays in this state until somebody or something acts.
    pub fn is_resting(&self) -> bool {
        matches!(
            self,
            State::Created
                | State::Started
                | State::Stopped
                | State::Suspended
                | State::Failed
                | State::Destroyed
        )
    }
}

words! {
    /// What Fly knows of the host that a machine is on.
    HostStatus {
        /// All is well.
        Ok = "ok",
        /// Not known, spelled like that; `config` is then absent.
        NotKnown = "unknown",
        /// Nobody reaches it; `config` is then absent.
        Unreachable = "unreachable",
    }
}

/// A machine. Only `id` must be there; of the rest, what is absent or makes no sense is absent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Machine {
    /// 14 hexadecimal digits.
    pub id: String,
    /// Unique in its app; the key by which a create is repeated safely.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where in its life it is.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// The region it is in, such as `iad`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// A ULID, new with each version of the configuration.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The newer name of `instance_id`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its address in the organisation's network; not stable over migration.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub private_ip: Option<String>,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// RFC 3339.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// What it is made of; absent in summaries, and where its host is not reached.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub config: Option<MachineConfig>,
    /// What is known of `config` while its host is not reached.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub incomplete_config: Option<MachineConfig>,
    /// The image as it was found.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub image_ref: Option<ImageRef>,
    /// What became of it, newest first.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// What is known of its host.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub host_status: Option<HostStatus>,
    /// Whether Fly's proxy leaves it alone.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
    /// Of the lease that was asked for with the create.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

impl Machine {
    /// Its metadata, from the configuration or from what is known of it.
    pub fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        self.config.as_ref().or(self.incomplete_config.as_ref()).map(|config| &config.metadata)
    }

    /// When it was made, if that is said and makes sense.
    pub fn created(&self) -> Option<Timestamp> {
        self.created_at.as_deref().and_then(|text| text.parse().ok())
    }
}

/// An image as it was found in its registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ImageRef {
    /// Such as `registry.fly.io`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Such as `my-app`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Such as `latest`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// `sha256:…`
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of the image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_half_machine_is_a_machine() {
        let machine: Machine = serde_json::from_value(json!({
            "id": "1857156b526dd8",
            "state": "levitating",
            "name": 7,
            "events": [null, {"type": "launch", "timestamp": "x"}, 3],
            "config": {"image": "a", "env": null, "guest": {"cpus": "many"}},
            "incomplete_config": {"metadata": {"a": "b"}},
            "image_ref": [],
            "host_status": null,
        }))
        .expect("only the id must be there");
        assert_eq!(machine.state, Some(State::Unknown("levitating".into())));
        assert_eq!(machine.name, None);
        assert_eq!(machine.events.len(), 1);
        assert_eq!(machine.config, None, "a configuration is believed whole or not at all");
        assert_eq!(machine.metadata().and_then(|all| all.get("a")).map(String::as_str), Some("b"));
        assert!(serde_json::from_value::<Machine>(json!({"state": "started"})).is_err());
    }

    #[test]
    fn what_we_do_not_know_of_a_config_is_kept() {
        let config = json!({"image": "a", "checks": {"up": {"port": 1}}, "guest": {"gpus": 1}});
        let read: MachineConfig = serde_json::from_value(config.clone()).expect("a config");
        assert_eq!(serde_json::to_value(&read).expect("json"), config);
    }

    #[test]
    fn debug_shows_no_values_that_may_be_a_sessions() {
        let config: MachineConfig = serde_json::from_value(json!({
            "image": "a",
            "env": {"TOKEN": "geheim"},
            "init": {"cmd": ["--token", "geheim"], "exec": ["geheim"]},
            "files": [{"guest_path": "/a", "raw_value": "geheim"}],
            "processes": [{"env": {"A": "geheim"}}],
            "services": [{"a": "geheim"}],
        }))
        .expect("a config");
        let shown = format!("{config:?}");
        assert!(!shown.contains("geheim"), "{shown}");
        assert!(shown.contains("TOKEN"), "{shown}");
    }
}
