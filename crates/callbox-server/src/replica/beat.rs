//! Saying that we live, and taking over from those that do not.

use std::{sync::Arc, time::Duration};

use callbox_core::State;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{BEAT, HOLD, SILENCE, look_around, lost_after, watch};
use crate::{
    driver::{self, Chain},
    metrics,
    plane::Plane,
    store::StoreError,
    tasks::Task,
};

/// After a beat that failed.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two looks for sessions without a driver.
const LOOK: Duration = Duration::from_secs(2);
/// How long such a look may take.
const ANSWER: Duration = Duration::from_secs(30);
/// So many sessions are taken over at once.
const TOGETHER: u32 = 100;
/// At every so many looks, it is looked for rows that name us and have no driver here.
const STRAYS: u32 = 15;
/// Longer than any replica is remembered: whoever is taken over has nobody.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long drivers may take to let go, and the store to be told, at the end.
const LEAVE: Duration = Duration::from_secs(5);

/// Says that we live, from now on until the task is aborted, sees who else there is, and takes up
/// our own sessions and those without any driver: however many there are, nobody thinks meanwhile
/// that we died. Tells how many.
///
/// # Errors
/// When the store does not answer.
pub async fn begin(plane: &Arc<Plane>) -> Result<(Task<()>, usize), StoreError> {
    plane.store.beat(&plane.replicas.me()).await?;
    plane.replicas.begin_to_hold();
    let beating = plane.spawn(beats(Arc::clone(plane)));
    let taking_up = async {
        look_around(plane).await?;
        let own = take_up_own(plane).await?;
        Ok(own + take_over(plane, NEVER, NEVER).await?)
    };
    match taking_up.await {
        Ok(taken_up) => Ok((beating, taken_up)),
        Err(error) => {
            beating.abort();
            Err(error)
        }
    }
}

/// Takes over and watches, until it is dropped.
pub async fn run(plane: Arc<Plane>) {
    tokio::join!(looks(&plane), watch::run(&plane));
}

/// Lets go of all sessions that are driven here, so that others take them over at once.
pub async fn leave(plane: &Plane) {
    let letting_go = async {
        let handles = plane.handles();
        handles.iter().for_each(|(_, handle)| handle.leave());
        for (_, handle) in handles {
            // The sender goes with the driver.
            let mut session = handle.session;
            while session.changed().await.is_ok() {}
        }
        plane.store.retire(plane.replicas.id()).await
    };
    match timeout(LEAVE, letting_go).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %Chain(&error), "cannot say that we leave; others will notice");
        }
        Err(_) => tracing::warn!("leaving takes long; others will notice"),
    }
}

async fn beats(plane: Arc<Plane>) {
    // The last beat that came through began then: `begin` said it a moment ago.
    let mut renewed = Instant::now();
    loop {
        let began = Instant::now();
        // Whatever becomes of this one, we must know in time whether to hold still.
        let patience = (renewed + HOLD).max(began + AGAIN);
        match timeout_at(patience, plane.store.beat(&plane.replicas.me())).await {
            Ok(Ok(())) => {
                if began - renewed >= HOLD {
                    // However short it seemed to us (a process that stood still saw nothing):
                    // ours may have been taken over.
                    plane.replicas.hold(false);
                }
                plane.replicas.hold(true);
                renewed = began;
                sleep_until(began + BEAT).await;
            }
            failed => {
                metrics::store_error();
                if let Ok(Err(error)) = &failed {
                    tracing::warn!(error = %Chain(error), "cannot say that this dispatcher lives");
                }
                if renewed.elapsed() >= HOLD {
                    plane.replicas.hold(false);
                }
                sleep_until((renewed + HOLD).max(Instant::now()).min(began + AGAIN)).await;
            }
        }
    }
}

async fn looks(plane: &Arc<Plane>) {
    let mut round: u32 = 0;
    loop {
        let began = Instant::now();
        match timeout(ANSWER, look(plane, round.is_multiple_of(STRAYS))).await {
            Ok(Ok(())) => round = round.wrapping_add(1),
            // What was half done is found the next time.
            Ok(Err(error)) => {
                tracing::warn!(error = %Chain(&error), "cannot look after other replicas");
                round = 0;
            }
            Err(_) => round = 0,
        }
        tokio::select! {
            () = sleep_until(began + LOOK) => {}
            () = plane.replicas.stray.notified() => {
                round = 0;
                sleep_until(began + AGAIN).await;
            }
        }
    }
}

async fn look(plane: &Arc<Plane>, strays: bool) -> Result<(), StoreError> {
    look_around(plane).await?;
    if strays {
        take_up_own(plane).await?;
    }
    if plane.closing() {
        return Ok(());
    }
    // Whoever was cut off from the store cannot tell a replica that is dead from one that was cut
    // off, too: each gets the time to say that it lives.
    let steady = plane.replicas.held_for().is_some_and(|held| held >= SILENCE);
    // One that is drained leaves it to the others, as long as there is one.
    let silence = if plane.drain.now().is_some() { SILENCE * 2 } else { SILENCE };
    let lost = lost_after(&plane.config);
    let (silence, lost) = if steady { (silence, lost) } else { (NEVER, NEVER) };
    let taken = take_over(plane, silence, lost).await?;
    if taken > 0 {
        metrics::taken_over(taken);
        tracing::warn!(sessions = taken, "took over sessions whose dispatcher is gone");
    }
    Ok(())
}

/// Takes up the rows that name us and have no driver here: an earlier process's, or those whose
/// insertion was done though we were told that it failed.
async fn take_up_own(plane: &Arc<Plane>) -> Result<usize, StoreError> {
    if crate::planted::is("no-resume") {
        return Ok(0);
    }
    let mut strays = plane.store.driven(plane.replicas.id()).await?;
    // Mostly there are none, and no start need wait for that.
    strays.retain(|id| plane.handle(*id).is_none());
    if strays.is_empty() {
        return Ok(0);
    }
    // A start that is under way has its driver when it gives back its turn. And whoever waits is
    // let in only when all are there: else the first to be read would be the first in the queue.
    let _turn = plane.queue.turn().await;
    let mut own = 0;
    for id in strays {
        if plane.handle(id).is_some() {
            continue;
        }
        let row = match plane.store.get(id).await {
            // What cannot be read is reported by the store, and left to whoever can.
            Ok(None) | Err(StoreError::BadRow { .. }) => continue,
            Ok(Some(row)) => row,
            Err(error) => return Err(error),
        };
        let ours = row.replica.as_deref() == Some(plane.replicas.id());
        if ours && !matches!(row.session.state, State::Ended { .. }) {
            driver::take_up(plane, row).await?;
            own += 1;
        }
    }
    Ok(own)
}

async fn take_over(
    plane: &Arc<Plane>,
    silence: Duration,
    lost: Duration,
) -> Result<usize, StoreError> {
    if crate::planted::is("no-take-over") {
        return Ok(0);
    }
    let mut all = 0;
    loop {
        let rows = plane.store.take_over(&plane.replicas.me(), silence, lost, TOGETHER).await?;
        let taken = rows.len();
        all += taken;
        if taken > 0 {
            let _turn = plane.queue.turn().await;
            for row in rows {
                driver::take_up(plane, row).await?;
            }
        }
        if taken < TOGETHER as usize {
            return Ok(all);
        }
    }
}
