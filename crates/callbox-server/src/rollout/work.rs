//! The work of rollouts: one at a time, and taking away what the last session has left.

use std::{sync::Arc, time::Duration};

use callbox_core::Session;
use callbox_machines::{BotVersion, StartFault};
use tokio::sync::watch;

use super::{Failed, Next, Track, Version};
use crate::{
    config::Bot,
    driver::Chain,
    plane::Plane,
    prepare::Stages,
    store::{StoreError, each_living},
};

/// How often it is looked whether an old version is left, beside whenever a session moves.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Between two looks at the least: where thousands live, something always moves.
const REST: Duration = Duration::from_millis(100);

/// Looks up which version of each bot is there, and which ones living sessions have. To be called
/// before sessions are accepted.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn begin(plane: &Plane) -> Result<(), StoreError> {
    let now = plane.clock.now();
    for bot in plane.config.bots.values() {
        let version = match present(plane, bot).await {
            Ok(version) => version,
            Err(why) => {
                // Its preparation, and its sessions, say so too.
                tracing::warn!(bot = bot.name, why, "the bot's version is not known");
                None
            }
        };
        plane.rollouts.bots().insert(bot.name.clone(), Track::of(version, now));
    }
    each_living(&*plane.store, None, |session| {
        if session.version.is_some() {
            plane.rollouts.change(&session.bot, |track| track.add_old(session.version, now));
        }
    })
    .await?;
    for name in plane.providers.keys() {
        let tended = watch::Sender::new(plane.rollouts.to_tend(plane, name));
        plane.rollouts.senders().insert((*name).to_owned(), tended);
    }
    Ok(())
}

/// Does what is asked for, and takes away versions that nobody needs any more, for as long as it
/// is let.
pub(crate) async fn run(plane: &Plane) {
    let rolling = async {
        loop {
            let asked = plane.rollouts.asked.notified();
            match plane.rollouts.next_asked() {
                Some(name) => roll(plane, &name).await,
                None => asked.await,
            }
        }
    };
    tokio::join!(rolling, clear_away(plane));
}

/// The version of the bot's image as it is now.
async fn present(plane: &Plane, bot: &Bot) -> Result<Version, String> {
    match plane.providers.get(bot.provider.as_str()) {
        Some(provider) => provider.version(&bot.machine).await.map_err(|fault| fault.detail),
        None => Ok(None),
    }
}

/// One rollout, from its beginning to its end.
async fn roll(plane: &Plane, name: &str) {
    let Some(bot) = plane.bot(name) else { return };
    let rollouts = &plane.rollouts;
    let _busy = rollouts.busy.lock().await;
    let outcome = prepared(plane, bot).await;
    let now = plane.clock.now();
    // In one step: whoever is accepted has the one or the other.
    rollouts.change(name, |track| {
        // Asked meanwhile: there is a next one again, which is to be looked up.
        let again = track.asked.then(|| Next::asked(now));
        let next = std::mem::replace(&mut track.next, again);
        match &outcome {
            Ok(Some(version)) => track.switch(version.clone(), now),
            Ok(None) => {}
            Err(why) => {
                let version = next.and_then(|next| next.version);
                track.failed = Some(Failed { version, at: now, why: why.clone() });
            }
        }
    });
    rollouts.retend(plane);
    match outcome {
        Ok(Some(version)) => {
            tracing::info!(bot = name, version, "new sessions get the new version from now on");
        }
        Ok(None) => tracing::info!(bot = name, "the bot's version is served already"),
        Err(why) => {
            tracing::error!(
                bot = name,
                why,
                "the new version cannot be served; all stays as it was"
            );
            let failed = rollouts.of(name).and_then(|track| track.failed);
            if let Some(version) = failed.and_then(|failed| failed.version) {
                retire(plane, bot, Some(version)).await;
            }
        }
    }
}

