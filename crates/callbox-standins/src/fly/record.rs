//! One machine as the stand-in knows it.

use std::collections::VecDeque;
use std::time::Duration;

use callbox_fly::limits;
use callbox_fly::wire::{Event, ExitEvent, HostStatus, ImageRef, Machine, MachineConfig, State};
use fastrand::Rng;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::backend::{Boot, Exit};
use super::ids;
use super::trouble::Fate;

/// Events that are kept of one machine: as many as a call gives.
const EVENTS: usize = limits::EVENTS.1 as usize;

/// What waiters and the machine's task see of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub state: State,
    pub version: String,
    pub event: String,
    /// Goes up with each change that a call made; the task's own leave it.
    pub turn: u64,
}

#[derive(Debug)]
pub struct Record {
    pub id: String,
    pub app: String,
    pub name: String,
    pub region: String,
    pub state: State,
    pub config: MachineConfig,
    /// The versions before, oldest first.
    pub replaced: Vec<String>,
    pub version: String,
    pub private_ip: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub image_ref: ImageRef,
    pub events: VecDeque<Event>,
    pub cordoned: bool,
    pub lease: Option<Held>,
    pub host_lost: bool,
    /// Whether it is to be booted when it is built.
    pub launch: bool,
    /// Whether it ever ran.
    pub launched: bool,
    /// How the next start goes.
    pub boot: Boot,
    /// How the stop under way goes.
    pub ending: Ending,
    /// When it was tried again by its restart policy.
    pub tries: Vec<Instant>,
    /// What troubles have in store for it.
    pub fate: Fate,
    /// What it was before it was destroyed, for lists that lie.
    pub lived_as: State,
    pub turn: u64,
    pub watch: watch::Sender<Seen>,
}

/// A lease.
#[derive(Clone, Debug)]
pub struct Held {
    pub nonce: String,
    pub owner: String,
    pub description: Option<String>,
    pub expires_at: Timestamp,
}

/// How a main process is ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub signal: String,
    pub grace: Duration,
}

impl Ending {
    /// As the configuration says, where the call does not.
    pub fn of(config: &MachineConfig, signal: Option<&str>, grace: Option<Duration>) -> Ending {
        let stop = config.stop_config.clone().unwrap_or_default();
        let signal = signal.map(str::to_owned).or(stop.signal);
        let grace = grace.or(stop.timeout.map(|timeout| timeout.0));
        Ending {
            signal: signal.unwrap_or_else(|| limits::STOP_SIGNAL_DEFAULT.to_owned()),
            grace: grace.unwrap_or(limits::STOP_TIMEOUT_DEFAULT).min(limits::STOP_TIMEOUT),
        }
    }
}

impl Record {
    pub fn seen(&self) -> Seen {
        let event = self.events.front().and_then(|event| event.id.clone()).unwrap_or_default();
        Seen { state: self.state.clone(), version: self.version.clone(), event, turn: self.turn }
    }

    /// Enters a state, with an event of this kind by this source.
    pub fn enter(&mut self, state: State, kind: &str, source: &str, at: (Timestamp, &mut Rng)) {
        self.enter_with(state, kind, source, None, at);
    }

    pub fn enter_with(
        &mut self,
        state: State,
        kind: &str,
        source: &str,
        request: Option<Value>,
        (now, rng): (Timestamp, &mut Rng),
    ) {
        if self.state != State::Destroying && self.state != State::Destroyed {
            self.lived_as = self.state.clone();
        }
        self.events.push_front(Event {
            id: Some(ids::ulid(now, rng)),
            kind: kind.to_owned(),
            status: Some(state.to_string()),
            source: Some(source.to_owned()),
            timestamp: Some(now.as_millisecond()),
            request,
        });
        self.events.truncate(EVENTS);
        self.state = state;
        self.updated_at = now;
        self.watch.send_replace(self.seen());
    }

    /// As calls give it.
    pub fn shown(&self) -> Machine {
        let (config, incomplete_config) = match self.host_lost {
            false => (Some(self.config.clone()), None),
            true => (None, Some(self.config.clone())),
        };
        let host_status = if self.host_lost { HostStatus::Unreachable } else { HostStatus::Ok };
        Machine {
            config,
            incomplete_config,
            image_ref: Some(self.image_ref.clone()),
            events: self.events.iter().cloned().collect(),
            host_status: Some(host_status),
            cordoned: Some(self.cordoned),
            ..self.summary()
        }
    }

    /// Without configuration, events and the like.
    pub fn summary(&self) -> Machine {
        Machine {
            id: self.id.clone(),
            name: Some(self.name.clone()),
            state: Some(self.state.clone()),
            region: Some(self.region.clone()),
            instance_id: Some(self.version.clone()),
            version: Some(self.version.clone()),
            private_ip: Some(self.private_ip.clone()),
            created_at: Some(self.created_at.to_string()),
            updated_at: Some(self.updated_at.to_string()),
            ..Machine::default()
        }
    }

    /// Memory in MB.
    pub fn memory_mb(&self) -> u64 {
        let memory = self.config.guest.as_ref().and_then(|guest| guest.memory_mb);
        u64::from(memory.unwrap_or(256))
    }

    /// Whether it takes room on a host: suspended ones do, stopped ones do not.
    pub fn takes_room(&self) -> bool {
        !self.host_lost
            && !matches!(
                self.state,
                State::Stopped | State::Failed | State::Destroyed | State::LaunchFailed
            )
    }
}

/// `request` of an exit's event.
pub fn exit_request(exit: &Exit, requested: bool, restarting: bool, now: Timestamp) -> Value {
    let event = ExitEvent {
        exit_code: Some(exit.code),
        guest_exit_code: Some(exit.code),
        guest_signal: Some(exit.signal.unwrap_or(-1)),
        signal: Some(-1),
        oom_killed: exit.oom_killed,
        requested_stop: requested,
        restarting,
        exited_at: Some(now.to_string()),
    };
    json!({ "exit_event": event })
}
