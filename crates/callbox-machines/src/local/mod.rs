//! Machines on this host: microVMs of `callbox-microvm`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use callbox_core::{Fault, MachineFacts, StartStage, Usage};
use callbox_link::Link;
use callbox_microvm::{
    From as Origin, Host, MachineShape, Start, chain,
    image::{Image, ImageStore},
    template::Found,
};
use callbox_protocol::agent::Prepare;

/// What the command line needs of the host beside running machines.
pub use callbox_microvm::{
    Accelerator, AcceleratorChoice, CageChoice, HostConfig, Progress as HostProgress,
    doctor::{Check, checks},
    image, leftovers,
    net::{Ipv4Net, NetConfig},
};

mod fault;
mod reserve;
mod room;
mod sizing;

use crate::{
    Admission, BotMachine, Budget, BudgetConfig, Claim, Cost, ImageRun, MachineSpec, Network,
    Progress, Provider, ReserveLevel, StartFault, StartFrom, Started,
};
use fault::{fault, image_fault, start_fault};
use reserve::{Maker, Reserves};

/// The provider `local`.
#[derive(Debug)]
pub struct Local {
    host: Host,
    images: Arc<ImageStore>,
    budget: Budget,
    reserves: Reserves,
    /// What the machines that were asked for here take, by name.
    costs: Mutex<BTreeMap<String, Cost>>,
    /// What the largest machine of any bot takes.
    largest: Mutex<Cost>,
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
        Ok(Local {
            host,
            images: Arc::new(images.map_err(image_fault)?),
            budget,
            reserves: Reserves::new(),
            costs: Mutex::default(),
            largest: Mutex::default(),
        })
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

    /// The id of the template that machines of this bot are clones of, whether or not it was made.
    ///
    /// # Errors
    /// When the bot's image is not there.
    pub async fn template_of(&self, bot: &BotMachine) -> Result<Option<String>, Fault> {
        if bot.start == StartFrom::Cold {
            return Ok(None);
        }
        let (image, shape, prepare) = self.resolve(bot).await?;
        Ok(Some(self.host.template_id(&shape, &image, &prepare)))
    }

    /// The host itself, for those who look after its templates.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What `bot` is on this host: its image, the shape of its machines, the words for the agent.
    async fn resolve(&self, bot: &BotMachine) -> Result<(Image, MachineShape, Prepare), Fault> {
        let BotMachine {
            bot: _,
            image,
            memory_mib,
            vcpus,
            disk_mib,
            network,
            start: _,
            reserve: _,
            run,
        } = bot;
        let (images, name) = (Arc::clone(&self.images), image.clone());
        let image = tokio::task::spawn_blocking(move || images.get(&name));
        let image = image.await.expect("reading a manifest does not panic").map_err(image_fault)?;
        let shape = MachineShape {
            memory_mib: *memory_mib,
            vcpus: *vcpus,
            disk_mib: *disk_mib,
            network: reached(network),
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
    async fn adopt(&self, name: &str, bot: &BotMachine) -> Result<Option<Started>, Fault> {
        let Some(found) = self.host.find(name).map_err(fault)? else {
            // A destroy of that name that was cut short comes to its end; nothing else happens.
            return self.host.destroy(name).await.map(|()| None).map_err(fault);
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
                let adopted = callbox_microvm::Started { link, accelerator, stages: Vec::new() };
                Ok(Some(self.started(adopted, start, &reached(&bot.network))))
            }
            // Half made when its dispatcher died: nobody knows how far it came.
            None => self.host.destroy(name).await.map(|()| None).map_err(fault),
        }
    }

    /// A machine of the reserve, if one is ready and comes to itself.
    async fn claim(&self, bot: &str, what: &Start) -> Result<Option<Started>, StartFault> {
        let template = match &what.from {
            Origin::Cold => None,
            Origin::Clone(template) => Some(template.id()),
        };
        let Some(parked) = self.reserves.take(bot, template) else { return Ok(None) };
        match self.host.claim(parked, &what.name).await {
            Ok(claimed) => Ok(Some(self.started(claimed, "reserve", &what.shape.network))),
            Err(error) if reserve::goes_on(&error) => {
                tracing::warn!(machine.name = what.name, error = %chain(&error), "a machine of the reserve failed; starting a fresh one");
                Ok(None)
            }
            Err(error) => Err(start_fault(error)),
        }
    }

    /// What a machine of this bot is started from; its template is made if there is none.
    async fn plan_start(
        &self,
        bot: &BotMachine,
        name: &str,
        told: &dyn HostProgress,
    ) -> Result<Start, StartFault> {
        let (image, shape, prepare) = self.resolve(bot).await?;
        let from = match bot.start {
            StartFrom::Cold => Origin::Cold,
            StartFrom::Clone => {
                let template = self.host.template(&shape, &image, &prepare, told).await;
                Origin::Clone(template.map_err(start_fault)?)
            }
        };
        Ok(Start { name: name.to_owned(), from, shape, image, prepare })
    }

    fn started(
        &self,
        started: callbox_microvm::Started,
        start: &str,
        network: &callbox_microvm::Network,
    ) -> Started {
        let stages = started.stages.into_iter();
        let facts = MachineFacts {
            accelerator: started.accelerator.to_string(),
            start: start.into(),
            stages: stages.map(|(name, took)| StartStage { name: name.into(), took }).collect(),
            not_enforced: self.host.not_enforced_with(network),
        };
        Started { link: started.link, facts }
    }

    fn costs(&self) -> MutexGuard<'_, BTreeMap<String, Cost>> {
        self.costs.lock().expect("no panic while held")
    }
}

