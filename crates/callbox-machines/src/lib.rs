//! Where a session runs: one trait, a module per provider, one scriptable fake.
//!
//! A provider knows machines by the name that the core derives from session and incarnation.
//! That name is saved before [`Provider::ensure`] is called, so whatever became of a call, the
//! machine can be found again, adopted or destroyed.

mod admission;
mod arrivals;
mod budget;
pub mod contract;
mod fake;
pub mod fly;
pub mod local;
mod reserve;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use callbox_core::{Fault, MachineFacts, Price, Time, Usage};
use callbox_link::{Link, LinkError};
use callbox_protocol::agent::Prepare;
use tokio::sync::watch;

pub use admission::{Admission, Claims, Reserve, ReserveLevel};
pub use arrivals::{Arrivals, Denied};
pub use budget::{Budget, BudgetConfig, Cost};
/// One entry of what a machine may reach.
pub use callbox_microvm::net::Allow;
pub use fake::{FakeProvider, Script};
pub use fly::Fly;
pub use local::Local;

/// Naming a process of this host for good, so that it can be found and ended after a restart.
pub mod process {
    pub use callbox_microvm::{Alive, Identity};
}

/// What a provider must know of a bot to run its machines. Nothing in it belongs to a session.
#[derive(Clone, Debug, PartialEq)]
pub struct BotMachine {
    /// The bot's name in the configuration.
    pub bot: String,
    /// Name of the image that the machine starts from.
    pub image: String,
    /// Memory of the machine in MiB.
    pub memory_mib: u32,
    /// Processors of the machine.
    pub vcpus: u8,
    /// Size of the writable layer in MiB.
    pub disk_mib: u32,
    /// What the machine can reach.
    pub network: Network,
    /// Whether machines are clones of a template or boot from nothing.
    pub start: StartFrom,
    /// What matters to clouds.
    pub cloud: Cloud,
    /// How many machines wait for sessions to come.
    pub reserve: ReserveSize,
    /// How the bot is run; what is absent comes from the image.
    pub run: BotRun,
}

/// What a cloud must know of a bot's machines, and a host does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cloud {
    /// Where they may be, the best first, in the cloud's own words; empty leaves it to the cloud.
    pub regions: Vec<String>,
    /// Whose their processors are.
    pub cpu_kind: CpuKind,
}

/// Whose processors are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuKind {
    /// A share of those of the host, with bursts.
    #[default]
    Shared,
    /// The machine's alone.
    Dedicated,
}

/// How many machines a bot's reserve holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReserveSize {
    /// Never less, as far as there is room.
    pub min: usize,
    /// Never more; 0 for no reserve.
    pub max: usize,
    /// Part of the sessions that shall find a machine ready, between 0 and 1.
    pub target_hit_ratio: f64,
    /// A machine that has waited so long is made anew.
    pub max_age: Duration,
    /// How it waits, where there is a choice: at clouds.
    pub kind: ReserveKind,
}

/// How a machine of a reserve waits at a cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReserveKind {
    /// Made, with its image on a host, and not running. A start boots it and runs the bot.
    #[default]
    Stopped,
    /// The bot was ready, and then its memory was put by. A start goes on from there.
    Suspended,
    /// The bot is ready, and the agent connected: nobody has to be asked for it.
    Started,
}

impl ReserveSize {
    /// No reserve.
    pub const NONE: ReserveSize = ReserveSize {
        min: 0,
        max: 0,
        target_hit_ratio: 0.0,
        max_age: Duration::MAX,
        kind: ReserveKind::Stopped,
    };
}

/// How the bot is run in its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BotRun {
    /// See [`Prepare`].
    pub contract: callbox_protocol::agent::Contract,
    /// Program and arguments; the image's own when empty.
    pub argv: Vec<String>,
    /// Added to the image's environment.
    pub env: BTreeMap<String, String>,
    /// Working directory; the image's own when absent.
    pub cwd: Option<String>,
    /// Port of the bot in the machine.
    pub port: u16,
    /// How long the bot may take to become ready, in milliseconds.
    pub ready_timeout_ms: u64,
}

impl BotRun {
    /// The words for the agent, with what the image says where the bot's configuration is silent.
    pub fn prepare(&self, image: &ImageRun) -> Prepare {
        let mut env = image.env.clone();
        env.extend(self.env.clone());
        Prepare {
            contract: self.contract.clone(),
            argv: if self.argv.is_empty() { image.argv.clone() } else { self.argv.clone() },
            env,
            cwd: self.cwd.clone().unwrap_or_else(|| image.cwd.clone()),
            uid: image.uid,
            gid: image.gid,
            port: self.port,
            ready_timeout_ms: self.ready_timeout_ms,
        }
    }
}

/// What an image says about running it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRun {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
}

/// What a machine can reach beside its dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing: it has no network device.
    None,
    /// The internet; never its host, private networks or other machines.
    Internet {
        /// What of it; empty is all of it.
        allow: Vec<Allow>,
    },
}

