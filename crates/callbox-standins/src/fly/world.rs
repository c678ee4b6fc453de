//! Apps and machines, behind one lock that is never held while anything is awaited.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use callbox_fly::wire::{ErrorBody, State};
use fastrand::Rng;
use jiff::Timestamp;
use tokio::sync::watch;

use super::calls::Calls;
use super::clock::Clock;
use super::place::Used;
use super::rates::Rates;
use super::record::{Record, Seen};
use super::refusal::Refusal;
use super::settings::{Limits, Settings};
use super::trouble::Troubles;

/// Destroyed machines that are still known: `include_deleted` shows them.
const REMEMBERED: usize = 1000;

#[derive(Debug)]
pub struct World {
    settings: Settings,
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
pub struct Inner {
    pub apps: BTreeMap<String, App>,
    pub machines: BTreeMap<String, Record>,
    /// Destroyed machines, in that order.
    gone: VecDeque<String>,
    pub limits: Limits,
    pub rates: Rates,
    pub troubles: Troubles,
    pub calls: Calls,
    pub rng: Rng,
    pub clock: Clock,
    pub organization: String,
}

#[derive(Clone, Debug)]
pub struct App {
    pub id: String,
    pub name: String,
    pub network: Option<String>,
}

impl World {
    pub fn new(settings: Settings) -> World {
        let mut rng = Rng::with_seed(settings.seed);
        let clock = Clock::start();
        let apps = settings.apps.iter().map(|name| (name.clone(), App::new(name, &mut rng)));
        let inner = Inner {
            apps: apps.collect(),
            machines: BTreeMap::new(),
            gone: VecDeque::new(),
            limits: settings.limits.clone(),
            rates: Rates::default(),
            troubles: Troubles::default(),
            calls: Calls::default(),
            rng,
            clock,
            organization: settings.organization.clone(),
        };
        World { settings, clock, inner: Mutex::new(inner) }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }
}

impl App {
    pub fn new(name: &str, rng: &mut Rng) -> App {
        App { id: format!("app_{:012x}", rng.u64(..1 << 48)), name: name.to_owned(), network: None }
    }
}

impl Inner {
    /// The app, or that there is none.
    pub fn app(&self, name: &str) -> Result<&App, Refusal> {
        self.apps.get(name).ok_or_else(Refusal::no_app)
    }

    /// The machine of that app, destroyed or not.
    pub fn machine(&mut self, app: &str, id: &str) -> Result<&mut Record, Refusal> {
        self.app(app)?;
        let machine = self.machines.get_mut(id).filter(|machine| machine.app == app);
        machine.ok_or_else(Refusal::no_machine)
    }

    /// The machine of that app, if it can still be asked for anything.
    pub fn living(&mut self, app: &str, id: &str) -> Result<&mut Record, Refusal> {
        let machine = self.machine(app, id)?;
        if machine.state == State::Destroyed { Err(Refusal::no_machine()) } else { Ok(machine) }
    }

    /// Enters a state for a call: whoever works for the machine looks anew.
    pub fn turn(&mut self, id: &str, state: State, kind: &str) {
        self.change(id, state, kind, "user", true, None);
    }

    /// Enters a state that came by itself.
    pub fn enter(&mut self, id: &str, state: State, kind: &str) {
        self.change(id, state, kind, "flyd", false, None);
    }

    /// Enters a state that came by itself, with details.
    pub fn enter_with(&mut self, id: &str, state: State, kind: &str, request: serde_json::Value) {
        self.change(id, state, kind, "flyd", false, Some(request));
    }

    fn change(
        &mut self,
        id: &str,
        state: State,
        kind: &str,
        source: &str,
        turn: bool,
        request: Option<serde_json::Value>,
    ) {
        let now = self.clock.now();
        let Some(machine) = self.machines.get_mut(id) else { return };
        if turn {
            machine.turn += 1;
        }
        let destroyed = state == State::Destroyed;
        machine.enter_with(state, kind, source, request, (now, &mut self.rng));
        if destroyed {
            machine.lease = None;
            self.gone.push_back(id.to_owned());
            while self.gone.len() > REMEMBERED {
                if let Some(oldest) = self.gone.pop_front() {
                    self.machines.remove(&oldest);
                }
            }
        }
    }

    /// Machines that count against the organisation's cap: all that are not gone.
    pub fn count(&self) -> u32 {
        let gone = |state: &State| matches!(state, State::Destroyed | State::LaunchFailed);
        let living = self.machines.values().filter(|machine| !gone(&machine.state)).count();
        u32::try_from(living).unwrap_or(u32::MAX)
    }

    /// What a region is used for, without one machine.
    pub fn used(&self, region: &str, but: Option<&str>) -> Used {
        let takes = |machine: &&Record| {
            machine.region == region && machine.takes_room() && but != Some(machine.id.as_str())
        };
        self.machines.values().filter(takes).fold(Used::default(), |used, machine| Used {
            machines: used.machines + 1,
            memory_mb: used.memory_mb + machine.memory_mb(),
        })
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.rates = Rates::default();
    }

    /// Loses the host of a machine; whether there is such a machine.
    pub fn lose_host(&mut self, id: &str) -> bool {
        let Some(machine) = self.machines.get_mut(id) else { return false };
        if machine.state == State::Destroyed {
            return false;
        }
        machine.host_lost = true;
        machine.turn += 1;
        machine.watch.send_replace(machine.seen());
        true
    }

    pub fn destroy_all(&mut self) {
        let living = self.machines.values().filter(|machine| !machine.state.is_gone());
        let ids: Vec<String> = living.map(|machine| machine.id.clone()).collect();
        for id in ids {
            self.turn(&id, State::Destroying, "destroy");
        }
    }

    pub fn watches(&self) -> Vec<watch::Receiver<Seen>> {
        self.machines.values().map(|machine| machine.watch.subscribe()).collect()
    }
}

/// An answer with a status of its own and a body of an error.
pub type Answer<T> = Result<T, Refusal>;

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> ErrorBody {
        refusal.body
    }
}
