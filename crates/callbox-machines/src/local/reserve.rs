//! The reserve of this host: parked machines, which stand still until a session takes them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use callbox_microvm::{Error, Host, Parked, chain};

use super::Local;
use crate::{
    BotMachine, BotVersion,
    reserve::{Kept, Maker, Reserves},
};

/// How long a machine may be in no pool before it is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Parked machines that are in no pool, and since when.
pub(super) type Strays = Mutex<BTreeMap<String, Instant>>;

impl Kept for Parked {
    fn age(&self) -> Duration {
        self.age()
    }

    fn took(&self) -> Duration {
        self.took()
    }

    fn is_lost(&self) -> bool {
        self.is_lost()
    }
}

impl Maker for Local {
    type Machine = Parked;

    async fn make(&self, bot: &BotVersion) -> Result<Parked, String> {
        let what = self.plan_start(bot, "", &()).await.map_err(|error| error.to_string())?;
        self.host.park(&what).await.map_err(|error| chain(&error))
    }

    fn has_room(&self, bot: &Arc<BotMachine>) -> bool {
        self.room_in_reserve(bot)
    }

    async fn discard(&self, parked: Parked) {
        discard(&self.host, parked).await;
    }

    async fn look_around(&self) {
        self.host.let_go_of_removed_templates();
        for name in forgotten(&self.reserves, &self.host, &self.strays) {
            match self.host.remove_parked(&name).await {
                Ok(()) => tracing::warn!(name, "removed a machine of the reserve that nobody held"),
                Err(error) => tracing::warn!(name, error = %chain(&error), "it stays for now"),
            }
        }
    }
}

/// Machines that have been in no pool for a while: their removal was given up or failed. One that a
/// session is just taking is in no pool either, but soon has another name.
fn forgotten(reserves: &Reserves<Parked>, host: &Host, strays: &Strays) -> Vec<String> {
    let parked = host.parked().unwrap_or_default();
    let mut held = Vec::new();
    reserves.each(|parked| held.push(parked.name().to_owned()));
    let mut strays = strays.lock().expect("no panic while held");
    strays.retain(|name, _| parked.contains(name) && !held.contains(name));
    for name in parked.into_iter().filter(|name| !held.contains(name)) {
        strays.entry(name).or_insert_with(Instant::now);
    }
    let old = strays.iter().filter(|(_, since)| since.elapsed() > FORGOTTEN);
    old.map(|(name, _)| name.clone()).collect()
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

/// Whether a claim that failed leaves it to a fresh machine: everything but a taken name.
pub(super) fn goes_on(error: &Error) -> bool {
    !matches!(error, Error::Exists(_))
}
