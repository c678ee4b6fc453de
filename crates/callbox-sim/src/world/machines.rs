//! Machines as the world has them, whatever dispatchers believe.

use std::{sync::Arc, time::Duration};

use callbox_core::{SessionId, machine_name, of_machine_name};
use callbox_link::fake::{BotReady, FakeAgent, Script};
use callbox_machines::Listed;
use callbox_protocol::agent::Phase;
use tokio::time::{Instant, sleep};

use super::{World, carrier::Lines, facts::Cause};

/// A machine ends itself when no dispatcher was there for so long.
pub const DEAD_MAN: Duration = Duration::from_secs(120);
/// A machine of another deployment, which is none of our business.
const STRANGER: &str = "cb-00000000000000000000000000000001-1";
/// A provider that says that a machine is gone has ended it so long after at the latest.
pub const DONE_LATER: (u64, u64) = (1_000, 30_000);

/// One machine.
pub struct Machine {
    /// No two machines ever have the same, whatever they are called.
    pub serial: u64,
    /// Whose it is.
    pub session: SessionId,
    /// Which of the session's.
    pub incarnation: u32,
    /// The host that it is on; 0 for all.
    pub host: u64,
    /// Its agent, once it runs.
    pub agent: Option<FakeAgent>,
    /// The lines to it.
    pub lines: Arc<Lines>,
    /// When it was ordered; when it ran, once it does.
    pub since: Instant,
    /// The provider said that it is gone, or never was: no dispatcher can know better but by
    /// looking.
    pub behind_our_back: bool,
    /// Since when no living session has owned it.
    pub unowned_since: Option<Instant>,
}

impl Machine {
    /// As dispatchers call it.
    pub fn name(&self) -> String {
        machine_name(self.session, self.incarnation)
    }

    /// Whether it has its session's data.
    pub fn told(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| !agent.seen().sessions.is_empty())
    }
}

/// By host, so that two hosts can have two of the same name.
pub fn key(host: u64, name: &str) -> String {
    format!("{host}/{name}")
}

impl World {
    /// Has the machine of this name made, unless it is there. If nobody waits for it any more, it
    /// comes behind everybody's back.
    pub fn order_machine(self: &Arc<Self>, host: u64, name: &str, waited_for: bool) {
        let key = key(host, name);
        if let Some(machine) = self.inner().machines.get_mut(&key) {
            machine.behind_our_back &= !waited_for;
        }
        if self.inner().machines.contains_key(&key) {
            return self.note("machine.adopted", || key.clone());
        }
        let (session, incarnation) =
            of_machine_name(name).expect("dispatchers use the core's names");
        if waited_for {
            self.must_be_wanted(session, incarnation);
        }
        let age = self.age();
        let takes = self.latency(1500.0);
        let mut inner = self.inner();
        let serial = inner.dice.number(1, u64::MAX - 1);
        inner.note(age, "machine.ordered", || format!("{key} takes {takes:?}"));
        inner.machines.insert(
            key.clone(),
            Machine {
                serial,
                session,
                incarnation,
                host,
                agent: None,
                lines: Arc::default(),
                since: Instant::now(),
                behind_our_back: !waited_for,
                unowned_since: None,
            },
        );
        drop(inner);
        let world = Arc::clone(self);
        tokio::spawn(async move {
            sleep(takes).await;
            world.machine_is_made(&key, serial);
        });
    }

    /// The intention is written before the purchase, and nothing is bought for a session that is
    /// over.
    fn must_be_wanted(&self, session: SessionId, incarnation: u32) {
        let row = self.inner().rows.get(&session).cloned();
        let wrong = match row {
            None => "its session is not written down",
            Some(row) if row.incarnation < incarnation => "its row does not speak of it",
            Some(row) if row.moments.ended.is_some() => "its session is over",
            Some(_) => return,
        };
        let detail = format!("{}: {wrong}", machine_name(session, incarnation));
        self.violation("a machine bought without need", detail);
    }

