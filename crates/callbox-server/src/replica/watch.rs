//! Seeing what others did to sessions: the store's hints make it quick, a look every second makes
//! it right.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use callbox_core::{Session, SessionId};
use tokio::{
    sync::{broadcast::error::RecvError, watch as level},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{driver::Chain, plane::Plane, store::Versioned};

/// How often it is looked without a hint, too.
const LOOK: Duration = Duration::from_secs(1);
/// How long the store may take to say how sessions stand.
const ANSWER: Duration = Duration::from_secs(5);
/// So many hints are looked into at once.
const TOGETHER: usize = 1024;

/// The sessions that somebody here waits for and another replica drives.
#[derive(Default)]
pub(super) struct Watched(Mutex<HashMap<SessionId, level::Sender<i64>>>);

impl Watched {
    /// Changes when the version of the session's row is seen to have.
    fn watch(&self, id: SessionId) -> level::Receiver<i64> {
        self.map().entry(id).or_insert_with(|| level::Sender::new(0)).subscribe()
    }

    fn is(&self, id: SessionId) -> bool {
        self.map().contains_key(&id)
    }

    /// All of them, without those that nobody waits for any more.
    fn ids(&self) -> Vec<SessionId> {
        let mut map = self.map();
        map.retain(|_, told| told.receiver_count() > 0);
        map.keys().copied().collect()
    }

    fn saw(&self, id: SessionId, version: i64) {
        if let Some(told) = self.map().get(&id) {
            told.send_if_modified(|last| std::mem::replace(last, version) != version);
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<SessionId, level::Sender<i64>>> {
        self.0.lock().expect("no panic while held")
    }
}

/// Looks after all sessions that are watched or driven here, until it is dropped.
pub(super) async fn run(plane: &Plane) {
    let mut hints = plane.store.changes();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut ids = HashSet::new();
        tokio::select! {
            _ = look.tick() => ids = all(plane),
            hint = hints.recv() => match hint {
                Ok(id) => {
                    ids.extend(concerns(plane, id).then_some(id));
                    while ids.len() < TOGETHER && let Ok(id) = hints.try_recv() {
                        ids.extend(concerns(plane, id).then_some(id));
                    }
                }
                Err(RecvError::Lagged(_)) => ids = all(plane),
                // A store that gives no hints is looked at.
                Err(RecvError::Closed) => { look.tick().await; ids = all(plane); }
            },
        }
        if !ids.is_empty() {
            compare(plane, ids.into_iter().collect()).await;
        }
    }
}

/// While nobody else ever was there, nobody else moves our sessions.
fn concerns(plane: &Plane, id: SessionId) -> bool {
    plane.replicas.watched.is(id) || plane.replicas.shared() && plane.handle(id).is_some()
}

fn all(plane: &Plane) -> HashSet<SessionId> {
    let mut ids: HashSet<SessionId> = plane.replicas.watched.ids().into_iter().collect();
    if plane.replicas.shared() {
        ids.extend(plane.handles().into_iter().map(|(id, _)| id));
    }
    ids
}

/// Tells those who are concerned of rows that have moved.
async fn compare(plane: &Plane, ids: Vec<SessionId>) {
    let versions = match timeout(ANSWER, plane.store.versions(&ids)).await {
        Ok(Ok(versions)) => versions,
        // The next look asks again.
        Ok(Err(error)) => {
            tracing::debug!(error = %Chain(&error), "cannot see how sessions stand");
            return;
        }
        Err(_) => return,
    };
    for (id, version, _) in versions {
        plane.replicas.watched.saw(id, version);
        if let Some(handle) = plane.handle(id)
            && handle.version() < version
        {
            handle.look();
        }
    }
}

/// Follows one session, whoever drives it.
pub struct Follower {
    plane: Arc<Plane>,
    id: SessionId,
    last: Option<Session>,
}

impl Follower {
    /// From the beginning.
    pub fn of(plane: &Arc<Plane>, id: SessionId) -> Follower {
        Follower { plane: Arc::clone(plane), id, last: None }
    }

    /// The session, as soon as it is not what it was when this was last asked; none when there is
    /// no such session. While the store does not answer, nothing is news. Can be dropped at any
    /// point and asked again.
    pub async fn next(&mut self) -> Option<Session> {
        loop {
            if let Some(handle) = self.plane.handle(self.id) {
                let mut session = handle.session.clone();
                let last = self.last.as_ref();
                let news = session.wait_for(|now| Some(now) != last).await;
                if let Ok(news) = news.map(|news| news.clone()) {
                    return self.news(news);
                }
                // Its driver is gone: it ended, or another replica drives it now.
            }
            // Before the row is read, so that nothing is missed in between.
            let mut told = self.plane.replicas.watched.watch(self.id);
            match self.plane.store.get(self.id).await {
                Ok(None) => return None,
                Ok(Some(Versioned { session, .. })) => {
                    if Some(&session) != self.last.as_ref() {
                        return self.news(session);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot see how a session stands");
                }
            }
            let _ = timeout(LOOK, told.changed()).await;
        }
    }

    fn news(&mut self, session: Session) -> Option<Session> {
        self.last = Some(session.clone());
        Some(session)
    }

    /// The session as soon as `what` holds for it; none when there is no such session.
    pub async fn until(mut self, what: impl Fn(&Session) -> bool) -> Option<Session> {
        loop {
            let session = self.next().await?;
            if what(&session) {
                return Some(session);
            }
        }
    }
}

/// Resolves when the session has another driver than `replica`.
pub(super) async fn driver_changed(plane: &Plane, id: SessionId, replica: &str) {
    let mut told = plane.replicas.watched.watch(id);
    loop {
        match plane.store.versions(&[id]).await {
            Ok(versions) => match versions.first() {
                Some((_, _, Some(driver))) if driver == replica => {}
                _ => return,
            },
            // As long as we cannot know, nothing is cut.
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot see who drives a session")
            }
        }
        // It may be for long, and is told when there is news.
        let _ = timeout(LOOK * 5, told.changed()).await;
    }
}
