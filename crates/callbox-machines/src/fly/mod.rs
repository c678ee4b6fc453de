//! Machines at Fly (`callbox_fly`): one for each session, made when it starts or taken out of a
//! reserve (`reserve` makes what waits, `take` gives it to a session).
//!
//! The agent is the entry point of the bot's image. It finds its dispatcher by a file that the
//! machine is made with, and dials; from then on it is spoken to like any other.

mod admit;
mod create;
mod fault;
mod find;
mod pace;
mod price;
mod request;
mod reserve;
mod start;
mod take;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use callbox_core::Fault;
use callbox_fly::{Action, Client, ErrorKind};
use callbox_link::Link;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

pub use callbox_fly::{BASE_URL, ClientError, Token};

use crate::{
    Admission, Arrivals, BotMachine, BotVersion, Claims, Listed, MachineSpec, Prices, Progress,
    Provider, Reserve, StartFault, Started,
    reserve::{Key, Reserves, tend},
};
use fault::fault;
use find::{Known, Place};
use pace::Pace;
use reserve::{Door, Waiting};
use start::{Stages, has_ended};

/// How long one call to Fly may take.
const CALL: Duration = Duration::from_secs(30);
/// What a bot gets between SIGTERM and SIGKILL when Fly stops its machine by itself.
const GRACE: Duration = Duration::from_secs(5);
/// What Fly gives the whole machine then.
const STOP: Duration = Duration::from_secs(10);
/// An agent that is there dials within so long.
const DIALS: Duration = Duration::from_secs(1);

/// What there is not around machines at Fly (fly.md section 7).
const WALLS: &str = "network: machines at Fly reach the internet, and everything in the private \
                     network of their app";

/// What the provider must know.
#[derive(Clone, Debug)]
pub struct FlyConfig {
    /// The apps that machines are made in. More of them can make more machines a second.
    pub apps: Vec<String>,
    /// Machines that there may be at once, in all of them.
    pub max_machines: usize,
    /// The dispatcher's address, as machines see it.
    pub public_url: String,
    /// PEM certificates that machines trust beside the public ones.
    pub authorities: Option<String>,
    /// The deployment's id.
    pub deployment: String,
    /// How long a machine lives without a dispatcher.
    pub orphan_after: Duration,
    /// What machines cost.
    pub prices: callbox_fly::Prices,
    /// How large a bot's image is taken to be, in GB: what a machine that does not run costs.
    pub image_gb: f64,
    /// This replica's id: machines in reserve are its own, and come to it only.
    pub keeper: String,
}

/// The provider `fly`.
#[derive(Debug)]
pub struct Fly {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    config: FlyConfig,
    arrivals: Arrivals,
    pace: Pace,
    known: Mutex<BTreeMap<String, Known>>,
    reserves: Reserves<Arc<Waiting>>,
    /// The machines in reserve by name, from before they are made until they are a session's or
    /// gone: whether each may connect.
    kept: Mutex<BTreeMap<String, Door>>,
    /// Regions that had no room, and when.
    full: Mutex<HashMap<String, Instant>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Fly {
    /// Asks nothing of anybody; `secret` is one that all replicas share.
    ///
    /// # Panics
    /// Without an app.
    pub fn new(client: Client, config: FlyConfig, secret: &[u8]) -> Fly {
        assert!(!config.apps.is_empty(), "machines are made in an app");
        Fly {
            inner: Arc::new(Inner {
                client,
                config,
                arrivals: Arrivals::new(secret),
                pace: Pace::default(),
                known: Mutex::default(),
                reserves: Reserves::new(),
                kept: Mutex::default(),
                full: Mutex::default(),
            }),
        }
    }
}

#[async_trait]
impl Provider for Fly {
    fn name(&self) -> &'static str {
        "fly"
    }

    /// The digest, where the image is named by it.
    async fn version(&self, bot: &BotMachine) -> Result<Option<String>, Fault> {
        Ok(bot.image.split_once('@').map(|(_, digest)| digest.to_owned()))
    }

    /// Nothing can be done ahead; but what Fly will refuse is better known now.
    async fn prepare(&self, bot: &BotVersion, _: &dyn Progress) -> Result<(), StartFault> {
        request::check(&bot.bot)?;
        for app in &self.inner.config.apps {
            self.inner.pace.turn(Action::GetApp, app).await;
            self.inner.client.app(app, CALL).await.map_err(|error| fault(&error))?;
        }
        Ok(())
    }

    fn not_enforced(&self) -> Vec<String> {
        vec![WALLS.into()]
    }

    fn prices(&self, bot: &BotMachine) -> Option<Prices> {
        self.inner.prices(bot)
    }

    async fn tend(&self, bots: watch::Receiver<Vec<BotVersion>>) {
        tend(&self.inner.reserves, bots, &self.inner).await;
    }

