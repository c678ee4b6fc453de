//! The configuration as it is written: names and types, nothing checked yet.
//! Unknown keys are refused by name.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Deserializer, de::Error as _};

use super::daily::RawDaily;
use super::fly::RawFly;
use super::livekit::RawLivekit;
use super::secret::{Secret, SecretSource};
use super::webrtc::RawWebrtc;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub listen: String,
    pub public_url: String,
    pub data_dir: PathBuf,
    pub store: RawStore,
    pub replica: RawReplica,
    pub log: RawLog,
    pub limits: RawLimits,
    pub history: RawHistory,
    pub cors: RawCors,
    pub local: RawLocal,
    pub fly: RawFly,
    pub daily: RawDaily,
    pub livekit: RawLivekit,
    pub webrtc: RawWebrtc,
    /// Merged under every bot before the bots are read; here only so that it is a known key.
    #[serde(rename = "bot_defaults")]
    pub _bot_defaults: RawBot,
    #[serde(default)]
    pub bots: BTreeMap<String, RawBot>,
}

/// The store's address. It may hold a password, so what is no text is refused without quoting it.
#[derive(Debug)]
pub(super) struct RawStore(pub Secret);

impl<'de> Deserialize<'de> for RawStore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawStore, D::Error> {
        let text = String::deserialize(deserializer);
        let text = text.map_err(|_| D::Error::custom("the store's address is a text"))?;
        Ok(RawStore(Secret::new(text)))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReplica {
    pub url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub level: String,
    pub format: RawLogFormat,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawLogFormat {
    Text,
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub max_sessions: u32,
    pub max_queued: u32,
    pub max_body_bytes: usize,
    pub max_held_bytes: usize,
    pub max_log_bytes: u64,
    pub on_shutdown: RawOnShutdown,
    pub shutdown_deadline_s: f64,
    pub orphan_after_s: f64,
    pub sweep_grace_s: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawOnShutdown {
    End,
    Leave,
    Drain,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHistory {
    pub keep_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCors {
    pub allowed_origins: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLocal {
    pub accelerator: RawAccelerator,
    pub qemu: PathBuf,
    pub agent: PathBuf,
    pub cage: RawCage,
    pub boot_timeout_s: u64,
    pub translation_cache_mib: u32,
    pub host_memory_mib: u64,
    pub host_reserve_mib: u64,
    pub memory_overcommit: f64,
    pub cpu_overcommit: f64,
    pub max_starting: usize,
    pub network: RawLocalNetwork,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLocalNetwork {
    pub dns: Vec<String>,
    pub deny: Vec<String>,
    pub links: String,
    pub connections: u32,
    pub new_connections_per_s: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawAccelerator {
    Auto,
    Kvm,
    Tcg,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawCage {
    Auto,
    Required,
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBot {
    pub image: String,
    pub provider: String,
    pub transports: Vec<String>,
    pub contract: RawContract,
    pub argv: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    pub cwd: String,
    pub port: u16,
    pub reseed: RawReseed,
    pub reseed_argv: Vec<String>,
    pub ready: RawReady,
    pub ready_when: RawReadyWhen,
    pub restarts: RawRestarts,
    pub warning_signal: String,
    pub start: RawStart,
    pub memory_mib: u32,
    pub vcpus: u8,
    pub disk_mib: u32,
    pub regions: Vec<String>,
    pub cpu_kind: RawCpuKind,
    pub network: RawNetwork,
    pub allow: Vec<String>,
    pub max_sessions: u32,
    pub stop_grace_s: f64,
    pub reserve: RawReserve,
    pub timeouts: RawTimeouts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReserve {
    pub min: usize,
    pub max: usize,
    pub target_hit_ratio: f64,
    pub max_age_s: f64,
    pub kind: RawReserveKind,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawReserveKind {
    Stopped,
    Suspended,
    Started,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawContract {
    Http,
    Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawReseed {
    Hook,
    Command,
    Kernel,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawReady {
    Started,
    Listening,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawReadyWhen {
    Bot,
    Room,
    Machine,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRestarts {
    pub most: u32,
    pub within_s: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawStart {
    Clone,
    Cold,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawCpuKind {
    Shared,
    Dedicated,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawNetwork {
    None,
    Internet,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTimeouts {
    pub queued_s: f64,
    pub start_s: f64,
    pub ready_s: f64,
    pub join_s: f64,
    pub live_s: f64,
    pub alone_s: f64,
    pub warn_s: f64,
    pub silent_s: f64,
    pub ending_s: f64,
}
