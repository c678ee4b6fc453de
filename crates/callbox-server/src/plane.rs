//! The parts of a running dispatcher, built once and shared by everything in it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use callbox_core::{EventKind, Session, SessionId, State, UsageSeen};
use callbox_link::Link;
use callbox_machines::{Provider, ReserveLevel};
use callbox_transports::{SessionTokens, Transport};
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    clock::Clock,
    config::{Bot, Config},
    drain::Drain,
    logs::Logs,
    media::{Seat, relay::Relays},
    queue::Queue,
    replica::Replicas,
    rollout::Rollouts,
    signalling::Turn,
    store::{Store, StoreError},
    tasks::{Task, Tasks},
};

/// Everything that a request or a driver needs.
pub struct Plane {
    /// What the operator decided.
    pub config: Config,
    /// What must not be forgotten.
    pub store: Arc<dyn Store>,
    /// Who runs machines, by name.
    pub providers: BTreeMap<&'static str, Arc<dyn Provider>>,
    /// How client and bot meet, by name.
    pub transports: BTreeMap<&'static str, Arc<dyn Transport>>,
    /// Clients' rights to single sessions.
    pub tokens: SessionTokens,
    /// What was written about sessions.
    pub logs: Logs,
    /// What time it is.
    pub clock: Clock,
    /// What runs beside requests.
    pub tasks: Tasks,
    /// Who may start now, and who waits.
    pub queue: Queue,
    /// Who we are, and who else there is.
    pub replicas: Replicas,
    /// Which versions of bots sessions get.
    pub rollouts: Rollouts,
    /// Whether sessions are taken, and until when those that live may.
    pub drain: Drain,
    /// The processes that carry calls.
    pub relays: Relays,
    driven: Mutex<HashMap<SessionId, Handle>>,
    /// Bots that are being prepared, and what that is at.
    preparing: Mutex<BTreeMap<String, String>>,
    closing: AtomicBool,
    sweep: Notify,
}

/// A session that has a driver here.
#[derive(Clone)]
pub struct Handle {
    /// What happened goes in here; the driver decides what it means.
    pub inbox: mpsc::UnboundedSender<EventKind>,
    /// The row as it was last saved.
    pub session: watch::Receiver<Session>,
    /// The way to the machine's agent, while there is one.
    pub link: watch::Receiver<Option<Link>>,
    /// What its machine uses, fresher than the row.
    pub usage: watch::Receiver<Option<UsageSeen>>,
    /// Where the client sits; a session has one.
    pub media: Arc<Seat>,
    /// Wakes who watches the room: something changed in there.
    pub(crate) room_news: Arc<Notify>,
    /// Whose turn it is to signal.
    pub(crate) signalling: Turn,
    pub(crate) orders: Arc<Orders>,
}

/// What a driver is told beside what happened, and how far its row is.
#[derive(Debug)]
pub(crate) struct Orders {
    told: Notify,
    leave: AtomicBool,
    version: AtomicI64,
}

impl Orders {
    pub fn at(version: i64) -> Orders {
        let (told, leave) = (Notify::new(), AtomicBool::new(false));
        Orders { told, leave, version: AtomicI64::new(version) }
    }

    /// Resolves when the driver shall look at its row, or go.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    /// Whether the driver shall go and touch nothing.
    pub fn to_leave(&self) -> bool {
        self.leave.load(Ordering::Acquire)
    }

    /// The version of the driver's row.
    pub fn now_at(&self, version: i64) {
        self.version.store(version, Ordering::Release);
    }
}

impl Handle {
    /// Tells the driver. One that is gone has nothing left to decide.
    pub fn tell(&self, kind: EventKind) {
        let _ = self.inbox.send(kind);
    }

    /// Has the driver look at its row: somebody else may have moved it.
    pub fn look(&self) {
        self.orders.told.notify_one();
    }

    /// Has the driver go and leave everything as it is.
    pub fn leave(&self) {
        self.orders.leave.store(true, Ordering::Release);
        self.orders.told.notify_one();
    }

    /// The version at which the driver last saw its row.
    pub fn version(&self) -> i64 {
        self.orders.version.load(Ordering::Acquire)
    }

