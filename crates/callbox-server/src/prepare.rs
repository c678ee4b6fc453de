//! What is made for bots before a session needs it: once (a template), or again and again (machines
//! in reserve).

use std::sync::Arc;

use callbox_machines::{BotVersion, Progress};
use tokio::time::Instant;

use crate::{driver::Chain, plane::Plane, rollout};

/// Says which bots will be prepared, so that readiness is not claimed before it is so.
pub fn announce(plane: &Plane) {
    for bot in plane.config.bots.keys() {
        plane.set_preparing(bot, Some("waiting"));
    }
}

/// Prepares every bot, then keeps their reserves filled and rolls new versions out, for as long as
/// it is let.
pub async fn run(plane: Arc<Plane>) {
    all(&plane).await;
    let tending = plane.providers.iter().map(|(name, provider)| {
        let bots = plane.rollouts.tended(name);
        async move {
            if let Some(bots) = bots {
                provider.tend(bots).await;
            }
        }
    });
    tokio::join!(futures::future::join_all(tending), rollout::run(&plane));
}

/// Prepares every bot, one after the other: two at once would only take each other's processors.
/// A bot that cannot be prepared is reported; its sessions will fail with the same words.
async fn all(plane: &Arc<Plane>) {
    let bots: Vec<_> = plane.config.bots.values().cloned().collect();
    for bot in bots {
        let began = Instant::now();
        let name = bot.name.as_str();
        if let Some(provider) = plane.providers.get(bot.provider.as_str()) {
            let stages = Stages { plane, bot: name, next: false };
            let version = plane.rollouts.of(name).and_then(|track| track.current.version);
            let version = BotVersion { bot: Arc::clone(&bot.machine), version };
            match provider.prepare(&version, &stages).await {
                Ok(()) => {
                    let took_ms = began.elapsed().as_millis();
                    tracing::info!(bot = name, took_ms, "the bot is prepared");
                }
                Err(error) => {
                    let error = Chain(&error).to_string();
                    tracing::error!(bot = name, error, "the bot cannot be prepared");
                    plane.rollouts.set_trouble(name, Some(error));
                }
            }
        }
        plane.set_preparing(name, None);
    }
    forget_the_rest(plane).await;
}

/// Templates are large; those of earlier bots and images are not kept for ever.
async fn forget_the_rest(plane: &Plane) {
    for (name, provider) in &plane.providers {
        if let Err(fault) = provider.retain(&plane.rollouts.needed(plane, name)).await {
            tracing::warn!(provider = name, %fault, "cannot remove what no bot uses any more");
        }
    }
}

/// What preparing a bot is at, for those who wait for it.
pub(crate) struct Stages<'a> {
    plane: &'a Plane,
    bot: &'a str,
    /// Of the next version; nobody waits for that one.
    next: bool,
}

impl<'a> Stages<'a> {
    /// Of the version that is to be served next.
    pub fn of_next(plane: &'a Plane, bot: &'a str) -> Stages<'a> {
        Stages { plane, bot, next: true }
    }
}

impl Progress for Stages<'_> {
    fn stage(&self, name: &str) {
        tracing::info!(bot = self.bot, stage = name, "preparing the bot");
        match self.next {
            true => self.plane.rollouts.set_stage(self.bot, name),
            false => self.plane.set_preparing(self.bot, Some(name)),
        }
    }
}
