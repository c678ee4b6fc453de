//! What the operator decided: `callbox.toml`, the environment, embedded defaults.
//!
//! Two stages. [`raw`] is the text with its names and types; [`Config`] is checked and ready to
//! use. What is wrong is said with the key, the value and where it came from, before anything
//! is started.

mod contract;
mod daily;
mod fly;
mod livekit;
mod network;
mod raw;
pub mod secret;
mod sources;
mod webrtc;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use callbox_core::{Limits, ReadyWhen, Restarts};
use callbox_machines::{
    BotMachine, BotRun, BudgetConfig, Cloud, CpuKind, ReserveKind, ReserveSize, StartFrom,
    local::NetConfig,
};
use network::{local_network, network};
use raw::{Raw, RawBot};
use secret::SecretSource;

use crate::store::Address;

pub use daily::DailySection;
pub use fly::{FlyPrices, FlySection};
pub use livekit::LivekitSection;
pub use raw_exports::*;
pub use sources::{Line, Loaded, load};
pub use webrtc::WebrtcSection;

/// What a caller needs of the raw words.
mod raw_exports {
    /// How log lines look.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LogFormat {
        /// For people.
        Text,
        /// One JSON object a line.
        Json,
    }

    /// What is put around each local machine's process.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Cage {
        /// As much as the host allows.
        Auto,
        /// All of it, or no machine.
        Required,
        /// Nothing.
        Off,
    }

    /// What becomes of calls when the dispatcher is told to end.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum OnShutdown {
        /// They end with it.
        End,
        /// They go on, and the next dispatcher takes them up.
        Leave,
        /// They may come to their own end within a deadline; the dispatcher waits for them.
        Drain,
    }

    /// How local machines are run.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Accelerator {
        /// KVM where a probe proves that it works.
        Auto,
        /// KVM or nothing.
        Kvm,
        /// Software emulation.
        Tcg,
    }
}

const LEAST_ORPHAN: Duration = Duration::from_secs(10);
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The defaults, as a file that people can read.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to serve.
    pub listen: SocketAddr,
    /// Address under which clients reach us, without a trailing slash.
    pub public_url: Option<String>,
    /// Where other replicas reach us; none: where we listen.
    pub replica_url: Option<String>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where sessions are kept.
    pub store: Address,
    /// Filter of log lines.
    pub log_level: String,
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Sessions that may live at once.
    pub max_sessions: u32,
    /// Sessions of those that may wait for room.
    pub max_queued: u32,
    /// Largest body of a request.
    pub max_body_bytes: usize,
    /// What a client may send before its bot is ready.
    pub max_held_bytes: usize,
    /// What is kept of one session's log.
    pub max_log_bytes: u64,
    /// What becomes of calls at a shutdown.
    pub on_shutdown: OnShutdown,
    /// How long a shutdown that drains waits for calls before it ends them.
    pub shutdown_deadline: Duration,
    /// How long machines and calls live without a dispatcher.
    pub orphan_after: Duration,
    /// For how long ended sessions are kept; none: for ever.
    pub keep_history: Option<Duration>,
    /// What is younger is not swept, where lists may be stale.
    pub sweep_grace: Duration,
    /// Origins of pages that may call.
    pub allowed_origins: Vec<String>,
    /// Machines on this host.
    pub local: LocalSection,
    /// Machines at Fly.
    pub fly: FlySection,
    /// Rooms at Daily.
    pub daily: DailySection,
    /// Rooms at a LiveKit server; none where no server is named.
    pub livekit: Option<LivekitSection>,
    /// Calls by SmallWebRTC.
    pub webrtc: WebrtcSection,
    /// The bots by name.
    pub bots: BTreeMap<String, Arc<Bot>>,
}

/// `[local]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalSection {
    /// How machines are run.
    pub accelerator: Accelerator,
    /// The program that runs them.
    pub qemu: PathBuf,
    /// The guest agent; none means beside our own binary.
    pub agent: Option<PathBuf>,
    /// What is put around each machine's process.
    pub cage: Cage,
    /// How long a boot may take.
    pub boot_timeout: Duration,
    /// Bound of the translation cache in MiB.
    pub translation_cache_mib: u32,
    /// What there is for machines.
    pub budget: BudgetConfig,
    /// How machines that have a network get it.
    pub network: NetConfig,
}