/// What a machine starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// A template in which the bot is ready.
    Clone,
    /// Nothing: kernel, agent, bot, each in its turn.
    Cold,
}

/// A bot in one of its versions: what its machines are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct BotVersion {
    /// The bot.
    pub bot: Arc<BotMachine>,
    /// See [`Provider::version`]; none for whatever is there when a machine is made.
    pub version: Option<String>,
}

/// What one machine is to be.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Its name, from `callbox_core::machine_name`.
    pub name: String,
    /// Which machine of its session it is.
    pub incarnation: u32,
    /// Its bot.
    pub bot: Arc<BotMachine>,
    /// The version that it is made of, as in [`BotVersion`].
    pub version: Option<String>,
    /// Who is told what its provider calls it.
    pub made: Made,
}

/// Told a machine's id at its provider as soon as it is known, which may be long before
/// [`Provider::ensure`] returns, and even if it never does. May be told again.
#[derive(Clone, Default)]
pub struct Made(Option<Arc<Tell>>);

type Tell = dyn Fn(&str) + Send + Sync;

impl Made {
    /// Calls `tell` with the id.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Made {
        Made(Some(Arc::new(tell)))
    }

    /// The machine is called so.
    pub fn tell(&self, id: &str) {
        if let Some(tell) = &self.0 {
            tell(id);
        }
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Made(told)" } else { "Made(nobody)" })
    }
}

/// A machine, as its provider lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, as in [`MachineSpec`].
    pub name: String,
    /// The deployment that its label names; none where the list can hold no other's.
    pub deployment: Option<String>,
    /// When it was made; none where the list is always true, so that its age does not matter.
    pub made_at: Option<Time>,
    /// What its provider calls it, as [`Made`] was told; none where that is its name.
    pub id: Option<String>,
    /// The replica that has it in reserve, and that may give it to a session which is not in its
    /// name yet. None for a machine that was made for a session.
    pub keeper: Option<String>,
}

impl Listed {
    /// In a list that is always true and holds nothing of other deployments.
    pub fn here(name: impl Into<String>) -> Listed {
        Listed { name: name.into(), deployment: None, made_at: None, id: None, keeper: None }
    }
}

/// A machine that runs, is awake and acknowledged its new generation.
#[derive(Debug)]
pub struct Started {
    /// The way to its agent.
    pub link: Link,
    /// What is known of it.
    pub facts: MachineFacts,
}

/// Why a machine did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartFault {
    /// The provider's doing.
    #[error(transparent)]
    Provider(#[from] Fault),
    /// The bot's own doing: its program is missing, ended, or never became ready.
    #[error("{detail}")]
    Bot {
        /// What the agent said.
        detail: String,
        /// The last lines that the bot wrote.
        log_tail: Vec<String>,
    },
}

impl StartFault {
    /// What a failed preparation or wake means: the agent's refusal is the bot's doing, everything else
    /// the provider's.
    pub fn of_prepare(error: LinkError) -> StartFault {
        match error {
            LinkError::Agent { error, .. } => {
                StartFault::Bot { detail: error.message, log_tail: error.log_tail }
            }
            // A bot that does not prove that it differs from its template.
            error @ LinkError::NotReseeded { .. } => {
                StartFault::Bot { detail: error.to_string(), log_tail: Vec::new() }
            }
            error => StartFault::Provider(Fault::unavailable(error)),
        }
    }
}

/// What the machines of a bot cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    /// One that serves a session.
    pub machine: Price,
    /// One that waits in reserve.
    pub waiting: Price,
}

/// Told what a long piece of work is at.
pub trait Progress: Send + Sync {
    /// A new stage began.
    fn stage(&self, name: &str);
}