    fn machine_is_made(self: &Arc<Self>, key: &str, serial: u64) {
        let script = self.script();
        let age = self.age();
        let mut inner = self.inner();
        let others: Vec<String> = match inner.machines.get(key) {
            Some(machine) if machine.serial == serial => {
                let session = machine.session;
                let other = |other: &&Machine| {
                    other.session == session && other.serial != serial && other.agent.is_some()
                };
                let all = inner.machines.values().filter(other);
                all.filter(|other| !other.behind_our_back).map(Machine::name).collect()
            }
            // It was destroyed before it was made.
            _ => return,
        };
        let machine = inner.machines.get_mut(key).expect("it was there, and the lock is held");
        let cannot = matches!(script.ready, BotReady::Fails(_));
        machine.agent = Some(FakeAgent::new(script));
        machine.since = Instant::now();
        *machine.lines.last_seen() = Instant::now();
        let (behind, session) = (machine.behind_our_back, machine.session);
        inner.note(age, "machine.runs", || key.to_owned());
        if cannot {
            inner.facts(session).did(Cause::BotNotReady);
        }
        if behind {
            inner.note(age, "machine.came-late", || key.to_owned());
        } else if !others.is_empty() {
            let detail = format!("{session}: {key} runs beside {others:?}");
            inner.violation(age, "two machines of one session", detail);
        }
        drop(inner);
        self.tell();
        self.live_out(key.to_owned(), serial);
    }

    fn script(&self) -> Script {
        let ready = if self.happens(self.weather.bot_fails) {
            if self.happens(0.5) {
                BotReady::OnNotify
            } else {
                BotReady::Fails("the simulated bot cannot".into())
            }
        } else {
            BotReady::After(self.latency(800.0))
        };
        Script { phase: Phase::Prepared, ready, ..Script::default() }
    }

    /// What happens to a machine while it lives: its own fate, and the dead-man switch.
    fn live_out(self: &Arc<Self>, key: String, serial: u64) {
        let world = Arc::clone(self);
        tokio::spawn(async move {
            let fate = world.inner().dice.between(500, 90_000);
            let born = Instant::now();
            let mut met_its_fate = false;
            loop {
                sleep(Duration::from_secs(1)).await;
                if !world.lives(&key, serial) {
                    return;
                }
                if !met_its_fate && born.elapsed() >= fate {
                    met_its_fate = true;
                    world.meet_fate(&key);
                }
                world.dead_man(&key);
            }
        });
    }

    fn lives(&self, key: &str, serial: u64) -> bool {
        self.inner().machines.get(key).is_some_and(|machine| machine.serial == serial)
    }

    fn meet_fate(&self, key: &str) {
        let weather = &self.weather;
        if self.happens(weather.machine_dies) {
            self.lose_machine(key, "machine.died");
        } else if self.happens(weather.machine_silent) {
            let age = self.age();
            let mut inner = self.inner();
            let Some(machine) = inner.machines.get(key) else { return };
            machine.lines.fall_silent();
            let session = machine.session;
            inner.facts(session).did(Cause::MachineLost);
            inner.note(age, "machine.silent", || key.to_owned());
        } else if self.happens(weather.bot_ends) {
            self.end_bot(key);
        }
    }

    fn end_bot(&self, key: &str) {
        let age = self.age();
        let mut inner = self.inner();
        let how = inner.dice.number(0, 2);
        let Some(machine) = inner.machines.get(key) else { return };
        let (agent, session) = (machine.agent.clone(), machine.session);
        let (what, cause) = match how {
            0 => ("bot.finished", Cause::BotFinished),
            1 => ("bot.failed", Cause::BotFailed),
            _ => ("bot.out-of-memory", Cause::OutOfMemory),
        };
        inner.facts(session).did(cause);
        inner.note(age, what, || key.to_owned());
        drop(inner);
        if let Some(agent) = agent {
            match how {
                0 => agent.exit_bot(0),
                1 => agent.exit_bot(3),
                _ => agent.kill_bot_out_of_memory(),
            }
        }
    }

    fn dead_man(&self, key: &str) {
        let alone = match self.inner().machines.get(key) {
            // Whoever is silent does not look at its watch.
            Some(machine) if !machine.lines.silent() => machine.lines.alone_since(),
            _ => None,
        };
        if alone.is_some_and(|since| since.elapsed() >= DEAD_MAN) && !crate::planted::dead_man_off()
        {
            self.lose_machine(key, "machine.ended-itself");
        }
    }

