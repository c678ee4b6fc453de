//! A provider that does what a script says: machines in memory, each a fake agent.
//!
//! Everything above a provider is tested with it, and `provider = "fake"` in a configuration runs
//! a whole dispatcher on a machine that has no QEMU.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use callbox_core::{Fault, MachineFacts, StartStage, Usage};
use callbox_link::{Link, fake::FakeAgent, fresh_wake};
use callbox_protocol::agent::Phase;
use tokio::{sync::watch, time::Instant};

use crate::{
    Admission, BotMachine, BotVersion, Claims, ImageRun, Listed, MachineSpec, Prices, Progress,
    Provider, Reserve, ReserveLevel, StartFault, Started,
};

/// What the fake does when it is asked. Can be changed while it runs.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// How long a machine takes to start.
    pub start_takes: Duration,
    /// `ensure` fails like this before anything is made.
    pub ensure_fails: Option<StartFault>,
    /// `ensure` makes the machine and then says that it does not know.
    pub ensure_loses_answer: bool,
    /// `ensure` waits until [`FakeProvider::release`].
    pub ensure_held: bool,
    /// So many machines have room; the reserve counts. None: any number.
    pub room: Option<usize>,
    /// Machines are asked for too fast.
    pub too_fast: bool,
    /// So many machines may start at once. None: any number.
    pub max_starting: Option<usize>,
    /// So many machines are in reserve, for whichever bot comes; taken by `ensure` and `shed`.
    pub reserve: usize,
    /// So many machines are in reserve for a bot that nobody asks for; taken by `shed`.
    pub reserve_for_others: usize,
    /// The version that every bot's image has now; none: there are no versions.
    pub version: Option<String>,
    /// `version` fails like this.
    pub version_fails: Option<Fault>,
    /// `prepare` waits until [`FakeProvider::release`].
    pub prepare_held: bool,
    /// `prepare` fails like this.
    pub prepare_fails: Option<StartFault>,
    /// `filled` fails like this.
    pub fill_fails: Option<StartFault>,
    /// What each machine costs, and what one in reserve does; none: nothing.
    pub prices: Option<Prices>,
    /// What each machine uses; none: it cannot be told.
    pub usage: Option<Usage>,
    /// `destroy` waits until [`FakeProvider::release`].
    pub destroy_held: bool,
    /// So many calls of `destroy` fail before one succeeds.
    pub destroy_failures: u32,
    /// Nobody but the dispatcher that made a machine reaches it.
    pub on_this_host: bool,
    /// What `ensure` says that it calls a machine, as soon as it has made it: this and its name.
    pub calls_machines: Option<String>,
    /// `connect` fails like this.
    pub connect_fails: Option<Fault>,
    /// `connect` is never answered.
    pub connect_silent: bool,
    /// So many calls of `destroy` are never answered, and do nothing.
    pub destroy_silences: u32,
    /// `list` is never answered.
    pub list_silent: bool,
    /// `usage` is never answered.
    pub usage_silent: bool,
    /// `list` fails like this.
    pub list_fails: Option<Fault>,
    /// `list` says this, whatever there is.
    pub lists: Option<Vec<Listed>>,
    /// `ensure` makes the machine and then fails like this, once.
    pub fails_when_made: Option<Fault>,
    /// How the agents of new machines behave.
    pub agent: callbox_link::fake::Script,
}

/// See the module's documentation.
#[derive(Default)]
pub struct FakeProvider {
    script: Mutex<Script>,
    machines: Mutex<BTreeMap<String, FakeAgent>>,
    /// The version that each machine was made of, by name.
    versions: Mutex<BTreeMap<String, Option<String>>>,
    /// The versions that were retired.
    retired: Mutex<Vec<Option<String>>>,
    tended: Mutex<Option<watch::Receiver<Vec<BotVersion>>>>,
    released: watch::Sender<bool>,
    made: watch::Sender<usize>,
    by_name: Mutex<BTreeMap<String, usize>>,
    starting: Mutex<Starting>,
    /// The most machines that one session ever had at once.
    most_of_one: Mutex<usize>,
}