    /// The session as soon as `what` holds for it; none when its driver is gone before that.
    pub async fn until(&self, what: impl Fn(&Session) -> bool + Send) -> Option<Session> {
        let mut session = self.session.clone();
        session.wait_for(what).await.ok().map(|session| session.clone())
    }

    /// The way to the machine's agent, as soon as there is one.
    pub async fn agent(&self) -> Option<Link> {
        let mut link = self.link.clone();
        link.wait_for(Option::is_some).await.ok().and_then(|link| link.clone())
    }
}

/// Whether the session is on its way out, or is out.
pub fn over(session: &Session) -> bool {
    matches!(session.state, State::Ending { .. } | State::Ended { .. })
}

impl Plane {
    /// From ready-made parts, with the clock that the logs have.
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        providers: Vec<Arc<dyn Provider>>,
        transports: Vec<Arc<dyn Transport>>,
        tokens: SessionTokens,
        logs: Logs,
    ) -> Arc<Plane> {
        Arc::new(Plane {
            relays: Relays::of(&config.data_dir),
            replicas: Replicas::of(&config.data_dir, store.can_be_shared()),
            config,
            store,
            providers: providers.into_iter().map(|p| (p.name(), p)).collect(),
            transports: transports.into_iter().map(|t| (t.name(), t)).collect(),
            tokens,
            clock: logs.clock().clone(),
            logs,
            tasks: Tasks::default(),
            queue: Queue::default(),
            rollouts: Rollouts::default(),
            drain: Drain::default(),
            driven: Mutex::default(),
            preparing: Mutex::default(),
            closing: AtomicBool::new(false),
            sweep: Notify::new(),
        })
    }

    /// Has `future` run beside everything else, as long as this dispatcher does.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(future)
    }

    /// The bot of this name.
    pub fn bot(&self, name: &str) -> Option<&Arc<Bot>> {
        self.config.bots.get(name)
    }

    /// Where a machine of this provider is made by us: on our host, if only we shall reach it.
    pub fn place_of(&self, provider: &str) -> String {
        let here = self.providers.get(provider).is_some_and(|provider| provider.on_this_host());
        if here { self.replicas.id().to_owned() } else { String::new() }
    }

    /// The session, from its driver or from the store.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        if let Some(handle) = self.handle(id) {
            return Ok(Some(handle.session.borrow().clone()));
        }
        Ok(self.store.get(id).await?.map(|versioned| versioned.session))
    }

    /// The session's driver here, if it has one.
    pub fn handle(&self, id: SessionId) -> Option<Handle> {
        self.driven().get(&id).cloned()
    }

    /// All sessions that are driven here.
    pub fn handles(&self) -> Vec<(SessionId, Handle)> {
        self.driven().iter().map(|(id, handle)| (*id, handle.clone())).collect()
    }

    pub(crate) fn driven(&self) -> MutexGuard<'_, HashMap<SessionId, Handle>> {
        self.driven.lock().expect("no panic while held")
    }

    /// Bots that are being prepared, and what that is at.
    pub fn preparing(&self) -> BTreeMap<String, String> {
        self.preparing.lock().expect("no panic while held").clone()
    }

    /// Notes what preparing a bot is at; none when it is over.
    pub(crate) fn set_preparing(&self, bot: &str, stage: Option<&str>) {
        let mut preparing = self.preparing.lock().expect("no panic while held");
        match stage {
            Some(stage) => drop(preparing.insert(bot.to_owned(), stage.to_owned())),
            None => drop(preparing.remove(bot)),
        }
    }

    /// How far the bots' reserves are filled, all their versions together, by bot.
    pub fn reserves(&self) -> BTreeMap<String, ReserveLevel> {
        let mut levels: BTreeMap<String, ReserveLevel> = BTreeMap::new();
        for reserve in self.providers.values().flat_map(|provider| provider.reserves()) {
            let level = levels.entry(reserve.bot).or_default();
            level.ready += reserve.level.ready;
            level.target += reserve.level.target;
        }
        levels
    }

    /// No more starts: the dispatcher is on its way out.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether starts are refused because the dispatcher is on its way out.
    pub fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Has the next sweep come at once.
    pub(crate) fn sweep_soon(&self) {
        self.sweep.notify_one();
    }

    /// Resolves when a sweep is to come at once.
    pub(crate) async fn sweep_wanted(&self) {
        self.sweep.notified().await;
    }
}