/// Who runs machines.
///
/// Calls are cancel-safe: when a call's future is dropped, `destroy` of the same name afterwards
/// leaves nothing of it.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// The version that this bot's image has now: a digest that changes whenever a machine made
    /// from it would. None where there is no such thing.
    ///
    /// # Errors
    /// A [`Fault`], when the image is not there.
    async fn version(&self, _bot: &BotMachine) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    /// Whether its machines are on this host, where no dispatcher of another host reaches them.
    fn on_this_host(&self) -> bool {
        false
    }

    /// Does ahead of time what `ensure` would otherwise do at a session's expense (a template).
    /// Never needed for `ensure` to work.
    ///
    /// # Errors
    /// As [`Provider::ensure`].
    async fn prepare(&self, bot: &BotVersion, progress: &dyn Progress) -> Result<(), StartFault>;

    /// Keeps the reserves of these bots filled, and gives up all others, until the future is
    /// dropped; called once, after [`Provider::prepare`]. Never needed for `ensure` to work.
    async fn tend(&self, _bots: watch::Receiver<Vec<BotVersion>>) {
        std::future::pending().await
    }

    /// Waits until the reserve of one of the bots that are tended has its smallest size, or there
    /// is no room for more.
    ///
    /// # Errors
    /// As [`Provider::ensure`], when a machine of it cannot be made.
    async fn filled(&self, _bot: &BotVersion) -> Result<(), StartFault> {
        Ok(())
    }

    /// What is not enforced around the machines, in words for people; empty where nothing is
    /// missing.
    fn not_enforced(&self) -> Vec<String> {
        Vec::new()
    }

    /// Removes versions that are neither present nor `used`, and what [`Provider::prepare`] made
    /// for them once it is old.
    ///
    /// # Errors
    /// A [`Fault`].
    async fn retain(&self, _used: &[BotVersion]) -> Result<(), Fault> {
        Ok(())
    }

    /// Removes all that there is of a version that is not needed any more, unless one that still
    /// is `used` needs the same. Machines that run go on.
    ///
    /// # Errors
    /// A [`Fault`].
    async fn retire(&self, _gone: &BotVersion, _used: &[BotVersion]) -> Result<(), Fault> {
        Ok(())
    }

    /// Whether there is room for one more machine beside those that are `claimed`. Books nothing
    /// and is called for whoever is next, again and again, between a request and its answer: it
    /// waits for nothing, and does not look at each claim.
    ///
    /// # Errors
    /// A [`Fault`]; the caller asks again.
    fn admit(&self, _next: &MachineSpec, _claimed: &Claims) -> Result<Admission, Fault> {
        Ok(Admission::Granted)
    }

    /// Gives up something that was prepared ahead (a machine in reserve), because a session needs
    /// its room; never one that a claim before it will take. What is given up is chosen before the
    /// first await: others are admitted after that. False if there is nothing left to give up.
    ///
    /// # Errors
    /// A [`Fault`]; the caller asks again.
    async fn shed(&self, _next: &MachineSpec, _claimed: &Claims) -> Result<bool, Fault> {
        Ok(false)
    }

    /// How many machines may start at once; none where it does not matter.
    fn max_starting(&self) -> Option<usize> {
        None
    }

    /// How long it is from one start to the next while many are wanted, where its provider sets
    /// that; none where it does not matter.
    fn start_pace(&self) -> Option<Duration> {
        None
    }

    /// So many dispatchers share the provider's limits from now on, this one among them.
    fn share(&self, _replicas: usize) {}

    /// How far the bots' reserves are filled.
    fn reserves(&self) -> Vec<Reserve> {
        Vec::new()
    }

    /// What a machine of this bot costs; none where nobody asks for money, or it is not known.
    fn prices(&self, _bot: &BotMachine) -> Option<Prices> {
        None
    }

    /// What a machine uses of its host now; none where that cannot be told. Costs the machine
    /// nothing.
    ///
    /// # Errors
    /// [`Fault`] of kind `NotFound` when there is no such machine.
    async fn usage(&self, _name: &str) -> Result<Option<Usage>, Fault> {
        Ok(None)
    }

    /// Runs the machine `spec.name`. One of that name that runs already is adopted.
    ///
    /// # Errors
    /// [`StartFault::Bot`] is final; a [`Fault`]'s kind says what may have happened.
    async fn ensure(&self, spec: &MachineSpec) -> Result<Started, StartFault>;

    /// A new way to the agent of a machine that runs.
    ///
    /// # Errors
    /// [`Fault`] of kind `NotFound` when there is no such machine.
    async fn connect(&self, name: &str) -> Result<Link, Fault>;

    /// Where another process of this host reaches the machine's media port: a unix socket with
    /// the hello and tunnels to the bot, and nothing else. `None` where there is no such place;
    /// the call is then carried by the dispatcher, and ends with it. Asked of names only: whether
    /// the machine runs does not matter.
    fn media_port(&self, _name: &str) -> Option<PathBuf> {
        None
    }

    /// The machine of this name is called so at its provider, as [`Made`] was told: by this process
    /// or, which is why it is said, by one before it. Costs nothing.
    fn recall(&self, _name: &str, _id: &str) {}

    /// Whether a machine of this name (`callbox_core::reserve_name`) is in reserve here, and may
    /// connect now; none if nobody wants it.
    fn keeps(&self, _name: &str) -> Option<bool> {
        None
    }

    /// Where the agents of its machines are met, if it is they who dial.
    fn arrivals(&self) -> Option<&Arrivals> {
        None
    }

    /// Ends a machine. One that is gone or never was is success.
    ///
    /// # Errors
    /// A [`Fault`]; the caller repeats until it succeeds.
    async fn destroy(&self, name: &str) -> Result<(), Fault>;

    /// Removes what calls left half made whose futures were dropped, as at a shutdown. Machines
    /// are not its business: those are destroyed by name.
    ///
    /// # Errors
    /// A [`Fault`].
    async fn tidy(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// All machines that callbox made here, whatever their state: those of other deployments too
    /// where it cannot ask for its own alone.
    ///
    /// # Errors
    /// A [`Fault`]; an incomplete list is never returned as complete.
    async fn list(&self) -> Result<Vec<Listed>, Fault>;
}
