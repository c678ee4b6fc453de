//! What kind of world a seed has: not every trouble everywhere, so that each also shows alone.

use std::time::Duration;

use crate::dice::Dice;

/// Probabilities are per call unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Dispatchers on the one store.
    pub replicas: usize,
    /// Clients that come within `storm`.
    pub clients: usize,
    /// How long things go wrong. After that the world is healthy.
    pub storm: Duration,
    /// How many times slower than usual everything outside is.
    pub slow: f64,
    /// A provider or transport says that it cannot now.
    pub unavailable: f64,
    /// A provider or transport refuses for good.
    pub refused: f64,
    /// How often per minute the provider is busy for everybody and for a while.
    pub provider_away: f64,
    /// It happened, or not, and the answer got lost.
    pub lost: f64,
    /// A provider or transport never answers: no error, and no end of waiting.
    pub hangs: f64,
    /// It says that it failed for good, and it happened all the same.
    pub lies: f64,
    /// A machine that is being made comes to be although it was destroyed before.
    pub late: f64,
    /// How long lists may be behind.
    pub stale: Duration,
    /// A store's call fails before or after it was done.
    pub store_fails: f64,
    /// How often per minute the store is away, for everybody or for one.
    pub store_away: f64,
    /// Whether the store tells of changes.
    pub hints: bool,
    /// A dispatcher dies before a call, or after it.
    pub crash: f64,
    /// A dispatcher that died stays away for minutes.
    pub long_absence: f64,
    /// A dispatcher that comes back has the data directory that it had.
    pub same_place: f64,
    /// How often per minute a dispatcher is replaced in order.
    pub deploys: f64,
    /// By how much dispatchers' clocks are wrong at most.
    pub skew: Duration,
    /// A machine dies in its life.
    pub machine_dies: f64,
    /// A machine falls silent in its life.
    pub machine_silent: f64,
    /// A bot ends in its life, in peace or not.
    pub bot_ends: f64,
    /// A bot says that it cannot take the call, or never says that it can.
    pub bot_fails: f64,
    /// A room is gone although nobody closed it.
    pub room_lost: f64,
    /// Machines that have room, if that is bounded.
    pub room_for: Option<usize>,
    /// Machines that may start at once, if that is bounded.
    pub max_starting: Option<usize>,
    /// Whether a machine is reached by the dispatcher of its host only.
    pub hosted: bool,
    /// How patient clients are with one request.
    pub hang_up: f64,
}

impl Weather {
    /// The weather of a seed.
    pub fn of(dice: &mut Dice) -> Weather {
        let replicas = dice.one_of(&[1, 1, 2, 2, 3]);
        // Each trouble is off in about half of the worlds.
        let mut some = |most: f64| if dice.happens(0.5) { most * dice.part() } else { 0.0 };
        let mut weather = Weather {
            replicas,
            clients: 0,
            storm: Duration::ZERO,
            slow: 1.0 + some(6.0),
            unavailable: some(0.3),
            refused: some(0.03),
            provider_away: some(1.0),
            lost: some(0.2),
            hangs: some(0.02),
            lies: some(0.05),
            late: some(0.5),
            stale: Duration::from_millis(some(8000.0) as u64),
            store_fails: some(0.08),
            store_away: some(1.0),
            hints: true,
            crash: some(0.004),
            long_absence: some(0.3),
            same_place: 1.0 - some(1.0),
            deploys: some(1.5),
            skew: Duration::from_millis(some(1500.0) as u64),
            machine_dies: some(0.3),
            machine_silent: some(0.2),
            bot_ends: some(0.5),
            bot_fails: some(0.2),
            room_lost: some(0.1),
            room_for: None,
            max_starting: None,
            hosted: false,
            hang_up: some(0.3),
        };
        weather.hints = dice.happens(0.7);
        weather.clients = dice.number(8, 40) as usize;
        weather.storm = dice.between(60_000, 240_000);
        weather.room_for = dice.happens(0.4).then(|| dice.number(2, 12) as usize);
        weather.max_starting = dice.happens(0.3).then(|| dice.number(1, 4) as usize);
        weather.hosted = dice.happens(0.25);
        weather
    }
}
