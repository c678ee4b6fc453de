//! Making the machines that lack, one at a time, and taking out those that are of no use.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Kept, Key, PAUSES, Pool, Reserves};
use crate::{BotMachine, BotVersion};

/// How often it is looked at, beside whenever something happens to it.
const TICK: Duration = Duration::from_secs(2);
/// Longest rest after a machine was made or could not be, so that calls under way keep most of
/// the processors.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long starts that follow each other may keep a machine from being made.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What keeping reserves needs of the provider.
pub(crate) trait Maker: Sync {
    /// A machine that waits.
    type Machine: Kept + Send;
    /// Makes a machine that waits for a session of this bot. When dropped, nothing that is ready
    /// is touched, and the rest goes with [`Maker::look_around`].
    fn make(&self, bot: &BotVersion) -> impl Future<Output = Result<Self::Machine, String>> + Send;
    /// Whether there is room for one more.
    fn has_room(&self, bot: &Arc<BotMachine>) -> bool;
    /// Ends a machine that nobody took; one that cannot be ended is found again later.
    fn discard(&self, kept: Self::Machine) -> impl Future<Output = ()> + Send;
    /// Each time that the reserves were looked at: what else there is to be tidied.
    fn look_around(&self) -> impl Future<Output = ()> + Send;
}

/// Keeps the reserves of `bots` filled, and has none for others, for ever.
pub(crate) async fn tend<M: Maker>(
    reserves: &Reserves<M::Machine>,
    mut bots: watch::Receiver<Vec<BotVersion>>,
    maker: &M,
) {
    let mut last_made = Instant::now();
    loop {
        let wanted = bots.borrow_and_update().clone();
        for parked in reserves.tend_these(&wanted) {
            maker.discard(parked).await;
        }
        let rest = match next(reserves, maker, last_made.elapsed()) {
            Some(bot) => {
                let rest = fill(reserves, &bot, maker).await;
                last_made = Instant::now();
                rest
            }
            None => TICK,
        };
        maker.look_around().await;
        for parked in surplus(reserves) {
            maker.discard(parked).await;
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
fn next<M: Maker>(
    reserves: &Reserves<M::Machine>,
    maker: &M,
    waited: Duration,
) -> Option<BotVersion> {
    let starting = *reserves.starting.lock().expect("no panic while held");
    if starting > 0 && waited < LONGEST_WAIT {
        return None;
    }
    let now = reserves.began.elapsed();
    let mut pools = reserves.pools();
    for pool in pools.values_mut() {
        pool.target = pool.seen.target(&pool.bot.reserve, now);
    }
    let may = |pool: &Pool<M::Machine>| pool.not_before.is_none_or(|then| then <= Instant::now());
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
async fn fill<M: Maker>(reserves: &Reserves<M::Machine>, bot: &BotVersion, maker: &M) -> Duration {
    let outcome = maker.make(bot).await;
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
fn surplus<M: Kept>(reserves: &Reserves<M>) -> Vec<M> {
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
