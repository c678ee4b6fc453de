//! The store, as one dispatcher sees it: slow, away for a while, and sometimes it cannot say what
//! it did. Every row that is written is looked at ([`super::rows`]).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use callbox_core::{Session, SessionId, Time};
use callbox_server::store::{
    Deployment, Filter, Inserted, KeyRecord, Memory, NewSession, Replica, Saved, Store, StoreError,
    Versioned,
};
use tokio::{
    sync::broadcast,
    time::{Instant, sleep, sleep_until},
};

use super::{World, facts::Cause, front::Life};
use crate::audit::LOST;

/// See the module's documentation.
pub struct SimStore {
    life: Arc<Life>,
    /// Of a store that gives no hints: nothing is ever sent.
    silent: broadcast::Sender<SessionId>,
}

impl SimStore {
    /// For this dispatcher.
    pub fn new(life: &Arc<Life>) -> SimStore {
        SimStore { life: Arc::clone(life), silent: broadcast::Sender::new(1) }
    }

    /// One call: it may fail before or after it was done.
    async fn ask<T, F>(&self, what: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let away = self.life.store_away_until();
        if away > Instant::now() {
            let patience = self.life.world.inner().dice.between(100, 8_000);
            sleep_until(away.min(Instant::now() + patience)).await;
            self.life.world.inner().count(&format!("fault.store-away.{what}"));
            return Err(StoreError::unanswered("answer: it is away"));
        }
        let world = Arc::clone(&self.life.world);
        let call = self.life.call(what, 3.0, move |_| async move {
            let fails = world.happens(world.weather.store_fails);
            let done = world.happens(0.5);
            if fails && !done {
                world.inner().count(&format!("fault.store-refuses.{what}"));
                return Err(StoreError::unanswered("do what was asked"));
            }
            let answer = work.await;
            if fails {
                world.inner().count(&format!("fault.store-lost-answer.{what}"));
                return Err(StoreError::unanswered("say what it did"));
            }
            answer
        });
        call.await
    }

    fn parts(&self) -> (Arc<World>, Memory, String) {
        let world = &self.life.world;
        (Arc::clone(world), world.store.clone(), self.life.name.clone())
    }
}

impl World {
    fn hears_of(&self, replica: &str) {
        self.inner().heard_of.insert(replica.to_owned(), Instant::now());
    }

    /// This replica lets go of these.
    fn lets_go(&self, replica: &str, driven: &[SessionId]) {
        self.hears_of(replica);
        let mut inner = self.inner();
        driven.iter().for_each(|id| inner.facts(*id).let_go = Some(Instant::now()));
    }

    /// The session was taken over by somebody who may not reach its machine. That one is given up
    /// if nobody was near it for long enough at that moment: since its driver let go, or, if that
    /// died, since its host was heard of. (A process that comes up there meanwhile, and dies before
    /// it takes up what it finds, is near no machine.)
    fn is_taken_over(&self, session: &Session, by: &Replica) {
        let mut inner = self.inner();
        let let_go = inner.facts(session.id).let_go.take();
        let heard = let_go.or_else(|| inner.heard_of.get(&session.place).copied());
        let near = session.place.is_empty() || session.place == by.place;
        if !near && heard.is_none_or(|heard| heard.elapsed() >= LOST) {
            inner.facts(session.id).did(Cause::HostLost);
        }
    }
}

#[async_trait]
impl Store for SimStore {
    fn can_be_shared(&self) -> bool {
        true
    }

    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError> {
        let ((world, store, who), mut new) = (self.parts(), new.clone());
        if crate::planted::key_not_kept() {
            new.start_key = None;
        }
        let work = async move {
            let inserted = store.insert(&new).await?;
            if let Inserted::Created(row) = &inserted {
                world.saw_row(&who, None, &row.session);
            }
            Ok(inserted)
        };
        self.ask("insert", work).await
    }

    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError> {
        let (_, store, _) = self.parts();
        self.ask("get", async move { store.get(id).await }).await
    }

    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError> {
        let ((world, store, who), session) = (self.parts(), session.clone());
        let work = async move {
            let before = store.get(session.id).await?;
            let mut expected = expected;
            if crate::planted::no_compare_and_set() {
                expected = before.as_ref().map_or(expected, |row| row.version);
            }
            let saved = store.save(&session, expected).await?;
            match saved {
                Saved::Saved(_) => {
                    world.saw_row(&who, before.as_ref().map(|row| &row.session), &session);
                }
                Saved::Conflict => world.note("conflict", || format!("{who} {}", session.id)),
            }
            Ok(saved)
        };
        self.ask("save", work).await
    }

    async fn living(&self) -> Result<Vec<SessionId>, StoreError> {
        let (_, store, _) = self.parts();
        self.ask("living", async move { store.living().await }).await
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError> {
        let ((_, store, _), filter) = (self.parts(), filter.clone());
        self.ask("list-sessions", async move { store.list(&filter).await }).await
    }

    async fn beat(&self, replica: &Replica) -> Result<(), StoreError> {
        let ((world, store, _), replica) = (self.parts(), replica.clone());
        let work = async move {
            world.hears_of(&replica.id);
            store.beat(&replica).await
        };
        self.ask("beat", work).await
    }

    async fn replicas(&self, within: Duration) -> Result<Vec<Replica>, StoreError> {
        let (_, store, _) = self.parts();
        self.ask("replicas", async move { store.replicas(within).await }).await
    }

    async fn take_over(
        &self,
        replica: &Replica,
        silence: Duration,
        lost: Duration,
        limit: u32,
    ) -> Result<Vec<Versioned>, StoreError> {
        let ((world, store, who), replica) = (self.parts(), replica.clone());
        let work = async move {
            let taken = store.take_over(&replica, silence, lost, limit).await?;
            for row in &taken {
                world.note("taken-over", || format!("{who} {}", row.session.id));
                world.is_taken_over(&row.session, &replica);
            }
            Ok(taken)
        };
        self.ask("take-over", work).await
    }

    async fn driven(&self, replica: &str) -> Result<Vec<SessionId>, StoreError> {
        let ((_, store, _), replica) = (self.parts(), replica.to_owned());
        self.ask("driven", async move { store.driven(&replica).await }).await
    }

    async fn retire(&self, replica: &str) -> Result<(), StoreError> {
        let ((world, store, _), replica) = (self.parts(), replica.to_owned());
        let work = async move {
            world.lets_go(&replica, &store.driven(&replica).await?);
            store.retire(&replica).await
        };
        self.ask("retire", work).await
    }

    fn changes(&self) -> broadcast::Receiver<SessionId> {
        if self.life.world.weather.hints {
            self.life.world.store.changes()
        } else {
            self.silent.subscribe()
        }
    }

    async fn versions(
        &self,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError> {
        let ((_, store, _), ids) = (self.parts(), ids.to_vec());
        self.ask("versions", async move { store.versions(&ids).await }).await
    }

    async fn prune(&self, before: Time, limit: u32) -> Result<Vec<SessionId>, StoreError> {
        let (_, store, _) = self.parts();
        self.ask("prune", async move { store.prune(before, limit).await }).await
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        self.life.world.store.deployment().await
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        self.life.world.store.add_key(key).await
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        self.life.world.store.key(id).await
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let (_, store, _) = self.parts();
        self.ask("keys", async move { store.keys().await }).await
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool, StoreError> {
        self.life.world.store.revoke_key(id, now).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}