/// Prepares the version that is there now; none if it is served already.
async fn prepared(plane: &Plane, bot: &Arc<Bot>) -> Result<Option<Version>, String> {
    let (rollouts, name) = (&plane.rollouts, bot.name.as_str());
    let Some(provider) = plane.providers.get(bot.provider.as_str()) else {
        return Err(format!("provider {:?} is not available", bot.provider));
    };
    let version = present(plane, bot).await?;
    if version.is_none() {
        return Err(format!("provider {:?} knows no versions", bot.provider));
    }
    let served = rollouts.change(name, |track| {
        if let Some(next) = &mut track.next {
            next.version.clone_from(&version);
        }
        track.current.version == version && track.current.trouble.is_none()
    });
    if served == Some(true) {
        return Ok(None);
    }
    tracing::info!(bot = name, version, "preparing another version of the bot");
    let next = BotVersion { bot: Arc::clone(&bot.machine), version: version.clone() };
    let stages = Stages::of_next(plane, name);
    let failed = |error: StartFault| Chain(&error).to_string();
    provider.prepare(&next, &stages).await.map_err(failed)?;
    rollouts.change(name, |track| {
        if let Some(next) = &mut track.next {
            next.filling = true;
            next.stage = "filling its reserve".into();
        }
    });
    rollouts.retend(plane);
    provider.filled(&next).await.map_err(failed)?;
    Ok(Some(version))
}

/// Takes away old versions as soon as nothing of theirs lives.
async fn clear_away(plane: &Plane) {
    let mut moved = plane.queue.changes();
    loop {
        let mut elsewhere = false;
        for bot in plane.config.bots.values() {
            let old = plane.rollouts.of(&bot.name).map(|track| track.old).unwrap_or_default();
            for old in old {
                if is_needed_here(plane, &bot.name, &old.version) {
                    continue;
                }
                match is_needed(plane, &bot.name, &old.version).await {
                    true => elsewhere = true,
                    false => retire_old(plane, bot, old.version).await,
                }
            }
        }
        tokio::time::sleep(REST).await;
        let soon = async {
            match elsewhere {
                // Nothing that moves here tells, and asking for it costs the store something.
                true => std::future::pending().await,
                false => moved.changed().await,
            }
        };
        let _ = tokio::time::timeout(LOOK_AGAIN, soon).await;
    }
}

/// Whether a session that is driven or accepted here may yet have a machine of it.
fn is_needed_here(plane: &Plane, bot: &str, version: &Version) -> bool {
    let has = |session: &Session| session.bot == bot && session.version == *version;
    let enters = |track: Track| track.entering.contains_key(version);
    plane.rollouts.of(bot).is_none_or(enters)
        || plane.handles().iter().any(|(_, handle)| has(&handle.session.borrow()))
}

/// Whether any session that has not ended may: another dispatcher may drive some of this host's.
async fn is_needed(plane: &Plane, bot: &str, version: &Version) -> bool {
    let mut needed = false;
    let has = |session: Session| needed |= session.version == *version;
    match each_living(&*plane.store, Some(bot), has).await {
        Ok(()) => needed,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "cannot look who has an old version");
            true
        }
    }
}

async fn retire_old(plane: &Plane, bot: &Bot, version: Version) {
    // What is just being prepared may be the same.
    let _busy = plane.rollouts.busy.lock().await;
    let left = plane.rollouts.change(&bot.name, |track| {
        // It may have come back meanwhile.
        let before = track.old.len();
        track.old.retain(|old| old.version != version);
        track.old.len() < before
    });
    if left == Some(true) {
        tracing::info!(bot = bot.name, version, "nobody has this old version any more");
        retire(plane, bot, version).await;
    }
}

/// Removes what there is of a version, as far as nobody else needs it.
async fn retire(plane: &Plane, bot: &Bot, version: Version) {
    let Some(provider) = plane.providers.get(bot.provider.as_str()) else { return };
    let used = plane.rollouts.needed(plane, provider.name());
    let gone = BotVersion { bot: Arc::clone(&bot.machine), version };
    if let Err(fault) = provider.retire(&gone, &used).await {
        tracing::warn!(bot = bot.name, %fault, "cannot remove what is left of an old version");
    }
}