/// One entry under `[bots]`.
#[derive(Clone, Debug)]
pub struct Bot {
    /// Its name.
    pub name: String,
    /// Name of its provider.
    pub provider: String,
    /// Names of the transports it allows, the default first.
    pub transports: Vec<String>,
    /// What its provider must know.
    pub machine: Arc<BotMachine>,
    /// Its secrets, by the name that they have in the bot's environment.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Its sessions that may live at once.
    pub max_sessions: u32,
    /// Between SIGTERM and the end of the machine.
    pub stop_grace: Duration,
    /// How long its running machine may answer nothing.
    pub silent_after: Duration,
    /// Its sessions' deadlines.
    pub limits: Limits,
    /// What counts as ready.
    pub ready_when: ReadyWhen,
    /// What its death means.
    pub restarts: Restarts,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read at all, has an unknown key, or a value of the wrong type.
    #[error("{0}")]
    Unreadable(String),
    /// A value that cannot be.
    #[error("{key}: {problem}")]
    Value {
        /// Dotted path of the key.
        key: String,
        /// What is wrong with its value.
        problem: String,
    },
}

fn wrong(key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { key: key.into(), problem: problem.into() }
}

impl Config {
    fn from_raw(raw: Raw) -> Result<Config, ConfigError> {
        let listen = raw.listen.parse().map_err(|_| {
            wrong("listen", format!("{:?} is not an address like 127.0.0.1:7860", raw.listen))
        })?;
        let bots = raw.bots.into_iter().map(|(name, bot)| {
            let bot = Bot::from_raw(&name, bot)?;
            Ok((name, Arc::new(bot)))
        });
        let budget = budget(&raw.local)?;
        Ok(Config {
            listen,
            public_url: public_url(&raw.public_url)?,
            replica_url: replica_url(&raw.replica.url, listen)?,
            data_dir: if raw.data_dir.as_os_str().is_empty() {
                default_data_dir()?
            } else {
                raw.data_dir
            },
            store: Address::parse(raw.store.0.reveal())
                .map_err(|problem| wrong("store", problem))?,
            log_level: raw.log.level,
            log_format: match raw.log.format {
                raw::RawLogFormat::Text => LogFormat::Text,
                raw::RawLogFormat::Json => LogFormat::Json,
            },
            max_sessions: raw.limits.max_sessions,
            max_queued: raw.limits.max_queued,
            max_body_bytes: raw.limits.max_body_bytes,
            max_held_bytes: raw.limits.max_held_bytes,
            max_log_bytes: raw.limits.max_log_bytes,
            on_shutdown: match raw.limits.on_shutdown {
                raw::RawOnShutdown::End => OnShutdown::End,
                raw::RawOnShutdown::Leave => OnShutdown::Leave,
                raw::RawOnShutdown::Drain => OnShutdown::Drain,
            },
            shutdown_deadline: span(
                "limits.shutdown_deadline_s".into(),
                raw.limits.shutdown_deadline_s,
            )?,
            orphan_after: orphan_after(raw.limits.orphan_after_s)?,
            keep_history: keep_history(raw.history.keep_s)?,
            sweep_grace: span("limits.sweep_grace_s".into(), raw.limits.sweep_grace_s)?,
            allowed_origins: raw.cors.allowed_origins,
            local: LocalSection {
                accelerator: match raw.local.accelerator {
                    raw::RawAccelerator::Auto => Accelerator::Auto,
                    raw::RawAccelerator::Kvm => Accelerator::Kvm,
                    raw::RawAccelerator::Tcg => Accelerator::Tcg,
                },
                qemu: raw.local.qemu,
                cage: match raw.local.cage {
                    raw::RawCage::Auto => Cage::Auto,
                    raw::RawCage::Required => Cage::Required,
                    raw::RawCage::Off => Cage::Off,
                },
                agent: Some(raw.local.agent).filter(|path| !path.as_os_str().is_empty()),
                boot_timeout: boot_timeout(raw.local.boot_timeout_s)?,
                translation_cache_mib: raw.local.translation_cache_mib,
                budget,
                network: local_network(&raw.local.network)?,
            },
            fly: fly::fly(raw.fly)?,
            daily: daily::daily(raw.daily)?,
            livekit: livekit::livekit(raw.livekit),
            webrtc: webrtc::webrtc(raw.webrtc)?,
            bots: bots.collect::<Result<_, ConfigError>>()?,
        })
    }
}

