//! `/v1/prices`: what machines cost.

use std::time::Duration;

use axum::{Json, extract::State};
use callbox_core::Price;
use callbox_protocol::api::{BotPrice, ErrorBody, PriceList};

use super::{App, caller::Operator};
use crate::config::Bot;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the machines of each bot cost: while they serve, and while they wait.
#[utoipa::path(
    get, path = "/v1/prices", tag = "info",
    responses((status = 200, body = PriceList), (status = 401, body = ErrorBody)),
    security(("key" = []))
)]
pub async fn list(State(app): State<App>, _operator: Operator) -> Json<PriceList> {
    let bots = app.plane.config.bots.values().map(|bot| price(&app, bot)).collect();
    Json(PriceList { bots })
}

fn price(app: &App, bot: &Bot) -> BotPrice {
    let provider = app.plane.providers.get(bot.provider.as_str());
    let prices = provider.and_then(|provider| provider.prices(&bot.machine));
    // As many as there shall be now: that follows the demand.
    let levels = provider.map(|provider| provider.reserves()).unwrap_or_default();
    let of_bot = levels.iter().filter(|reserve| reserve.bot == bot.name);
    let waiting: usize = of_bot.map(|reserve| reserve.level.target).sum();
    let reserve = u32::try_from(waiting).unwrap_or(u32::MAX);
    let for_all = |price: &Price| price.usd(DAY) * f64::from(reserve);
    BotPrice {
        bot: bot.name.clone(),
        provider: bot.provider.clone(),
        session_usd_per_hour: prices.as_ref().map(|prices| prices.machine.usd(HOUR)),
        reserve,
        reserve_usd_per_day: prices.as_ref().map(|prices| for_all(&prices.waiting)),
        prices_as_of: prices.map(|prices| prices.machine.as_of),
    }
}
