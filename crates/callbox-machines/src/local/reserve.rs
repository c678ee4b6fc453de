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
//! Everything here is in memory: what a dispatcher that died had in reserve is removed by the
//! next one before it begins.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use callbox_microvm::{Error, Host, Parked, Start, chain};
use tokio::sync::{Notify, watch};

use super::sizing::Seen;
use crate::{BotMachine, BotVersion, MachineSpec, Reserve, ReserveLevel};

/// How often it is looked at, beside whenever something happens to it.
const TICK: Duration = Duration::from_secs(2);
/// Longest rest after a machine was made or could not be, so that calls under way keep most of
/// the processors.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long a machine may be in no pool before it is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long starts that follow each other may keep a machine from being made.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long a bot whose machine could not be made is left alone, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

/// Whose reserve it is: of a bot in a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
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

/// The reserves of all bots.
#[derive(Debug)]
pub(super) struct Reserves {
    began: Instant,
    pools: Mutex<BTreeMap<Key, Pool>>,
    changed: Notify,
    /// Told when there was a look at all of them.
    looked: watch::Sender<()>,
    /// Starts under way: they come first.
    starting: Mutex<usize>,
}

#[derive(Debug)]
struct Pool {
    bot: Arc<BotMachine>,
    ready: VecDeque<Parked>,
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
pub(super) struct Starting<'a>(&'a Reserves);

impl Reserves {
    pub fn new() -> Reserves {
        Reserves {
            began: Instant::now(),
            pools: Mutex::default(),
            changed: Notify::new(),
            looked: watch::Sender::default(),
            starting: Mutex::default(),
        }
    }

    /// A session of this bot starts: counted, and given a machine if one is ready.
    pub fn take(&self, bot: &BotVersion, template: Option<&str>) -> Option<Parked> {
        let mut pools = self.pools();
        let pool = pools.get_mut(&Key::of_version(bot))?;
        pool.seen.arrival(self.began.elapsed());
        // The oldest first, so that none grows old.
        let at = pool.ready.iter().position(|parked| fits(parked, template))?;
        let taken = pool.ready.remove(at);
        self.changed.notify_one();
        taken
    }

