//! Where a machine of a name is: what we were told, and what Fly lists.

use std::{collections::BTreeMap, time::Duration};

use callbox_core::{Fault, Time, of_reserve_name};
use callbox_fly::{Action, ListFilter, wire::Machine};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    CALL, Inner,
    fault::fault,
    request::{DEPLOYMENT, MACHINE, RESERVE},
};
use crate::Listed;

/// A create whose answer was lost may show up so much later.
const SETTLES: Duration = Duration::from_secs(10);
/// Between two looks at a list that may be stale.
const AGAIN: Duration = Duration::from_secs(2);

/// A machine at Fly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub app: String,
    pub id: String,
    /// Where it runs, if Fly has said so.
    pub region: Option<String>,
}

impl Place {
    /// As [`crate::Made`] is told it.
    pub fn parse(text: &str) -> Option<Place> {
        let (app, id) = text.split_once('/')?;
        Some(Place { app: app.to_owned(), id: id.to_owned(), region: None })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.app, self.id)
    }
}

/// What is known of a name.
#[derive(Default)]
pub(super) struct Known {
    pub place: Option<Place>,
    /// Its name while it was in reserve, until its agent knows the new one.
    pub taken: Option<String>,
    /// Closed when nobody asks for it any more.
    pub asked: Option<watch::Receiver<()>>,
    /// When a create was asked for that may have happened or not.
    pub doubt: Option<Instant>,
}

impl Inner {
    /// The app of this name's machines: the same for whoever asks.
    pub fn app_of(&self, name: &str) -> &str {
        // FNV-1a: any even spread that is the same in every process and version.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let apps = &self.config.apps;
        &apps[usize::try_from(hash % apps.len() as u64).unwrap_or_default()]
    }

    pub fn know(&self, name: &str, change: impl FnOnce(&mut Known)) {
        change(self.known.lock().expect("no panic while held").entry(name.to_owned()).or_default());
    }

    pub fn forget(&self, name: &str) -> Option<Known> {
        self.known.lock().expect("no panic while held").remove(name)
    }

    fn known<T>(&self, name: &str, look: impl FnOnce(&Known) -> Option<T>) -> Option<T> {
        look(self.known.lock().expect("no panic while held").get(name)?)
    }

    pub fn known_place(&self, name: &str) -> Option<Place> {
        self.known(name, |known| known.place.clone())
    }

    /// Where the machine of this name is, if there is one. After a create whose fate is not known,
    /// only when it has had the time to show up.
    pub async fn find(&self, name: &str) -> Result<Option<Place>, Fault> {
        if let Some(mut asked) = self.known(name, |known| known.asked.clone()) {
            // Ends with an error, when whoever asks has its answer or gave up.
            while asked.changed().await.is_ok() {}
        }
        loop {
            if let Some(place) = self.known_place(name) {
                return Ok(Some(place));
            }
            if let Some(place) = self.look_for(name).await? {
                self.know(name, |known| known.place = Some(place.clone()));
                return Ok(Some(place));
            }
            let doubt = self.known(name, |known| known.doubt);
            if doubt.is_none_or(|since| since.elapsed() > SETTLES) {
                return Ok(None);
            }
            sleep(AGAIN).await;
        }
    }

    /// Looks in all apps: which one a name belongs to changes with the configuration.
    async fn look_for(&self, name: &str) -> Result<Option<Place>, Fault> {
        let own = self.app_of(name).to_owned();
        let others = self.config.apps.iter().filter(|app| **app != own);
        for app in [&own].into_iter().chain(others) {
            let found = self.listed(app, (MACHINE, name)).await?;
            let found = found.into_iter().find(|machine| !is_gone(machine));
            if let Some(machine) = found {
                let Machine { id, region, .. } = machine;
                return Ok(Some(Place { app: app.clone(), id, region }));
            }
        }
        Ok(None)
    }

    /// All machines of this deployment, but those that are in reserve here. One that a session took
    /// out of a reserve has the session's name: as we know it, or as was noted at Fly.
    pub async fn list(&self) -> Result<Vec<Listed>, Fault> {
        let mut all = Vec::new();
        for app in &self.config.apps {
            let ours = (DEPLOYMENT, self.config.deployment.as_str());
            for machine in self.listed(app, ours).await?.into_iter().filter(|one| !is_gone(one)) {
                let made_at = machine.created().map(|at| Time::from_micros(at.as_microsecond()));
                let (id, region) = (machine.id.clone(), machine.region.clone());
                let place = Place { app: app.clone(), id, region };
                let noted = |key: &str| {
                    let config = machine.config.as_ref().or(machine.incomplete_config.as_ref());
                    config.and_then(|config| config.metadata.get(key).cloned())
                };
                let keeper = noted(RESERVE);
                let name = noted(MACHINE).or(machine.name);
                // Without its name nobody could end it.
                let name = name.ok_or_else(|| {
                    Fault::unavailable(format!("machine {} on the list has no name", machine.id))
                })?;
                all.push(Listed {
                    keeper: keeper.filter(|_| of_reserve_name(&name).is_some()),
                    name,
                    deployment: Some(self.config.deployment.clone()),
                    made_at,
                    id: Some(place.to_string()),
                });
            }
        }
        // Last: what is given to a session while Fly answers is not in reserve any more, and has
        // another name since.
        all.retain(|one| self.keeps(&one.name).is_none());
        let taken = self.taken();
        for one in &mut all {
            if let Some(name) = one.id.as_ref().and_then(|id| taken.get(id)) {
                (one.name, one.keeper) = (name.clone(), None);
            }
        }
        Ok(all)
    }

    /// The names of the sessions' machines that we know, by their places.
    fn taken(&self) -> BTreeMap<String, String> {
        let known = self.known.lock().expect("no panic while held");
        let sessions = known.iter().filter(|(name, _)| of_reserve_name(name).is_none());
        let place = |(name, known): (&String, &Known)| {
            Some((known.place.as_ref()?.to_string(), name.clone()))
        };
        sessions.filter_map(place).collect()
    }

    /// How many machines of sessions are known here.
    pub fn sessions(&self) -> usize {
        let known = self.known.lock().expect("no panic while held");
        known.keys().filter(|name| of_reserve_name(name).is_none()).count()
    }

    async fn listed(&self, app: &str, (key, value): (&str, &str)) -> Result<Vec<Machine>, Fault> {
        let metadata = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let filter = ListFilter { metadata, ..ListFilter::default() };
        self.pace.turn(Action::List, app).await;
        self.client.list(app, &filter, CALL).await.map_err(|error| fault(&error))
    }
}

fn is_gone(machine: &Machine) -> bool {
    machine.state.as_ref().is_some_and(|state| state.is_gone())
}
