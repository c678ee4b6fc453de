//! What is made for bots before a session needs it: once (a template), or again and again (machines
//! in reserve).

use std::sync::Arc;

use callbox_machines::{BotMachine, Progress};
use tokio::time::Instant;

use crate::{driver::Chain, plane::Plane};

/// Says which bots will be prepared, so that readiness is not claimed before it is so.
pub fn announce(plane: &Plane) {
    for bot in plane.config.bots.keys() {
        plane.set_preparing(bot, Some("waiting"));
    }
}

/// Prepares every bot, then keeps their reserves filled for as long as it is let.
pub async fn run(plane: Arc<Plane>) {
    all(&plane).await;
    let tending = plane.providers.iter().map(|(name, provider)| {
        let bots = machines_of(&plane, name);
        async move { provider.tend(&bots).await }
    });
    futures::future::join_all(tending).await;
}

/// Prepares every bot, one after the other: two at once would only take each other's processors.
/// A bot that cannot be prepared is reported; its sessions will fail with the same words.
async fn all(plane: &Arc<Plane>) {
    let bots: Vec<_> = plane.config.bots.values().cloned().collect();
    for bot in bots {
        let began = Instant::now();
        let name = bot.name.as_str();
        if let Some(provider) = plane.providers.get(bot.provider.as_str()) {
            let stages = Stages { plane, bot: name };
            match provider.prepare(&bot.machine, &stages).await {
                Ok(()) => {
                    let took_ms = began.elapsed().as_millis();
                    tracing::info!(bot = name, took_ms, "the bot is prepared");
                }
                Err(error) => {
                    tracing::error!(bot = name, error = %Chain(&error), "the bot cannot be prepared");
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
        if let Err(fault) = provider.retain(&machines_of(plane, name)).await {
            tracing::warn!(provider = name, %fault, "cannot remove what no bot uses any more");
        }
    }
}

fn machines_of(plane: &Plane, provider: &str) -> Vec<Arc<BotMachine>> {
    let bots = plane.config.bots.values().filter(|bot| bot.provider == provider);
    bots.map(|bot| Arc::clone(&bot.machine)).collect()
}

struct Stages<'a> {
    plane: &'a Plane,
    bot: &'a str,
}

impl Progress for Stages<'_> {
    fn stage(&self, name: &str) {
        tracing::info!(bot = self.bot, stage = name, "preparing the bot");
        self.plane.set_preparing(self.bot, Some(name));
    }
}
