//! Machines on this host: microVMs of `callbox-microvm`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use callbox_core::{Fault, FaultKind, MachineFacts, StartStage, Usage};
use callbox_link::{Link, LinkError};
use callbox_microvm::{
    Accelerator, Error, From as Origin, Host, MachineShape, Start, chain,
    image::{Image, ImageError, ImageStore},
    template::Found,
};
use callbox_protocol::agent::Prepare;

/// What the command line needs of the host beside running machines.
pub use callbox_microvm::{
    AcceleratorChoice, HostConfig, Progress as HostProgress,
    doctor::{Check, checks},
    image,
};

use crate::budget::OVERHEAD_MIB;
use crate::{
    Admission, BotMachine, Budget, BudgetConfig, Claim, Cost, ImageRun, MachineSpec, Network,
    Progress, Provider, StartFault, StartFrom, Started,
};

/// The provider `local`.
#[derive(Debug)]
pub struct Local {
    host: Host,
    images: Arc<ImageStore>,
    budget: Budget,
}

impl Local {
    /// Opens the host: finds QEMU and a kernel, tries KVM. Takes seconds the first time.
    ///
    /// # Errors
    /// What is missing on this host, in words.
    pub async fn open(config: HostConfig) -> Result<Local, Fault> {
        let host = Host::open(config).await.map_err(fault)?;
        let data_dir = host.data_dir().to_owned();
        let images = tokio::task::spawn_blocking(move || ImageStore::open(&data_dir));
        let images = images.await.expect("opening a directory does not panic");
        let budget = Budget::of_host(&BudgetConfig::default());
        Ok(Local { host, images: Arc::new(images.map_err(image_fault)?), budget })
    }

    /// With what the operator says about the host.
    #[must_use]
    pub fn with_budget(self, config: &BudgetConfig) -> Local {
        Local { budget: Budget::of_host(config), ..self }
    }

    /// What there is for all machines together.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What a machine of this bot takes, at its worst.
    fn cost(&self, bot: &BotMachine) -> Cost {
        // Under software emulation a machine has one processor, and a cache of translated code.
        let (cpus, cache) = match self.host.accelerator() {
            Accelerator::Kvm => (u64::from(bot.vcpus), 0),
            Accelerator::Tcg => (1, u64::from(self.host.translation_cache_mib())),
        };
        Cost { memory_mib: u64::from(bot.memory_mib) + cache + OVERHEAD_MIB, cpus }
    }

    /// The host itself, for those who look after its templates.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What `bot` is on this host: its image, the shape of its machines, the words for the agent.
    async fn resolve(&self, bot: &BotMachine) -> Result<(Image, MachineShape, Prepare), Fault> {
        let BotMachine { bot: _, image, memory_mib, vcpus, disk_mib, network, start: _, run } = bot;
        let (images, name) = (Arc::clone(&self.images), image.clone());
        let image = tokio::task::spawn_blocking(move || images.get(&name));
        let image = image.await.expect("reading a manifest does not panic").map_err(image_fault)?;
        let shape = MachineShape {
            memory_mib: *memory_mib,
            vcpus: *vcpus,
            disk_mib: *disk_mib,
            network: match network {
                Network::None => callbox_microvm::Network::None,
                Network::User => callbox_microvm::Network::User,
            },
        };
        let config = image.config.clone();
        let prepare = run.prepare(&ImageRun {
            argv: config.argv,
            env: config.env,
            cwd: config.cwd,
            uid: config.uid,
            gid: config.gid,
        });
        Ok((image, shape, prepare))
    }

    /// A machine of this name that runs already, from before a restart: it was awake when it was
    /// left, or it is not taken.
    async fn adopt(&self, name: &str) -> Result<Option<Started>, Fault> {
        let found = self.host.list().await.map_err(fault)?;
        let Some(found) = found.into_iter().find(|machine| machine.name == name) else {
            return Ok(None);
        };
        let accelerator = found.accelerator.filter(|_| found.alive);
        let awake = match accelerator {
            None => None,
            Some(accelerator) => match self.host.connect(name).await {
                Ok(link) => is_awake(&link).await.then_some((link, accelerator)),
                Err(_) => None,
            },
        };
        match awake {
            Some((link, accelerator)) => {
                let start = if found.template.is_some() { "clone" } else { "cold" };
                let stages = Vec::new();
                let accelerator = accelerator.to_string();
                let facts = MachineFacts { accelerator, start: start.into(), stages };
                Ok(Some(Started { link, facts }))
            }
            // Half made when its dispatcher died: nobody knows how far it came.
            None => self.host.destroy(name).await.map(|()| None).map_err(fault),
        }
    }
}

async fn is_awake(link: &Link) -> bool {
    use callbox_protocol::agent::Phase;
    let health = tokio::time::timeout(Duration::from_secs(5), link.health()).await;
    matches!(health, Ok(Ok(health)) if matches!(health.phase, Phase::Awake | Phase::InSession))
}

