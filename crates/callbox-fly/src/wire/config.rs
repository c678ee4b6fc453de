//! `config` of a machine (fly.md section 2.2).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::GoDuration;
use super::lenient::nullable;
use super::word::words;

/// What a machine is made of. Only `image` is required, and even that may be absent in an
/// answer.
///
/// Fields that we do not use are kept in `other` (`services`, `checks`, `mounts`, `processes`,
/// …), so that a configuration that was read can be written back whole.
/// `Debug` shows no values of `env`, `files`, `init` and `other`: they may be a session's.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct MachineConfig {
    /// Any registry's reference; by digest (`name@sha256:…`) it cannot change under us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What is run, where not the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Plain text for everybody who can read the machine.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Processors and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// The deprecated shorthand for `guest`, such as `shared-cpu-1x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The machine destroys itself when its main process ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_destroy: Option<bool>,
    /// What follows the end of the main process; `on-failure` with ten tries when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// Lists can be filtered by it. Keys that begin with `fly_` are Fly's own.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// How the machine is stopped: SIGINT and five seconds when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_config: Option<StopConfig>,
    /// Files that are put into the machine before it starts.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Its root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
    /// Ports that Fly's proxy serves. Without any, the proxy never touches the machine, which
    /// is right for a bot that dials out.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Value>,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl fmt::Debug for MachineConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.env.keys().collect();
        let other: Vec<&String> = self.other.keys().collect();
        f.debug_struct("MachineConfig")
            .field("image", &self.image)
            .field("init", &self.init)
            .field("env (names)", &names)
            .field("guest", &self.guest)
            .field("auto_destroy", &self.auto_destroy)
            .field("restart", &self.restart)
            .field("metadata", &self.metadata)
            .field("stop_config", &self.stop_config)
            .field("files", &self.files)
            .field("other (names)", &other)
            .finish_non_exhaustive()
    }
}

/// What is run in the machine. `exec` beats everything; `entrypoint` and `cmd` take the place
/// of the image's.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct Init {
    /// The whole argument list.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<String>,
    /// Instead of the image's entry point.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Instead of the image's command.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Swap in MB; a machine with swap cannot be suspended (fly.md section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_size_mb: Option<u32>,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl fmt::Debug for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Init")
            .field("exec (words)", &self.exec.len())
            .field("entrypoint (words)", &self.entrypoint.len())
            .field("cmd (words)", &self.cmd.len())
            .finish_non_exhaustive()
    }
}

words! {
    /// Kind of processors.
    CpuKind {
        /// 6.25 % of a core guaranteed, with bursts of at first 5 s (fly.md section 6).
        Shared = "shared",
        /// A whole core each.
        Performance = "performance",
    }
}

/// Processors and memory. Which shapes there are: [`crate::limits::SHAPES`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Guest {
    /// `shared` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_kind: Option<CpuKind>,
    /// Processors; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in MB; the least for the processors when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

words! {
    /// What follows the end of the main process.
    RestartPolicy {
        /// Nothing.
        No = "no",
        /// Another try after a failure.
        OnFailure = "on-failure",
        /// Another try after any end.
        Always = "always",
    }
}

/// Restart policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Restart {
    /// `on-failure` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RestartPolicy>,
    /// Tries of `on-failure`; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
}

/// How a machine is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct StopConfig {
    /// Such as `SIGTERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Grace until the machine is killed; at most [`crate::limits::STOP_TIMEOUT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
}

/// A file that is put into the machine. `Debug` shows no content.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct File {
    /// Where it goes: an absolute path.
    pub guest_path: String,
    /// Its content in base64; this or one of the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_value: Option<String>,
    /// An app secret whose value is the content, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// An image whose configuration is the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_config: Option<String>,
    /// As chmod(2) takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("guest_path", &self.guest_path).finish_non_exhaustive()
    }
}

words! {
    /// When a root file system is kept.
    PersistRootfs {
        /// Made anew at each start from `stopped`. The default.
        Never = "never",
        /// Kept over restarts.
        Restart = "restart",
        /// Kept.
        Always = "always",
    }
}

/// The root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rootfs {
    /// When it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persist: Option<PersistRootfs>,
    /// Its size in GB, where [`crate::limits::ROOTFS_GB`] are too few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_gb: Option<u32>,
}