    /// Says that a start is under way until the answer is dropped.
    pub fn starting(&self) -> Starting<'_> {
        *self.starting.lock().expect("no panic while held") += 1;
        Starting(self)
    }

    /// How many machines are ready.
    pub fn ready(&self, key: &Key) -> usize {
        self.pools().get(key).map_or(0, |pool| pool.ready.len())
    }

    /// How far every reserve is filled.
    pub fn levels(&self) -> Vec<Reserve> {
        let level = |pool: &Pool| ReserveLevel { ready: pool.ready.len(), target: pool.target };
        let reserve = |(key, pool): (&Key, &Pool)| Reserve {
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
        let enough = |pool: &Pool| pool.ready.len() >= bot.bot.reserve.min || pool.cramped;
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
        let count = |pool: &Pool| pool.ready.len() + usize::from(pool.making);
        let pools = self.pools();
        pools.values().flat_map(|pool| vec![Arc::clone(&pool.bot); count(pool)]).collect()
    }

    /// Takes a machine out, because a session needs its room: of the bot that has most beyond
    /// those that are `spoken_for`.
    pub fn give_up(&self, spoken_for: impl Fn(&Key) -> usize) -> Option<Parked> {
        let mut pools = self.pools();
        let spare = |key: &Key, pool: &Pool| pool.ready.len().saturating_sub(spoken_for(key));
        let fullest = pools.iter_mut().max_by_key(|(key, pool)| spare(key, pool));
        let (key, pool) = fullest?;
        if spare(key, pool) == 0 { None } else { pool.ready.pop_front() }
    }

    /// Takes all machines out.
    pub fn drain(&self) -> Vec<Parked> {
        self.pools().values_mut().flat_map(|pool| std::mem::take(&mut pool.ready)).collect()
    }

    /// Machines that have been in no pool for a while: their removal was given up or failed. One
    /// that a session is just taking is in no pool either, but soon has another name.
    fn forgotten(&self, host: &Host, strays: &mut BTreeMap<String, Instant>) -> Vec<String> {
        let parked = host.parked().unwrap_or_default();
        let pools = self.pools();
        let held = |name: &String| {
            pools.values().flat_map(|pool| &pool.ready).any(|parked| parked.name() == name)
        };
        strays.retain(|name, _| parked.contains(name) && !held(name));
        for name in parked.into_iter().filter(|name| !held(name)) {
            strays.entry(name).or_insert_with(Instant::now);
        }
        let old = strays.iter().filter(|(_, since)| since.elapsed() > FORGOTTEN);
        old.map(|(name, _)| name.clone()).collect()
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<Key, Pool>> {
        self.pools.lock().expect("no panic while held")
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        *self.0.starting.lock().expect("no panic while held") -= 1;
        self.0.changed.notify_one();
    }
}

/// What keeping reserves needs of the provider.
pub(super) trait Maker: Sync {
    /// The host.
    fn host(&self) -> &Host;
    /// What a machine of this bot is started from, its template made if need be.
    fn plan(&self, bot: &BotVersion) -> impl Future<Output = Result<Start, String>> + Send;
    /// Whether there is room for one more.
    fn has_room(&self, bot: &Arc<BotMachine>) -> bool;
}

/// Keeps the reserves of `bots` filled, and has none for others, for ever.
pub(super) async fn tend(
    reserves: &Reserves,
    mut bots: watch::Receiver<Vec<BotVersion>>,
    maker: &impl Maker,
) {
    let mut last_made = Instant::now();
    let mut strays = BTreeMap::new();
    loop {
        let wanted = bots.borrow_and_update().clone();
        for parked in reserves.tend_these(&wanted) {
            discard(maker.host(), parked).await;
        }
        let rest = match next(reserves, maker, last_made.elapsed()) {
            Some(bot) => {
                let rest = fill(reserves, &bot, maker).await;
                last_made = Instant::now();
                rest
            }
            None => TICK,
        };
        maker.host().let_go_of_removed_templates();
        for name in reserves.forgotten(maker.host(), &mut strays) {
            match maker.host().remove_parked(&name).await {
                Ok(()) => tracing::warn!(name, "removed a machine of the reserve that nobody held"),
                Err(error) => tracing::warn!(name, error = %chain(&error), "it stays for now"),
            }
        }
        for parked in surplus(reserves) {
            discard(maker.host(), parked).await;
        }
        reserves.looked.send_replace(());
        tokio::select! {
            () = reserves.changed.notified() => {}
            // Whoever says what is wanted may be gone; the reserves stay.
            Ok(()) = bots.changed() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// The reserve that lacks most and for which there is room, unless somebody starts just now.
/// Where somebody always starts, it has waited long enough after a while: an empty reserve is
/// why.
fn next(reserves: &Reserves, maker: &impl Maker, waited: Duration) -> Option<BotVersion> {
    let starting = *reserves.starting.lock().expect("no panic while held");
    if starting > 0 && waited < LONGEST_WAIT {
        return None;
    }
    let now = reserves.began.elapsed();
    let mut pools = reserves.pools();
    for pool in pools.values_mut() {
        pool.target = pool.seen.target(&pool.bot.reserve, now);
    }
    let may = |pool: &Pool| pool.not_before.is_none_or(|then| then <= Instant::now());
    let mut lacking: Vec<(usize, Key, Arc<BotMachine>)> = pools
        .iter()
        .map(|(key, pool)| {
            let lacks = pool.target.saturating_sub(pool.ready.len());
            (if may(pool) { lacks } else { 0 }, key.clone(), Arc::clone(&pool.bot))
        })
        .filter(|(lacks, ..)| *lacks > 0)
        .collect();
    drop(pools);
    lacking.sort_by_key(|(lacks, ..)| std::cmp::Reverse(*lacks));
    for (_, key, bot) in lacking {
        let room = maker.has_room(&bot);
        let mut pools = reserves.pools();
        let Some(pool) = pools.get_mut(&key) else { continue };
        pool.cramped = !room;
        if room {
            pool.making = true;
            return Some(BotVersion { bot, version: key.version });
        }
    }
    None
}

/// Makes one machine; tells how long to rest afterwards.
async fn fill(reserves: &Reserves, bot: &BotVersion, maker: &impl Maker) -> Duration {
    let made = async {
        let what = maker.plan(bot).await?;
        maker.host().park(&what).await.map_err(|error| chain(&error))
    };
    let outcome = made.await;
    let name = &bot.bot.bot;
    let mut pools = reserves.pools();
    let Some(pool) = pools.get_mut(&Key::of_version(bot)) else { return TICK };
    pool.making = false;
    match outcome {
        Ok(parked) => {
            tracing::debug!(
                bot = name,
                took_ms = parked.took().as_millis(),
                "a machine is in reserve"
            );
            pool.seen.made(parked.took());
            pool.pause = PAUSES.0;
            pool.not_before = None;
            pool.failure = None;
            // Half the time is for others.
            let rest = parked.took().min(LONGEST_REST);
            pool.ready.push_back(parked);
            rest
        }
        Err(error) => {
            tracing::warn!(bot = name, error, again_in = ?pool.pause, "no machine could be put in reserve");
            pool.not_before = Some(Instant::now() + pool.pause);
            pool.pause = (pool.pause * 2).min(PAUSES.1);
            pool.failure = Some(error);
            TICK
        }
    }
}

/// Takes out what is of no use any more.
fn surplus(reserves: &Reserves) -> Vec<Parked> {
    let mut gone = Vec::new();
    for pool in reserves.pools().values_mut() {
        let max_age = pool.bot.reserve.max_age;
        let ready = std::mem::take(&mut pool.ready);
        for parked in ready {
            let keep = !parked.is_lost() && parked.age() < max_age;
            if keep && pool.ready.len() < pool.target.max(pool.bot.reserve.min) {
                pool.ready.push_back(parked);
            } else {
                gone.push(parked);
            }
        }
    }
    gone
}

/// Ends a machine of the reserve; one that cannot be ended is found again at the next start.
pub(super) async fn discard(host: &Host, parked: Parked) {
    let lost = parked.is_lost();
    match host.discard(parked).await {
        Ok(()) => tracing::debug!(lost, "a machine of the reserve was removed"),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "a machine of the reserve is left over")
        }
    }
}

fn fits(parked: &Parked, template: Option<&str>) -> bool {
    parked.template() == template && !parked.is_lost()
}

impl Reserves {
    /// Has a reserve for each of these, and takes out the machines of all others.
    fn tend_these(&self, wanted: &[BotVersion]) -> Vec<Parked> {
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

impl Pool {
    fn new(bot: Arc<BotMachine>) -> Pool {
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

/// Whether a claim that failed leaves it to a fresh machine: everything but a taken name.
pub(super) fn goes_on(error: &Error) -> bool {
    !matches!(error, Error::Exists(_))
}
