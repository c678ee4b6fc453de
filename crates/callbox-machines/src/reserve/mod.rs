//! The reserve: for each version of a bot, machines that are ready before anybody asks, each used
//! once.
//!
//! ```text
//!             ┌───────────── tend: one at a time, when nobody starts ─────────────┐
//!             ▼                                                                   │
//!   make ──► ready ──── take, by a session's start ──► it is the session's        │ target from
//!             │                                                                   │ sizing.rs
//!             └── lost, too old, of an old version, more than needed, shed ──► removed
//! ```
//!
//! Everything here is in memory; what machines are and how they are made, their provider knows
//! ([`Maker`]). What a dispatcher that died had in reserve is removed after it.

mod sizing;
mod tend;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use crate::{BotMachine, BotVersion, MachineSpec, Reserve, ReserveLevel};
use sizing::Seen;
pub(crate) use tend::{Maker, tend};

/// How long a bot whose machine could not be made is left alone, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

/// Whose reserve it is: of a bot in a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    bot: String,
    version: Option<String>,
}

impl Key {
    /// That a machine of this spec may be taken from.
    pub fn of(spec: &MachineSpec) -> Key {
        Key { bot: spec.bot.bot.clone(), version: spec.version.clone() }
    }

    fn of_version(one: &BotVersion) -> Key {
        Key { bot: one.bot.bot.clone(), version: one.version.clone() }
    }
}

/// A machine that waits.
pub(crate) trait Kept {
    /// How long it has waited.
    fn age(&self) -> Duration;
    /// How long it took to make.
    fn took(&self) -> Duration;
    /// Whether it is of no use any more.
    fn is_lost(&self) -> bool;
}

/// The reserves of all bots.
#[derive(Debug)]
pub(crate) struct Reserves<M> {
    began: Instant,
    pools: Mutex<BTreeMap<Key, Pool<M>>>,
    changed: Notify,
    /// Told when there was a look at all of them.
    looked: watch::Sender<()>,
    /// Starts under way: they come first.
    starting: Mutex<usize>,
}

#[derive(Debug)]
struct Pool<M> {
    bot: Arc<BotMachine>,
    ready: VecDeque<M>,
    /// One of its machines is being made.
    making: bool,
    seen: Seen,
    target: usize,
    /// Not before then, after a failure.
    not_before: Option<Instant>,
    pause: Duration,
    /// Why the last one could not be made.
    failure: Option<String>,
    /// There was no room for one more when it was looked last.
    cramped: bool,
}

/// A start that is under way; nothing is made for reserves meanwhile.
pub(crate) struct Starting<'a, M: Kept>(&'a Reserves<M>);

impl<M: Kept> Reserves<M> {
    pub fn new() -> Reserves<M> {
        Reserves {
            began: Instant::now(),
            pools: Mutex::default(),
            changed: Notify::new(),
            looked: watch::Sender::default(),
            starting: Mutex::default(),
        }
    }

    /// A session of this bot starts: counted, and given a machine if one is ready that `fits`.
    pub fn take(&self, bot: &BotVersion, fits: impl Fn(&M) -> bool) -> Option<M> {
        let mut pools = self.pools();
        let pool = pools.get_mut(&Key::of_version(bot))?;
        pool.seen.arrival(self.began.elapsed());
        // The oldest first, so that none grows old.
        let at = pool.ready.iter().position(|kept| fits(kept) && !kept.is_lost())?;
        let taken = pool.ready.remove(at);
        self.changed.notify_one();
        taken
    }