impl Bot {
    fn from_raw(name: &str, raw: RawBot) -> Result<Bot, ConfigError> {
        let key = |field: &str| format!("bots.{name}.{field}");
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 40 || !name.chars().all(legal) {
            let problem = "a bot's name has 1 to 40 characters of a-z, 0-9, - and _";
            return Err(wrong(format!("bots.{name:?}"), problem));
        }
        if raw.image.is_empty() && raw.provider == "local" {
            return Err(wrong(key("image"), "name an image; `callbox image list` shows them"));
        }
        if raw.transports.is_empty() {
            return Err(wrong(key("transports"), "allow at least one"));
        }
        for (field, value, least) in [
            ("memory_mib", raw.memory_mib, 128),
            ("disk_mib", raw.disk_mib, 1),
            ("vcpus", u32::from(raw.vcpus), 1),
            ("max_sessions", raw.max_sessions, 1),
        ] {
            if value < least {
                return Err(wrong(key(field), format!("{value} is less than {least}")));
            }
        }
        let seconds = |field: &str, value| span(key(field), value);
        let limits = Limits {
            queued: seconds("timeouts.queued_s", raw.timeouts.queued_s)?,
            start: seconds("timeouts.start_s", raw.timeouts.start_s)?,
            ready: seconds("timeouts.ready_s", raw.timeouts.ready_s)?,
            join: seconds("timeouts.join_s", raw.timeouts.join_s)?,
            live: seconds("timeouts.live_s", raw.timeouts.live_s)?,
            alone: span_or_zero(key("timeouts.alone_s"), raw.timeouts.alone_s)?,
            warn: span_or_zero(key("timeouts.warn_s"), raw.timeouts.warn_s)?,
            ending: seconds("timeouts.ending_s", raw.timeouts.ending_s)?,
        };
        let contract = contract::contract(&raw, key)?;
        let reserve = reserve(&raw.reserve, |field| key(&format!("reserve.{field}")))?;
        let machine = BotMachine {
            bot: name.to_owned(),
            image: raw.image,
            memory_mib: raw.memory_mib,
            vcpus: raw.vcpus,
            disk_mib: raw.disk_mib,
            network: network(raw.network, &raw.allow)
                .map_err(|problem| wrong(key("allow"), problem))?,
            start: match raw.start {
                raw::RawStart::Clone => StartFrom::Clone,
                raw::RawStart::Cold => StartFrom::Cold,
            },
            cloud: Cloud {
                regions: raw.regions,
                cpu_kind: match raw.cpu_kind {
                    raw::RawCpuKind::Shared => CpuKind::Shared,
                    raw::RawCpuKind::Dedicated => CpuKind::Dedicated,
                },
            },
            reserve,
            run: BotRun {
                contract,
                argv: raw.argv,
                env: raw.env,
                cwd: Some(raw.cwd).filter(|cwd| !cwd.is_empty()),
                port: raw.port,
                ready_timeout_ms: u64::try_from(limits.ready.as_millis()).unwrap_or(u64::MAX),
            },
        };
        Ok(Bot {
            name: name.to_owned(),
            provider: raw.provider,
            transports: raw.transports,
            machine: Arc::new(machine),
            secrets: raw.secrets,
            max_sessions: raw.max_sessions,
            silent_after: seconds("timeouts.silent_s", raw.timeouts.silent_s)?,
            stop_grace: span_or_zero(key("stop_grace_s"), raw.stop_grace_s)?,
            limits,
            ready_when: match raw.ready_when {
                raw::RawReadyWhen::Bot => ReadyWhen::Bot,
                raw::RawReadyWhen::Room => ReadyWhen::Room,
                raw::RawReadyWhen::Machine => ReadyWhen::Machine,
            },
            restarts: Restarts {
                most: raw.restarts.most,
                within: seconds("restarts.within_s", raw.restarts.within_s)?,
            },
        })
    }
}

/// In whole seconds, as machines are told. A restart of the dispatcher must fit in.
fn orphan_after(seconds: f64) -> Result<Duration, ConfigError> {
    let span = span("limits.orphan_after_s".into(), seconds)?;
    if span < LEAST_ORPHAN {
        let least = LEAST_ORPHAN.as_secs();
        let problem = format!("{seconds} s is less than {least} s: no dispatcher restarts so soon");
        return Err(wrong("limits.orphan_after_s", problem));
    }
    Ok(Duration::from_secs(span.as_secs()))
}