    fn lose_machine(&self, key: &str, what: &str) {
        let age = self.age();
        let mut inner = self.inner();
        if let Some(session) = inner.machines.get(key).map(|machine| machine.session) {
            inner.facts(session).did(Cause::MachineLost);
            inner.note(age, what, || key.to_owned());
        }
        drop(inner);
        self.remove_machine(key);
    }

    /// A host is gone, with all that ran on it.
    pub fn lose_host(&self, host: u64) {
        let on_it = |(_, machine): &(&String, &Machine)| machine.host == host;
        let mut inner = self.inner();
        let keys: Vec<String> =
            inner.machines.iter().filter(on_it).map(|(key, _)| key.clone()).collect();
        // Those whose machine was not made yet, too.
        let place = format!("{host:016x}");
        let there = inner.rows.values().filter(|row| row.place == place).map(|row| row.id);
        for id in there.collect::<Vec<_>>() {
            inner.facts(id).did(Cause::MachineLost);
        }
        drop(inner);
        for key in keys {
            self.lose_machine(&key, "machine.lost-with-its-host");
        }
    }

    /// The provider ends a machine, or says so.
    pub fn destroy_machine(self: &Arc<Self>, host: u64, name: &str) {
        if name == STRANGER {
            self.violation("another deployment's machine destroyed", name.to_owned());
        }
        let key = key(host, name);
        let making = self.inner().machines.get(&key).map(|machine| machine.agent.is_none());
        let Some(making) = making else {
            return self.note("machine.destroyed-nothing", || key.clone());
        };
        if making && self.happens(self.weather.late) {
            self.note("machine.will-come-late", || key.clone());
            if let Some(machine) = self.inner().machines.get_mut(&key) {
                machine.behind_our_back = true;
            }
            return;
        }
        if !making && self.happens(self.weather.lies) {
            let age = self.age();
            let mut inner = self.inner();
            let later = inner.dice.between(DONE_LATER.0, DONE_LATER.1);
            inner.note(age, "machine.destroyed-later", || format!("{key} by {later:?}"));
            if let Some(machine) = inner.machines.get_mut(&key) {
                machine.behind_our_back = true;
            }
            drop(inner);
            let world = Arc::clone(self);
            tokio::spawn(async move {
                sleep(later).await;
                world.remove_machine(&key);
            });
            return;
        }
        self.note("machine.destroyed", || key.clone());
        self.remove_machine(&key);
    }

    fn remove_machine(&self, key: &str) {
        let gone = self.inner().machines.remove(key);
        if let Some(machine) = gone {
            self.bury(&machine);
            self.inner().gone.push((Instant::now(), machine.host, machine.name()));
            machine.lines.cut();
            if let Some(agent) = machine.agent {
                agent.cut();
            }
            self.tell();
        }
    }

    /// What it was told goes into the session's record.
    pub fn bury(&self, machine: &Machine) {
        if machine.told() {
            let told = (machine.incarnation, machine.serial);
            self.inner().facts(machine.session).told.push(told);
        }
    }

    /// The machines on this host, as a list tells them that may be behind. One of another
    /// deployment is always among them.
    pub fn listed_machines(&self, host: u64) -> Vec<Listed> {
        let inner = self.inner();
        let stale = if inner.calm { Duration::ZERO } else { self.weather.stale };
        let seen = |machine: &&Machine| {
            let made = machine.agent.is_some() && machine.since.elapsed() >= stale;
            machine.host == host && made
        };
        // A list that is always true need not tell ages.
        let age = |since: &Instant| (!stale.is_zero()).then(|| self.at(*since));
        let ours = |name: String, since: &Instant| Listed {
            deployment: Some("memory".into()),
            made_at: age(since),
            ..Listed::here(name)
        };
        let mut all: Vec<Listed> = inner
            .machines
            .values()
            .filter(seen)
            .map(|machine| ours(machine.name(), &machine.since))
            .collect();
        let still = inner.gone.iter().filter(|(at, on, _)| *on == host && at.elapsed() < stale);
        all.extend(still.map(|(at, _, name)| ours(name.clone(), at)));
        let theirs = Some("another".to_owned());
        all.push(Listed { deployment: theirs, ..Listed::here(STRANGER) });
        all
    }
}