#[async_trait]
impl Provider for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn prepare(&self, bot: &BotMachine, progress: &dyn Progress) -> Result<(), StartFault> {
        let (image, shape, prepare) = self.resolve(bot).await?;
        match bot.start {
            StartFrom::Cold => Ok(()),
            StartFrom::Clone => {
                let told = Told(progress);
                let template = self.host.template(&shape, &image, &prepare, &told).await;
                template.map(|_| ()).map_err(start_fault)
            }
        }
    }

    async fn retain(&self, bots: &[Arc<BotMachine>]) -> Result<(), Fault> {
        let mut wanted = Vec::new();
        for bot in bots.iter().filter(|bot| bot.start == StartFrom::Clone) {
            // A bot without an image has no template either.
            let Ok((image, shape, prepare)) = self.resolve(bot).await else { continue };
            wanted.push(self.host.template_id(&shape, &image, &prepare));
        }
        for template in self.host.templates().map_err(fault)? {
            let age = SystemTime::now().duration_since(baked_at(&template)).unwrap_or_default();
            if wanted.iter().any(|id| id == template.id()) || age < UNUSED_TEMPLATES_STAY {
                continue;
            }
            self.host.remove_template(template.id()).await.map_err(fault)?;
            tracing::info!(template.id = template.id(), "removed a template that no bot uses");
        }
        Ok(())
    }

    async fn admit(&self, next: &MachineSpec, claimed: &[Claim]) -> Result<Admission, Fault> {
        let machines = claimed.iter().map(|claim| self.cost(&claim.spec.bot));
        // A template is memory too, once for all its clones.
        let bots = claimed.iter().map(|claim| &claim.spec.bot).chain([&next.bot]);
        let mut templates: Vec<&Arc<BotMachine>> = Vec::new();
        for bot in bots.filter(|bot| bot.start == StartFrom::Clone) {
            if !templates.contains(&bot) {
                templates.push(bot);
            }
        }
        let template = |bot: &Arc<BotMachine>| Cost { memory_mib: bot.memory_mib.into(), cpus: 0 };
        let held = machines.chain(templates.into_iter().map(template));
        let own = Some(&next.bot).filter(|bot| bot.start == StartFrom::Clone).map(template);
        Ok(match self.budget.admit(held, self.cost(&next.bot)) {
            Admission::Full { detail } => match self.budget.admit(own, self.cost(&next.bot)) {
                // Even alone with its template.
                Admission::Full { detail } => Admission::Never { detail },
                _ => Admission::Full { detail },
            },
            other => other,
        })
    }

    fn max_starting(&self) -> Option<usize> {
        Some(self.budget.max_starting)
    }

    async fn usage(&self, name: &str) -> Result<Option<Usage>, Fault> {
        let callbox_microvm::Usage { unique_bytes, shared_bytes, cpu } =
            self.host.usage(name).map_err(fault)?;
        Ok(Some(Usage { unique_bytes, shared_bytes, cpu }))
    }

    async fn ensure(&self, spec: &MachineSpec) -> Result<Started, StartFault> {
        let MachineSpec { name, incarnation: _, bot } = spec;
        if let Some(started) = self.adopt(name).await? {
            return Ok(started);
        }
        let (image, shape, prepare) = self.resolve(bot).await?;
        let (from, start) = match bot.start {
            StartFrom::Cold => (Origin::Cold, "cold"),
            StartFrom::Clone => {
                let template = self.host.template(&shape, &image, &prepare, &()).await;
                (Origin::Clone(template.map_err(start_fault)?), "clone")
            }
        };
        let what = Start { name: name.clone(), from, shape, image, prepare };
        let started = self.host.start(what).await.map_err(start_fault)?;
        let stages = started.stages.into_iter();
        let facts = MachineFacts {
            accelerator: started.accelerator.to_string(),
            start: start.into(),
            stages: stages.map(|(name, took)| StartStage { name: name.into(), took }).collect(),
        };
        Ok(Started { link: started.link, facts })
    }

    async fn connect(&self, name: &str) -> Result<Link, Fault> {
        self.host.connect(name).await.map_err(fault)
    }

    async fn destroy(&self, name: &str) -> Result<(), Fault> {
        self.host.destroy(name).await.map_err(fault)
    }

    async fn tidy(&self) -> Result<(), Fault> {
        self.host.clear_dead_bakes().await.map_err(fault)
    }

    async fn list(&self) -> Result<Vec<String>, Fault> {
        let machines = self.host.list().await.map_err(fault)?;
        Ok(machines.into_iter().map(|machine| machine.name).collect())
    }
}

/// A template that no bot uses any more stays so long: who goes back to yesterday's bot should
/// not wait, and disks should not fill.
const UNUSED_TEMPLATES_STAY: Duration = Duration::from_secs(24 * 60 * 60);

fn baked_at(template: &Found) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(template.facts().baked_at_ms)
}

/// One crate's progress as the other's.
struct Told<'a>(&'a dyn Progress);

impl callbox_microvm::Progress for Told<'_> {
    fn stage(&self, name: &str) {
        self.0.stage(name);
    }
}

/// What the bot did wrong is told apart from what the host did.
fn start_fault(error: Error) -> StartFault {
    match error {
        Error::Link { source: source @ LinkError::Agent { .. }, .. } => {
            StartFault::of_prepare(source)
        }
        // A bot that does not prove that it differs from its template.
        Error::Link { source: source @ LinkError::NotReseeded { .. }, .. } => {
            StartFault::Bot { detail: source.to_string(), log_tail: Vec::new() }
        }
        error => StartFault::Provider(fault(error)),
    }
}

fn fault(error: Error) -> Fault {
    let kind = match &error {
        Error::NotFound(_) => FaultKind::NotFound,
        // It may go better next time, and the session's deadline bounds how often.
        error if error.worth_a_retry() => FaultKind::Unavailable,
        _ => FaultKind::Refused,
    };
    Fault { kind, detail: chain(&error) }
}

fn image_fault(error: ImageError) -> Fault {
    Fault::refused(chain(&error))
}