/// How many starts are under way, and how many ever were at once.
#[derive(Default)]
struct Starting {
    now: usize,
    most: usize,
}

/// A start that is under way until this is dropped, as a cancelled one is.
struct UnderWay<'a>(&'a FakeProvider);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.starting.lock().expect("no panic while held").now -= 1;
    }
}

impl FakeProvider {
    /// With a script.
    pub fn new(script: Script) -> FakeProvider {
        FakeProvider { script: Mutex::new(script), ..FakeProvider::default() }
    }

    /// Changes the script for what comes next.
    pub fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script());
    }

    /// Lets every held `ensure` and `destroy` go on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// The agent of a machine that runs.
    pub fn agent(&self, name: &str) -> Option<FakeAgent> {
        self.machines().get(name).cloned()
    }

    /// Has `list` say this from now on, whatever there is.
    pub fn lists_only(&self, lists: Vec<Listed>) {
        self.script().lists = Some(lists);
    }

    /// The names of the machines that run.
    pub fn names(&self) -> Vec<String> {
        self.machines().keys().cloned().collect()
    }

    /// The version that a machine was made of, also after its end.
    pub fn version_of(&self, name: &str) -> Option<String> {
        self.versions.lock().expect("no panic while held").get(name).cloned().flatten()
    }

    /// The versions that were retired, in order.
    pub fn retired(&self) -> Vec<Option<String>> {
        self.retired.lock().expect("no panic while held").clone()
    }

    /// The versions of this bot whose reserves shall be filled now.
    pub fn tended(&self, bot: &str) -> Vec<Option<String>> {
        let tended = self.tended.lock().expect("no panic while held");
        let bots = tended.iter().flat_map(|bots| bots.borrow().clone());
        bots.filter(|one| one.bot.bot == bot).map(|one| one.version).collect()
    }

    /// How many machines were ever made.
    pub fn made(&self) -> usize {
        *self.made.borrow()
    }

    /// How many machines one session ever had at once.
    pub fn most_of_one_session(&self) -> usize {
        *self.most_of_one.lock().expect("no panic while held")
    }

    /// How often a machine of each name was made. One that is there is adopted, never made again.
    pub fn made_by_name(&self) -> BTreeMap<String, usize> {
        self.by_name.lock().expect("no panic while held").clone()
    }

    /// How many starts were ever under way at once.
    pub fn most_starting(&self) -> usize {
        self.starting.lock().expect("no panic while held").most
    }

    fn begin(&self) -> UnderWay<'_> {
        let mut starting = self.starting.lock().expect("no panic while held");
        starting.now += 1;
        starting.most = starting.most.max(starting.now);
        UnderWay(self)
    }

    async fn until_released(&self) {
        let mut released = self.released.subscribe();
        released.wait_for(|released| *released).await.expect("the sender lives in self");
    }

    /// The machine dies: its connections are cut and it is gone.
    pub fn kill(&self, name: &str) {
        if let Some(agent) = self.machines().remove(name) {
            agent.cut();
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no panic while held")
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<String, FakeAgent>> {
        self.machines.lock().expect("no panic while held")
    }

    /// How many were admitted and have not taken their machine yet.
    fn taking(&self, claimed: &Claims) -> usize {
        let machines = self.machines();
        claimed.starting().filter(|spec| !machines.contains_key(&spec.name)).count()
    }

    /// The machine, and what it started from.
    async fn make(
        &self,
        MachineSpec { name, version, made, .. }: &MachineSpec,
        script: Script,
    ) -> Result<(FakeAgent, &'static str), Fault> {
        if let Some(agent) = self.agent(name) {
            return Ok((agent, "fake"));
        }
        tokio::time::sleep(script.start_takes).await;
        let from = {
            let mut script = self.script();
            let from = if script.reserve > 0 { "reserve" } else { "fake" };
            script.reserve = script.reserve.saturating_sub(1);
            from
        };
        let agent = {
            let mut machines = self.machines();
            // Another dispatcher may have asked for it meanwhile: names are unique.
            if let Some(agent) = machines.get(name) {
                return Ok((agent.clone(), "fake"));
            }
            let agent = FakeAgent::new(script.agent);
            machines.insert(name.to_owned(), agent.clone());
            // A session's machines stand together; all others are none of its business.
            let session = name.rfind('-').map_or(name.as_str(), |dash| &name[..=dash]);
            let from_it = machines.range(session.to_owned()..);
            let of_one = from_it.take_while(|(other, _)| other.starts_with(session)).count();
            let mut most = self.most_of_one.lock().expect("no panic while held");
            *most = of_one.max(*most);
            agent
        };
        self.versions.lock().expect("no panic while held").insert(name.clone(), version.clone());
        self.made.send_modify(|made| *made += 1);
        *self.by_name.lock().expect("no panic while held").entry(name.to_owned()).or_default() += 1;
        if let Some(prefix) = &script.calls_machines {
            made.tell(&format!("{prefix}{name}"));
        }
        if script.fails_when_made.is_some()
            && let Some(fault) = self.script().fails_when_made.take()
        {
            return Err(fault);
        }
        if script.ensure_loses_answer {
            self.script().ensure_loses_answer = false;
            return Err(Fault::unknown("the fake provider was told to lose its answer"));
        }
        Ok((agent, from))
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn on_this_host(&self) -> bool {
        self.script().on_this_host
    }

    async fn version(&self, _bot: &BotMachine) -> Result<Option<String>, Fault> {
        let Script { version, version_fails, .. } = self.script().clone();
        version_fails.map_or(Ok(version), Err)
    }

    async fn prepare(&self, _bot: &BotVersion, progress: &dyn Progress) -> Result<(), StartFault> {
        progress.stage("nothing to prepare");
        if self.script().prepare_held {
            self.until_released().await;
        }
        self.script().prepare_fails.clone().map_or(Ok(()), Err)
    }

    async fn tend(&self, bots: watch::Receiver<Vec<BotVersion>>) {
        *self.tended.lock().expect("no panic while held") = Some(bots);
        std::future::pending().await
    }

    async fn filled(&self, _bot: &BotVersion) -> Result<(), StartFault> {
        self.script().fill_fails.clone().map_or(Ok(()), Err)
    }

    async fn retire(&self, gone: &BotVersion, _used: &[BotVersion]) -> Result<(), Fault> {
        self.retired.lock().expect("no panic while held").push(gone.version.clone());
        Ok(())
    }

    fn admit(&self, _next: &MachineSpec, claimed: &Claims) -> Result<Admission, Fault> {
        let Script { room, reserve, reserve_for_others: others, too_fast, .. } = *self.script();
        let granted = match too_fast {
            true => Admission::Later { detail: "one after the other".into() },
            false => Admission::Granted,
        };
        let taking = if reserve > 0 { self.taking(claimed) } else { 0 };
        let claimed = claimed.count();
        let Some(room) = room else {
            return Ok(if taking < reserve { Admission::Prepared } else { granted });
        };
        let detail = format!("{} of {room} places are taken", claimed + reserve + others);
        Ok(match claimed {
            _ if taking < reserve => Admission::Prepared,
            _ if room == 0 => Admission::Never { detail },
            claimed if claimed + reserve - reserve.min(taking) + others < room => granted,
            _ => Admission::Full { detail },
        })
    }

    async fn shed(&self, _next: &MachineSpec, claimed: &Claims) -> Result<bool, Fault> {
        let taking = self.taking(claimed);
        let mut script = self.script();
        if script.reserve_for_others > 0 {
            script.reserve_for_others -= 1;
        } else if script.reserve > taking {
            script.reserve -= 1;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn max_starting(&self) -> Option<usize> {
        self.script().max_starting
    }

    fn reserves(&self) -> Vec<Reserve> {
        let Script { reserve, reserve_for_others, version, .. } = self.script().clone();
        let levels = [("parrot", reserve), ("others", reserve_for_others)].into_iter();
        levels
            .filter(|(_, ready)| *ready > 0)
            .map(|(bot, ready)| Reserve {
                bot: bot.to_owned(),
                version: version.clone(),
                level: ReserveLevel { ready, target: ready },
            })
            .collect()
    }

    fn prices(&self, _bot: &BotMachine) -> Option<Prices> {
        self.script().prices.clone()
    }

    async fn usage(&self, name: &str) -> Result<Option<Usage>, Fault> {
        if self.script().usage_silent {
            return std::future::pending().await;
        }
        self.agent(name).ok_or_else(|| Fault::not_found("no such fake machine"))?;
        Ok(self.script().usage)
    }

    async fn ensure(&self, spec: &MachineSpec) -> Result<Started, StartFault> {
        let MachineSpec { name, bot, .. } = spec;
        let _under_way = self.begin();
        let began = Instant::now();
        let script = self.script().clone();
        if script.ensure_held {
            self.until_released().await;
        }
        if let Some(fault) = script.ensure_fails.clone() {
            return Err(fault);
        }
        let (agent, from) = self.make(spec, script).await?;
        let link = Link::open(agent.carrier()).await.map_err(Fault::unavailable)?;
        let facts = |stages| MachineFacts {
            accelerator: "none".into(),
            start: from.into(),
            stages,
            not_enforced: Vec::new(),
            price: self.script().prices.clone().map(|prices| prices.machine),
        };
        let health = link.health().await.map_err(Fault::unavailable)?;
        if matches!(health.phase, Phase::Awake | Phase::InSession) {
            return Ok(Started { link, facts: facts(Vec::new()) });
        }
        // A dispatcher that died may have come so far.
        if health.phase != Phase::Prepared {
            let prepare = bot.run.prepare(&ImageRun::default());
            link.prepare(&prepare).await.map_err(StartFault::of_prepare)?;
        }
        let awake = Instant::now();
        link.wake(&fresh_wake(name)).await.map_err(Fault::refused)?;
        let stage = |name: &str, took| StartStage { name: name.into(), took };
        let stages = vec![stage("machine", awake - began), stage("wake", awake.elapsed())];
        Ok(Started { link, facts: facts(stages) })
    }

    async fn connect(&self, name: &str) -> Result<Link, Fault> {
        let Script { connect_fails, connect_silent, .. } = self.script().clone();
        if let Some(fault) = connect_fails {
            return Err(fault);
        }
        let agent = self.agent(name).ok_or_else(|| Fault::not_found("no such fake machine"))?;
        if connect_silent {
            return std::future::pending().await;
        }
        Link::open(agent.carrier()).await.map_err(Fault::unavailable)
    }

    async fn destroy(&self, name: &str) -> Result<(), Fault> {
        if self.script().destroy_held {
            self.until_released().await;
        }
        let silent = {
            let mut script = self.script();
            let silent = script.destroy_silences > 0;
            script.destroy_silences = script.destroy_silences.saturating_sub(1);
            silent
        };
        if silent {
            return std::future::pending().await;
        }
        {
            let mut script = self.script();
            if script.destroy_failures > 0 {
                script.destroy_failures -= 1;
                return Err(Fault::unavailable("the fake provider was told to fail"));
            }
        }
        self.kill(name);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let Script { lists, list_fails, list_silent, .. } = self.script().clone();
        if list_silent {
            return std::future::pending().await;
        }
        let machines = || self.names().into_iter().map(Listed::here).collect();
        list_fails.map_or_else(|| Ok(lists.unwrap_or_else(machines)), Err)
    }
}
