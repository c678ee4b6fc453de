//! The world outside the dispatchers: what there is in it, what goes wrong with it, and a record
//! of all that happened.

pub mod carrier;
pub mod database;
pub mod facts;
pub mod front;
pub mod machines;
pub mod provider;
pub mod rooms;
pub mod rows;
pub mod trace;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use callbox_core::{Session, SessionId, Time};
use callbox_server::store::Memory;
use tokio::{sync::watch, time::Instant};

use crate::{determinism::BEGINNING, dice::Dice, dispatcher::Door, weather::Weather};
use facts::Facts;
use machines::Machine;
use rooms::Room;
use trace::Trace;

/// Something that must never be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// In one word, for tables.
    pub what: &'static str,
    /// With names.
    pub detail: String,
}

/// See the module's documentation.
pub struct World {
    /// What goes wrong here.
    pub weather: Weather,
    /// Where sessions are kept.
    pub store: Memory,
    began: Instant,
    /// Told when anything changed that somebody may wait for.
    changed: watch::Sender<()>,
    inner: Mutex<Inner>,
}

/// What is behind the lock.
pub struct Inner {
    /// Chance, for what happens outside.
    pub dice: Dice,
    /// How often each thing happened.
    pub counts: BTreeMap<String, u64>,
    /// What happened last, and a hash of all of it.
    pub trace: Trace,
    /// The storm is over: nothing goes wrong any more.
    pub calm: bool,
    /// What must never be, and was.
    pub violations: Vec<Violation>,
    /// What runs, or is being made, by name.
    pub machines: BTreeMap<String, Machine>,
    /// Machines that are gone: lists may still tell of them.
    pub gone: Vec<(Instant, u64, String)>,
    /// The rooms that exist.
    pub rooms: BTreeMap<SessionId, Room>,
    /// Every row, as it was written last.
    pub rows: BTreeMap<SessionId, Session>,
    /// What the world did to each session.
    pub facts: BTreeMap<SessionId, Facts>,
    /// Where each replica can be asked, while it serves.
    pub doors: Vec<Option<Door>>,
    /// When the store last heard of each replica.
    pub heard_of: BTreeMap<String, Instant>,
    /// Since when nothing that matters to everybody has been wrong.
    pub healthy_since: Instant,
    /// The store answers nobody until then.
    pub store_away_until: Instant,
    /// Until then the provider can do nothing.
    pub provider_away_until: Instant,
    /// Dispatchers that were told to end their sessions and themselves.
    pub ending: BTreeSet<String>,
    /// What was reported already.
    pub reported: BTreeSet<String>,
}

impl World {
    /// With this weather, and nothing in it.
    pub fn new(weather: Weather, dice: Dice, loud: bool) -> Arc<World> {
        let now = Instant::now();
        let doors = (0..weather.replicas).map(|_| None).collect();
        let inner = Inner {
            dice,
            counts: BTreeMap::new(),
            trace: Trace::new(loud),
            calm: false,
            violations: Vec::new(),
            machines: BTreeMap::new(),
            gone: Vec::new(),
            rooms: BTreeMap::new(),
            rows: BTreeMap::new(),
            facts: BTreeMap::new(),
            doors,
            heard_of: BTreeMap::new(),
            healthy_since: now,
            store_away_until: now,
            provider_away_until: now,
            ending: BTreeSet::new(),
            reported: BTreeSet::new(),
        };
        Arc::new(World {
            weather,
            store: Memory::default(),
            began: now,
            changed: watch::Sender::new(()),
            inner: Mutex::new(inner),
        })
    }

    /// What is behind the lock; never held across an await.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic while held")
    }

    /// How long the world has been.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The true time.
    pub fn now(&self) -> Time {
        let beginning = i64::try_from(BEGINNING / 1000).expect("it is in the range of times");
        Time::from_micros(beginning).after(self.age())
    }

    /// The true time at a moment that has passed.
    pub fn at(&self, moment: Instant) -> Time {
        let ago = i64::try_from(moment.elapsed().as_micros()).unwrap_or(i64::MAX);
        Time::from_micros(self.now().as_micros() - ago)
    }

    /// Counts something, and writes it down.
    pub fn note(&self, what: &str, detail: impl FnOnce() -> String) {
        let age = self.age();
        self.inner().note(age, what, detail);
    }

    /// Says that something must never be, and is.
    pub fn violation(&self, what: &'static str, detail: String) {
        let age = self.age();
        self.inner().violation(age, what, detail);
    }

    /// Something changed.
    pub fn tell(&self) {
        self.changed.send_replace(());
    }

    /// Resolves when something changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// A throw of the dice; never in a world at peace.
    pub fn happens(&self, probability: f64) -> bool {
        let mut inner = self.inner();
        !inner.calm && probability > 0.0 && inner.dice.happens(probability)
    }

    /// How long a call takes here that typically takes so long.
    pub fn latency(&self, typical_ms: f64) -> Duration {
        let mut inner = self.inner();
        let slow = if inner.calm { 1.0 } else { self.weather.slow };
        inner.dice.latency(typical_ms * slow)
    }

    /// Something happened after which one must wait before one may expect anything.
    pub fn upset(&self) {
        self.upset_until(Instant::now());
    }

    /// Until then one may not expect anything.
    pub fn upset_until(&self, end: Instant) {
        let mut inner = self.inner();
        inner.healthy_since = inner.healthy_since.max(end);
    }
}

impl Inner {
    /// Counts something, and writes it down.
    pub fn note(&mut self, age: Duration, what: &str, detail: impl FnOnce() -> String) {
        self.count(what);
        self.trace.line(age, what, &detail());
    }

    /// Counts something.
    pub fn count(&mut self, what: &str) {
        match self.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(what.to_owned(), 1)),
        }
    }

    /// Says that something must never be, and is; once for the same.
    pub fn violation(&mut self, age: Duration, what: &'static str, detail: String) {
        if self.reported.insert(format!("{what} {detail}")) {
            self.trace.line(age, "VIOLATION", &format!("{what}: {detail}"));
            self.violations.push(Violation { what, detail });
        }
    }

    /// What the world did to this session.
    pub fn facts(&mut self, id: SessionId) -> &mut Facts {
        self.facts.entry(id).or_default()
    }
}