    /// Says that a start is under way until the answer is dropped.
    pub fn starting(&self) -> Starting<'_, M> {
        *self.starting.lock().expect("no panic while held") += 1;
        Starting(self)
    }

    /// How many machines are ready.
    pub fn ready(&self, key: &Key) -> usize {
        self.pools().get(key).map_or(0, Pool::usable)
    }

    /// How far every reserve is filled.
    pub fn levels(&self) -> Vec<Reserve> {
        let level = |pool: &Pool<M>| ReserveLevel { ready: pool.usable(), target: pool.target };
        let reserve = |(key, pool): (&Key, &Pool<M>)| Reserve {
            bot: key.bot.clone(),
            version: key.version.clone(),
            level: level(pool),
        };
        self.pools().iter().map(reserve).collect()
    }

    /// Waits until the reserve has its smallest size or there is no room for more; fails when a
    /// machine of it cannot be made.
    pub async fn filled(&self, bot: &BotVersion) -> Result<(), String> {
        let key = Key::of_version(bot);
        let enough = |pool: &Pool<M>| pool.ready.len() >= bot.bot.reserve.min || pool.cramped;
        if bot.bot.reserve.max == 0 {
            return Ok(());
        }
        let mut looked = self.looked.subscribe();
        loop {
            looked.mark_unchanged();
            // Before the first look at it, it is not there.
            let is = self.pools().get(&key).map(|pool| (enough(pool), pool.failure.clone()));
            match is {
                Some((true, _)) => return Ok(()),
                Some((false, Some(failure))) => return Err(failure),
                Some((false, None)) | None => {}
            }
            self.changed.notify_one();
            // The sender lives as long as we do.
            let _ = looked.changed().await;
        }
    }

    /// The bot of every machine that is there or being made: each costs room.
    pub fn machines(&self) -> Vec<Arc<BotMachine>> {
        let count = |pool: &Pool<M>| pool.ready.len() + usize::from(pool.making);
        let pools = self.pools();
        pools.values().flat_map(|pool| vec![Arc::clone(&pool.bot); count(pool)]).collect()
    }

    /// How many machines are there or being made.
    pub fn count(&self) -> usize {
        self.pools().values().map(|pool| pool.ready.len() + usize::from(pool.making)).sum()
    }

    /// Takes a machine out, because a session needs its room: of the bot that has most beyond
    /// those that are `spoken_for`.
    pub fn give_up(&self, spoken_for: impl Fn(&Key) -> usize) -> Option<M> {
        let mut pools = self.pools();
        let spare = |key: &Key, pool: &Pool<M>| pool.ready.len().saturating_sub(spoken_for(key));
        let fullest = pools.iter_mut().max_by_key(|(key, pool)| spare(key, pool));
        let (key, pool) = fullest?;
        if spare(key, pool) == 0 { None } else { pool.ready.pop_front() }
    }

    /// Takes all machines out.
    pub fn drain(&self) -> Vec<M> {
        self.pools().values_mut().flat_map(|pool| std::mem::take(&mut pool.ready)).collect()
    }

    /// Looks at each machine that is ready.
    pub fn each(&self, mut look: impl FnMut(&M)) {
        self.pools().values().flat_map(|pool| &pool.ready).for_each(&mut look);
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<Key, Pool<M>>> {
        self.pools.lock().expect("no panic while held")
    }
}

impl<M: Kept> Drop for Starting<'_, M> {
    fn drop(&mut self) {
        *self.0.starting.lock().expect("no panic while held") -= 1;
        self.0.changed.notify_one();
    }
}

impl<M: Kept> Reserves<M> {
    /// Has a reserve for each of these, and takes out the machines of all others.
    fn tend_these(&self, wanted: &[BotVersion]) -> Vec<M> {
        let wanted: Vec<&BotVersion> =
            wanted.iter().filter(|one| one.bot.reserve.max > 0).collect();
        let mut pools = self.pools();
        for one in &wanted {
            let key = Key::of_version(one);
            if !pools.contains_key(&key) {
                // Sessions come as often as they came for the version before.
                let before = pools.iter().find(|(other, _)| other.bot == key.bot);
                let seen = before.map(|(_, pool)| pool.seen.clone()).unwrap_or_default();
                pools.insert(key, Pool { seen, ..Pool::new(Arc::clone(&one.bot)) });
            }
        }
        let is_wanted = |key: &Key| wanted.iter().any(|one| Key::of_version(one) == *key);
        let others: Vec<Key> = pools.keys().filter(|key| !is_wanted(key)).cloned().collect();
        others.iter().filter_map(|key| pools.remove(key)).flat_map(|pool| pool.ready).collect()
    }
}

impl<M: Kept> Pool<M> {
    /// Machines that a session could take now.
    fn usable(&self) -> usize {
        self.ready.iter().filter(|kept| !kept.is_lost()).count()
    }

    fn new(bot: Arc<BotMachine>) -> Pool<M> {
        Pool {
            target: bot.reserve.min,
            bot,
            ready: VecDeque::new(),
            making: false,
            seen: Seen::default(),
            not_before: None,
            pause: PAUSES.0,
            failure: None,
            cramped: false,
        }
    }
}