/// None: for ever.
fn keep_history(seconds: u64) -> Result<Option<Duration>, ConfigError> {
    match seconds {
        0 => Ok(None),
        // Long enough for whoever waits for an end, or repeats a start with its key.
        1..60 => {
            Err(wrong("history.keep_s", format!("{seconds} is less than a minute; 0: for ever")))
        }
        _ => Ok(Some(Duration::from_secs(seconds))),
    }
}

fn boot_timeout(seconds: u64) -> Result<Duration, ConfigError> {
    let span = Duration::from_secs(seconds);
    if span > A_YEAR {
        return Err(wrong("local.boot_timeout_s", format!("{seconds} s is longer than a year")));
    }
    Ok(span)
}

/// A number of seconds, from 0 to a year: nothing here lasts longer, and sums of them stay numbers.
fn span_or_zero(key: String, seconds: f64) -> Result<Duration, ConfigError> {
    let span = Duration::try_from_secs_f64(seconds)
        .map_err(|_| wrong(&*key, format!("{seconds} is no number of seconds")))?;
    if span > A_YEAR {
        return Err(wrong(key, format!("{seconds} s is longer than a year")));
    }
    Ok(span)
}

/// The same, above 0.
fn span(key: String, seconds: f64) -> Result<Duration, ConfigError> {
    let span = span_or_zero(key.clone(), seconds)?;
    if span.is_zero() {
        return Err(wrong(key, format!("{seconds} is no number of seconds above 0")));
    }
    Ok(span)
}

fn reserve(
    raw: &raw::RawReserve,
    key: impl Fn(&str) -> String,
) -> Result<ReserveSize, ConfigError> {
    let raw::RawReserve { min, max, target_hit_ratio, max_age_s, kind } = *raw;
    if min > max {
        return Err(wrong(key("min"), format!("{min} is more than reserve.max, which is {max}")));
    }
    if !(0.0..1.0).contains(&target_hit_ratio) {
        let problem = format!("{target_hit_ratio} is not at least 0 and less than 1");
        return Err(wrong(key("target_hit_ratio"), problem));
    }
    let kind = match kind {
        raw::RawReserveKind::Stopped => ReserveKind::Stopped,
        raw::RawReserveKind::Suspended => ReserveKind::Suspended,
        raw::RawReserveKind::Started => ReserveKind::Started,
    };
    let max_age = span(key("max_age_s"), max_age_s)?;
    Ok(ReserveSize { min, max, target_hit_ratio, max_age, kind })
}

fn budget(raw: &raw::RawLocal) -> Result<BudgetConfig, ConfigError> {
    for (key, factor) in [
        ("local.memory_overcommit", raw.memory_overcommit),
        ("local.cpu_overcommit", raw.cpu_overcommit),
    ] {
        if !(factor.is_finite() && factor > 0.0) {
            return Err(wrong(key, format!("{factor} is no factor above 0")));
        }
    }
    Ok(BudgetConfig {
        memory_mib: raw.host_memory_mib,
        reserve_mib: raw.host_reserve_mib,
        memory_overcommit: raw.memory_overcommit,
        cpu_overcommit: raw.cpu_overcommit,
        max_starting: raw.max_starting,
    })
}

fn public_url(text: &str) -> Result<Option<String>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    if !(text.starts_with("http://") || text.starts_with("https://")) {
        let problem = format!("{text:?} does not begin with http:// or https://");
        return Err(wrong("public_url", problem));
    }
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

fn replica_url(text: &str, listen: SocketAddr) -> Result<Option<String>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri = text.parse::<http::Uri>().ok();
    let uri = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.path() == "/");
    match uri {
        Some(_) => Ok(Some(text.trim_end_matches('/').to_owned())),
        None => {
            Err(wrong("replica.url", format!("{text:?} is not an address like http://{listen}")))
        }
    }
}

fn default_data_dir() -> Result<PathBuf, ConfigError> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/callbox".into());
    }
    let from_env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    from_env("XDG_DATA_HOME")
        .or_else(|| from_env("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("callbox"))
        .ok_or_else(|| wrong("data_dir", "set it, for neither XDG_DATA_HOME nor HOME is set"))
}
