//! What a call may ask of a machine in which state (fly.md sections 3.1, 3.4, 9).
//!
//! Each of these changes the state under the lock, or refuses; the work is the machine's task's.

use std::time::Duration;

use callbox_fly::limits;
use callbox_fly::wire::{CreateMachine, ImageRef, Machine, MachineConfig, State, UpdateMachine};
use jiff::SignedDuration;
use tokio::sync::watch;

use super::backend::{Boot, Spec};
use super::record::{Ending, Held, Record, Seen};
use super::refusal::Refusal;
use super::trouble::Fate;
use super::world::{Answer, Inner};
use super::{check, ids, place};

/// A create that was looked at and has a place.
#[derive(Debug)]
pub struct Planned {
    pub name: String,
    pub region: &'static str,
    pub config: MachineConfig,
}

impl Inner {
    /// Whether a machine can be made; nothing is changed.
    pub fn plan(
        &mut self,
        app: &str,
        request: CreateMachine,
        default_region: &str,
    ) -> Answer<Planned> {
        self.app(app)?;
        let config = check::config(request.config)?;
        let name = match request.name.filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => ids::name(&mut self.rng),
        };
        check::name(&name)?;
        if let Some(taken) = self.named(app, &name) {
            return Err(Refusal::name_taken(&taken.id, &name));
        }
        let regions = place::expand(request.region.as_deref().unwrap_or(default_region))?;
        if self.limits.machines.is_some_and(|most| self.count() >= most) {
            return Err(Refusal::machine_limit());
        }
        let memory = config.guest.as_ref().and_then(|guest| guest.memory_mb).unwrap_or_default();
        let used = |region: &str| self.used(region, None);
        let organization = &self.organization;
        let region = place::choose(&regions, memory.into(), &self.limits, used, organization)?;
        Ok(Planned { name, region, config })
    }

    /// The machine of that name which is not destroyed.
    pub fn named(&self, app: &str, name: &str) -> Option<&Record> {
        let same =
            |one: &&Record| one.app == app && one.name == name && one.state != State::Destroyed;
        self.machines.values().find(same)
    }

    /// Makes a machine's record; gives it as the call answers it.
    pub fn create(
        &mut self,
        app: &str,
        planned: Planned,
        request: &CreateMachine,
        image_ref: ImageRef,
        fate: Fate,
    ) -> Machine {
        let now = self.clock.now();
        let id = ids::machine(&mut self.rng);
        let version = ids::ulid(now, &mut self.rng);
        let seen =
            Seen { state: State::Created, version: version.clone(), event: String::new(), turn: 0 };
        let mut machine = Record {
            id: id.clone(),
            app: app.to_owned(),
            name: planned.name,
            region: planned.region.to_owned(),
            state: State::Created,
            ending: Ending::of(&planned.config, None, None),
            config: planned.config,
            replaced: Vec::new(),
            version,
            private_ip: ids::address(&mut self.rng),
            created_at: now,
            updated_at: now,
            image_ref,
            events: [].into(),
            cordoned: request.skip_service_registration.unwrap_or_default(),
            lease: None,
            host_lost: false,
            launch: !request.skip_launch.unwrap_or_default(),
            launched: false,
            boot: Boot::First,
            tries: Vec::new(),
            fate,
            lived_as: State::Created,
            turn: 0,
            watch: watch::Sender::new(seen),
        };
        machine.enter(State::Created, "launch", "user", (now, &mut self.rng));
        let mut shown = machine.shown();
        if let Some(ttl) = request.lease_ttl.filter(|ttl| *ttl > 0) {
            let held = self.held(ttl, None);
            shown.nonce = Some(held.nonce.clone());
            machine.lease = Some(held);
        }
        self.machines.insert(id, machine);
        shown
    }

    /// Another configuration. A running machine is booted anew, a resting one is booted unless
    /// the call says otherwise.
    pub fn update(
        &mut self,
        app: &str,
        id: &str,
        request: UpdateMachine,
        image_ref: ImageRef,
    ) -> Answer<Machine> {
        let config = check::config(request.config)?;
        let now = self.clock.now();
        let version = ids::ulid(now, &mut self.rng);
        let machine = self.living(app, id)?;
        if request.current_version.is_some_and(|current| current != machine.version) {
            return Err(Refusal::concurrent());
        }
        if machine.host_lost {
            return Err(Refusal::host_unreachable());
        }
        let running = machine.state == State::Started;
        if !running && !matches!(machine.state, State::Stopped | State::Suspended | State::Failed) {
            return Err(Refusal::cannot("update", &machine.state));
        }
        // A running machine is stopped as it was configured until now.
        let grace = if running { None } else { Some(Duration::ZERO) };
        machine.ending = Ending::of(&machine.config, None, grace);
        let old = std::mem::replace(&mut machine.version, version);
        machine.replaced.push(old);
        machine.config = config;
        machine.image_ref = image_ref;
        machine.boot = Boot::Cold;
        machine.tries.clear();
        machine.launch = !request.skip_launch.unwrap_or_default();
        self.turn(id, State::Replacing, "update");
        self.living(app, id).map(|machine| machine.shown())
    }

    /// A start; gives the state before.
    pub fn start(&mut self, app: &str, id: &str, cold: bool) -> Answer<State> {
        let machine = self.living(app, id)?;
        if machine.host_lost {
            return Err(Refusal::host_unreachable());
        }
        let previous = machine.state.clone();
        let boot = match previous {
            State::Stopped | State::Failed if machine.launched => Boot::Cold,
            State::Stopped | State::Failed => Boot::First,
            // A start during `suspending` breaks the suspend off (fly.md section 3.1).
            State::Suspended | State::Suspending if cold => Boot::Cold,
            State::Suspended | State::Suspending => Boot::Resume,
            _ => return Err(Refusal::cannot_start(&previous)),
        };
        let (region, takes) = (machine.region.clone(), machine.takes_room());
        if !takes && self.is_full(&region, id) {
            return Err(Refusal::no_room_on_host());
        }
        let machine = self.living(app, id)?;
        machine.boot = boot;
        machine.tries.clear();
        self.turn(id, State::Starting, "start");
        Ok(previous)
    }

    fn is_full(&self, region: &str, but: &str) -> bool {
        let limit = self.limits.regions.get(region).and_then(|limits| limits.capacity);
        limit.is_some_and(|most| self.used(region, Some(but)).machines >= most)
    }

    /// A stop. Of a stopped machine it is fine; of a suspended one it forgets the memory.
    pub fn stop(
        &mut self,
        app: &str,
        id: &str,
        signal: Option<&str>,
        grace: Option<Duration>,
    ) -> Answer<()> {
        check::signal(signal)?;
        if grace.is_some_and(|grace| grace > limits::STOP_TIMEOUT) {
            return Err(Refusal::invalid("timeout is more than 5m0s"));
        }
        let machine = self.living(app, id)?;
        if machine.host_lost {
            return Err(Refusal::host_unreachable());
        }
        match machine.state {
            State::Stopped | State::Failed | State::Stopping => return Ok(()),
            State::Started
            | State::Starting
            | State::Restarting
            | State::Suspended
            | State::Suspending => {}
            _ => return Err(Refusal::cannot("stop", &machine.state)),
        }
        // What stands still hears no signal.
        let grace = if machine.state == State::Suspended { Some(Duration::ZERO) } else { grace };
        machine.ending = Ending::of(&machine.config, signal, grace);
        self.turn(id, State::Stopping, "stop");
        Ok(())
    }

    /// A restart; of a stopped machine, a start.
    pub fn restart(
        &mut self,
        app: &str,
        id: &str,
        signal: Option<&str>,
        grace: Option<Duration>,
    ) -> Answer<()> {
        check::signal(signal)?;
        let machine = self.living(app, id)?;
        if machine.host_lost {
            return Err(Refusal::host_unreachable());
        }
        match machine.state {
            State::Started => {
                machine.ending = Ending::of(&machine.config, signal, grace);
                machine.boot = Boot::Cold;
                self.turn(id, State::Restarting, "restart");
                Ok(())
            }
            State::Stopped => self.start(app, id, true).map(|_| ()),
            _ => Err(Refusal::cannot("restart", &machine.state)),
        }
    }

    /// A suspend; `fits` is the backend's word on it.
    pub fn suspend(&mut self, app: &str, id: &str, fits: Result<(), String>) -> Answer<()> {
        let machine = self.living(app, id)?;
        if machine.host_lost {
            return Err(Refusal::host_unreachable());
        }
        match machine.state {
            State::Suspended | State::Suspending => return Ok(()),
            State::Started => {}
            _ => return Err(Refusal::cannot("suspend", &machine.state)),
        }
        let memory = machine.memory_mb();
        let swap = machine.config.init.as_ref().and_then(|init| init.swap_size_mb);
        let not = |why: &str| Refusal::new(412, format!("failed_precondition: {why}"));
        if memory > u64::from(limits::SUSPEND_MEMORY_MB) {
            return Err(not("machines with more than 2048 MB of memory cannot be suspended"));
        }
        if swap.is_some_and(|swap| swap > 0) {
            return Err(not("machines with swap cannot be suspended"));
        }
        if machine.config.other.get("schedule").is_some_and(|schedule| !schedule.is_null()) {
            return Err(not("machines with a schedule cannot be suspended"));
        }
        fits.map_err(|why| not(&why))?;
        self.turn(id, State::Suspending, "suspend");
        Ok(())
    }

    /// A destroy; of one that is being destroyed it is fine.
    pub fn destroy(&mut self, app: &str, id: &str, force: bool) -> Answer<()> {
        let machine = self.living(app, id)?;
        let resting = matches!(
            machine.state,
            State::Created | State::Stopped | State::Suspended | State::Failed
        );
        if machine.state.is_gone() {
            return Ok(());
        }
        if !resting && !force {
            return Err(Refusal::still_running());
        }
        self.turn(id, State::Destroying, "destroy");
        Ok(())
    }

    /// A lease of so many seconds from now on.
    pub fn held(&mut self, ttl: i64, description: Option<String>) -> Held {
        let nonce = ids::secret(&mut self.rng);
        let owner = format!("{}@tokens.fly.io", &nonce[..8]);
        Held { nonce, owner, description, expires_at: self.until(ttl) }
    }

    pub fn until(&self, ttl: i64) -> jiff::Timestamp {
        let now = self.clock.now();
        now.checked_add(SignedDuration::from_secs(ttl)).unwrap_or(jiff::Timestamp::MAX)
    }

    /// Whether whoever shows `nonce` may change the machine.
    pub fn may_change(&mut self, app: &str, id: &str, nonce: Option<&str>) -> Answer<()> {
        let now = self.clock.now();
        let machine = self.machine(app, id)?;
        machine.lease.take_if(|held| held.expires_at <= now);
        match &machine.lease {
            Some(held) if nonce != Some(held.nonce.as_str()) => {
                Err(Refusal::lease_held(id, &held.owner, &held.expires_at.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    /// As its backend must know it.
    pub fn spec(&self) -> Spec {
        Spec {
            id: self.id.clone(),
            app: self.app.clone(),
            name: self.name.clone(),
            region: self.region.clone(),
            version: self.version.clone(),
            private_ip: self.private_ip.clone(),
            config: self.config.clone(),
        }
    }
}
