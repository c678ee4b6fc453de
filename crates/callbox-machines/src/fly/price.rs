//! What machines at Fly cost.

use callbox_core::Price;

use super::{Inner, request};
use crate::{BotMachine, Prices, ReserveKind};

impl Inner {
    /// What a machine of this bot costs while it runs in that region; where it is not known yet,
    /// in the one that is tried first.
    pub fn price(&self, bot: &BotMachine, region: Option<&str>) -> Option<Price> {
        let guest = request::guest(bot).ok()?;
        let region = region.or(bot.cloud.regions.first().map(String::as_str));
        Some(self.of_list(self.config.prices.started(&guest, region)))
    }

    pub fn prices(&self, bot: &BotMachine) -> Option<Prices> {
        let machine = self.price(bot, None)?;
        let waiting = match bot.reserve.kind {
            ReserveKind::Started => machine.clone(),
            ReserveKind::Stopped | ReserveKind::Suspended => {
                self.of_list(self.config.prices.parked(self.config.image_gb))
            }
        };
        Some(Prices { machine, waiting })
    }

    fn of_list(&self, nano_usd_per_s: u64) -> Price {
        Price { nano_usd_per_s, as_of: self.config.prices.as_of.clone() }
    }
}