    async fn filled(&self, bot: &BotVersion) -> Result<(), StartFault> {
        let filled = self.inner.reserves.filled(bot).await;
        filled.map_err(|detail| StartFault::Provider(Fault::refused(detail)))
    }

    fn reserves(&self) -> Vec<Reserve> {
        self.inner.reserves.levels()
    }

    /// What waits in reserve counts; it is given up when a session needs its room.
    fn admit(&self, next: &MachineSpec, claimed: &Claims) -> Result<Admission, Fault> {
        let (inner, reserve) = (&self.inner, Key::of(next));
        if inner.reserves.ready(&reserve) > inner.spoken_for(claimed, &reserve) {
            return Ok(Admission::Prepared);
        }
        let most = inner.config.max_machines;
        if claimed.count() + inner.reserves.count() < most {
            return Ok(inner.paced(next, claimed));
        }
        Ok(Admission::Full {
            detail: format!(
                "there are as many machines at Fly as may be (fly.max_machines, {most})"
            ),
        })
    }

    fn start_pace(&self) -> Option<Duration> {
        Some(self.inner.start_pace())
    }

    fn share(&self, replicas: usize) {
        self.inner.pace.share(replicas);
    }

    async fn shed(&self, _next: &MachineSpec, claimed: &Claims) -> Result<bool, Fault> {
        let inner = &self.inner;
        let spare = inner.reserves.give_up(|reserve| inner.spoken_for(claimed, reserve));
        let Some(spare) = spare else { return Ok(false) };
        let removed = inner.removal(&spare.name).await;
        removed.map_err(Fault::unknown)?;
        Ok(true)
    }

    async fn ensure(&self, spec: &MachineSpec) -> Result<Started, StartFault> {
        let _starting = self.inner.reserves.starting();
        if let Some(started) = self.inner.take(spec).await? {
            return Ok(started);
        }
        let stages = Stages::default();
        let since = Instant::now();
        let place = self.inner.made(spec).await?;
        stages.add("create", since);
        self.inner.started(spec, &place, stages).await
    }

    async fn connect(&self, name: &str) -> Result<Link, Fault> {
        let inner = &self.inner;
        // Mostly it is there, or about to be: then Fly need not be asked.
        if let Ok(link) = timeout(DIALS, inner.arrivals.link(name)).await {
            return Ok(link);
        }
        let gone = || Fault::not_found(format!("there is no machine {name} at Fly"));
        let place = inner.find(name).await?.ok_or_else(gone)?;
        match inner.look_at(&place).await {
            Ok(machine) if has_ended(&machine) => return Err(gone()),
            Ok(_) => {}
            Err(error) => return Err(fault(&error)),
        }
        tokio::select! {
            link = inner.arrivals.link(name) => Ok(link),
            why = inner.end_of(&place) => Err(Fault::not_found(why)),
        }
    }

    fn recall(&self, name: &str, id: &str) {
        let Some(place) = Place::parse(id) else { return };
        self.inner.know(name, |known| known.place = known.place.take().or(Some(place)));
    }

    fn keeps(&self, name: &str) -> Option<bool> {
        self.inner.keeps(name)
    }

    fn arrivals(&self) -> Option<&Arrivals> {
        Some(&self.inner.arrivals)
    }

    async fn destroy(&self, name: &str) -> Result<(), Fault> {
        self.inner.remove(name).await
    }

    async fn tidy(&self) -> Result<(), Fault> {
        self.inner.remove_reserves().await
    }

    async fn list(&self) -> Result<Vec<Listed>, Fault> {
        self.inner.list().await
    }
}

impl Inner {
    /// Ends the machine of this name, wherever it is.
    async fn remove(&self, name: &str) -> Result<(), Fault> {
        self.arrivals.forget(name);
        while let Some(place) = self.find(name).await? {
            self.pace.turn(Action::Destroy, &place.id).await;
            match self.client.destroy(&place.app, &place.id, true, CALL).await {
                Ok(()) => break,
                Err(error) if error.is_not_found() => break,
                Err(error) => match &error.kind {
                    ErrorKind::RateLimited { retry_after } => {
                        let pause = retry_after.unwrap_or(Duration::from_secs(1));
                        self.pace.too_often(Action::Destroy, &place.id, pause).await;
                    }
                    ErrorKind::LeaseHeld | ErrorKind::ConcurrentUpdate => {
                        sleep(Duration::from_secs(1)).await;
                    }
                    _ => return Err(fault(&error)),
                },
            }
        }
        self.let_go(name);
        if let Some(taken) = self.forget(name).and_then(|known| known.taken) {
            self.let_go(&taken);
            self.forget(&taken);
        }
        Ok(())
    }
}