/// What a machine reaches, in the words of this host.
fn reached(network: &Network) -> callbox_microvm::Network {
    match network {
        Network::None => callbox_microvm::Network::None,
        Network::Internet { allow } => callbox_microvm::Network::Internet { allow: allow.clone() },
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
        self.plan_start(bot, "", &Told(progress)).await.map(|_| ())
    }

    async fn tend(&self, bots: &[Arc<BotMachine>]) {
        // Those of a dispatcher that died are nobody's.
        match self.host.clear_reserves().await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "removed machines that an earlier dispatcher had in reserve")
            }
            Err(error) => tracing::warn!(error = %chain(&error), "an old reserve is left over"),
        }
        let costs = bots.iter().map(|bot| self.cost(bot));
        let largest = costs.fold(Cost::default(), |most, cost| Cost {
            memory_mib: most.memory_mib.max(cost.memory_mib),
            cpus: most.cpus.max(cost.cpus),
        });
        *self.largest.lock().expect("no panic while held") = largest;
        reserve::tend(&self.reserves, bots, self).await;
    }

    fn not_enforced(&self) -> Vec<String> {
        self.host.not_enforced().to_vec()
    }

    async fn retain(&self, bots: &[Arc<BotMachine>]) -> Result<(), Fault> {
        let mut wanted = Vec::new();
        for bot in bots {
            // A bot without an image has no template either.
            wanted.extend(self.template_of(bot).await.ok().flatten());
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
        Ok(self.room_for(&next.bot, claimed))
    }

    async fn shed(&self, _next: &MachineSpec, claimed: &[Claim]) -> Result<bool, Fault> {
        let Some(parked) = self.reserves.give_up(|bot| self.spoken_for(claimed, bot)) else {
            return Ok(false);
        };
        reserve::discard(&self.host, parked).await;
        Ok(true)
    }

    fn reserves(&self) -> BTreeMap<String, ReserveLevel> {
        self.reserves.levels()
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
        let _starting = self.reserves.starting();
        self.costs().insert(name.clone(), self.cost(bot));
        if let Some(started) = self.adopt(name, bot).await? {
            return Ok(started);
        }
        let what = self.plan_start(bot, name, &()).await?;
        if let Some(started) = self.claim(&bot.bot, &what).await? {
            return Ok(started);
        }
        let start = if bot.start == StartFrom::Cold { "cold" } else { "clone" };
        let network = what.shape.network.clone();
        let machine = self.host.start(what).await.map_err(start_fault)?;
        Ok(self.started(machine, start, &network))
    }

    async fn connect(&self, name: &str) -> Result<Link, Fault> {
        self.host.connect(name).await.map_err(fault)
    }

    fn media_port(&self, name: &str) -> Option<PathBuf> {
        self.host.media_socket(name).ok()
    }

    async fn destroy(&self, name: &str) -> Result<(), Fault> {
        self.host.destroy(name).await.map_err(fault)?;
        self.costs().remove(name);
        Ok(())
    }

    async fn tidy(&self) -> Result<(), Fault> {
        for parked in self.reserves.drain() {
            reserve::discard(&self.host, parked).await;
        }
        self.host.clear_reserves().await.map_err(fault)?;
        self.host.clear_dead_bakes().await.map_err(fault)?;
        let tidied = self.host.networks().tidy().await;
        tidied.map_err(|error| fault(error.into()))
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

impl Maker for Local {
    fn host(&self) -> &Host {
        &self.host
    }

    async fn plan(&self, bot: &BotMachine) -> Result<Start, String> {
        self.plan_start(bot, "", &()).await.map_err(|error| error.to_string())
    }

    fn has_room(&self, bot: &Arc<BotMachine>) -> bool {
        self.room_in_reserve(bot)
    }
}
