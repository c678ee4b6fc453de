//! Machines on this host: microVMs of `callbox-microvm`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use callbox_core::{Fault, MachineFacts, StartStage, Usage};
use callbox_link::Link;
use callbox_microvm::{From as Origin, Host, Parked, Start, chain, image::ImageStore};
use tokio::sync::watch;

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
mod versions;

use crate::{
    Admission, BotMachine, BotVersion, Budget, BudgetConfig, Claims, Cost, Listed, MachineSpec,
    Network, Progress, Provider, Reserve, StartFault, StartFrom, Started,
    reserve::{Reserves, tend},
};
use fault::{fault, image_fault, start_fault};

/// The provider `local`.
#[derive(Debug)]
pub struct Local {
    host: Host,
    images: Arc<ImageStore>,
    budget: Budget,
    reserves: Reserves<Parked>,
    strays: reserve::Strays,
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
            strays: reserve::Strays::default(),
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

    /// The host itself, for those who look after its templates.
    pub fn host(&self) -> &Host {
        &self.host
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
    async fn claim(&self, bot: &BotVersion, what: &Start) -> Result<Option<Started>, StartFault> {
        let template = match &what.from {
            Origin::Cold => None,
            Origin::Clone(template) => Some(template.id()),
        };
        let Some(parked) = self.reserves.take(bot, |parked| parked.template() == template) else {
            return Ok(None);
        };
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
        BotVersion { bot, version }: &BotVersion,
        name: &str,
        told: &dyn HostProgress,
    ) -> Result<Start, StartFault> {
        let (image, shape, prepare) = self.resolve(bot, version.as_deref()).await?;
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
            price: None,
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

    async fn version(&self, bot: &BotMachine) -> Result<Option<String>, Fault> {
        Ok(Some(self.image(&bot.image, None).await?.version()))
    }

    fn on_this_host(&self) -> bool {
        true
    }

    async fn prepare(&self, bot: &BotVersion, progress: &dyn Progress) -> Result<(), StartFault> {
        self.plan_start(bot, "", &Told(progress)).await.map(|_| ())
    }

    async fn filled(&self, bot: &BotVersion) -> Result<(), StartFault> {
        let filled = self.reserves.filled(bot).await;
        filled.map_err(|detail| StartFault::Provider(Fault::refused(detail)))
    }

    async fn tend(&self, bots: watch::Receiver<Vec<BotVersion>>) {
        // Those of a dispatcher that died are nobody's.
        match self.host.clear_reserves().await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "removed machines that an earlier dispatcher had in reserve")
            }
            Err(error) => tracing::warn!(error = %chain(&error), "an old reserve is left over"),
        }
        // Versions of a bot cost the same.
        let largest = bots.borrow().iter().map(|one| self.cost(&one.bot)).fold(
            Cost::default(),
            |most, cost| Cost {
                memory_mib: most.memory_mib.max(cost.memory_mib),
                cpus: most.cpus.max(cost.cpus),
            },
        );
        *self.largest.lock().expect("no panic while held") = largest;
        tend(&self.reserves, bots, self).await;
    }

    fn not_enforced(&self) -> Vec<String> {
        self.host.not_enforced().to_vec()
    }

    async fn retain(&self, used: &[BotVersion]) -> Result<(), Fault> {
        self.remove_unused(used).await
    }

    async fn retire(&self, gone: &BotVersion, used: &[BotVersion]) -> Result<(), Fault> {
        self.remove_version(gone, used).await
    }

    fn admit(&self, next: &MachineSpec, claimed: &Claims) -> Result<Admission, Fault> {
        Ok(self.room_for(next, claimed))
    }

    async fn shed(&self, _next: &MachineSpec, claimed: &Claims) -> Result<bool, Fault> {
        let Some(parked) = self.reserves.give_up(|bot| self.spoken_for(claimed, bot)) else {
            return Ok(false);
        };
        reserve::discard(&self.host, parked).await;
        Ok(true)
    }

    fn reserves(&self) -> Vec<Reserve> {
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
        // A local machine's name is all that it is called by.
        let MachineSpec { name, incarnation: _, bot, version, made: _ } = spec;
        let _starting = self.reserves.starting();
        self.costs().insert(name.clone(), self.cost(bot));
        if let Some(started) = self.adopt(name, bot).await? {
            return Ok(started);
        }
        let wanted = BotVersion { bot: Arc::clone(bot), version: version.clone() };
        let what = self.plan_start(&wanted, name, &()).await?;
        if let Some(started) = self.claim(&wanted, &what).await? {
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

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let machines = self.host.list().await.map_err(fault)?;
        // What is in our data directory is ours, and is there.
        Ok(machines.into_iter().map(|machine| Listed::here(machine.name)).collect())
    }
}

/// One crate's progress as the other's.
struct Told<'a>(&'a dyn Progress);

impl callbox_microvm::Progress for Told<'_> {
    fn stage(&self, name: &str) {
        self.0.stage(name);
    }
}
