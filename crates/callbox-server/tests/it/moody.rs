//! A store in memory that does not always answer.

use std::time::Duration;

use async_trait::async_trait;
use callbox_core::{Session, SessionId, Time};
use callbox_server::store::{
    Deployment, Filter, Inserted, KeyRecord, Memory, NewSession, Replica, Saved, Store, StoreError,
    Versioned,
};
use tokio::{
    sync::{broadcast, watch},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(6);

/// Clones are the same store.
#[derive(Clone, Default)]
pub(crate) struct Moody {
    pub(crate) inner: Memory,
    pub(crate) mood: watch::Sender<Mood>,
    pub(crate) beats: watch::Sender<u32>,
    /// As PostgreSQL is.
    pub(crate) shared: bool,
}

/// What it does not answer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers everything.
    #[default]
    Fine,
    /// Who asks which sessions it drives waits.
    Slow,
    /// Whatever is asked waits, and fails in the end.
    Away,
}

impl Moody {
    pub(crate) fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Waits until somebody said so often that he lives.
    pub(crate) async fn beat_so_often(&self, times: u32) {
        self.beats.subscribe().wait_for(|beats| *beats >= times).await.unwrap();
    }

    /// Waits for an answer, as long as PostgreSQL would.
    async fn ask(&self) -> Result<&Memory, StoreError> {
        let mut mood = self.mood.subscribe();
        let answers = mood.wait_for(|mood| *mood != Mood::Away);
        let away = |_| StoreError::unanswered("answer: it is away");
        timeout(PATIENCE, answers).await.map_err(away)?.unwrap();
        Ok(&self.inner)
    }
}

#[async_trait]
impl Store for Moody {
    fn can_be_shared(&self) -> bool {
        self.shared
    }
    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError> {
        self.ask().await?.insert(new).await
    }
    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError> {
        self.ask().await?.get(id).await
    }
    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError> {
        self.ask().await?.save(session, expected).await
    }
    async fn living(&self) -> Result<Vec<SessionId>, StoreError> {
        self.ask().await?.living().await
    }
    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError> {
        self.ask().await?.list(filter).await
    }
    async fn beat(&self, replica: &Replica) -> Result<(), StoreError> {
        self.ask().await?.beat(replica).await?;
        self.beats.send_modify(|beats| *beats += 1);
        Ok(())
    }
    async fn replicas(&self, within: Duration) -> Result<Vec<Replica>, StoreError> {
        self.ask().await?.replicas(within).await
    }
    async fn take_over(
        &self,
        replica: &Replica,
        silence: Duration,
        lost: Duration,
        limit: u32,
    ) -> Result<Vec<Versioned>, StoreError> {
        self.ask().await?.take_over(replica, silence, lost, limit).await
    }
    async fn driven(&self, replica: &str) -> Result<Vec<SessionId>, StoreError> {
        self.mood.subscribe().wait_for(|mood| *mood == Mood::Fine).await.unwrap();
        self.inner.driven(replica).await
    }
    async fn retire(&self, replica: &str) -> Result<(), StoreError> {
        self.ask().await?.retire(replica).await
    }
    fn changes(&self) -> broadcast::Receiver<SessionId> {
        self.inner.changes()
    }
    async fn versions(
        &self,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError> {
        self.ask().await?.versions(ids).await
    }
    async fn prune(&self, before: Time, limit: u32) -> Result<Vec<SessionId>, StoreError> {
        self.ask().await?.prune(before, limit).await
    }
    async fn deployment(&self) -> Result<Deployment, StoreError> {
        self.ask().await?.deployment().await
    }
    async fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        self.ask().await?.add_key(key).await
    }
    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        self.ask().await?.key(id).await
    }
    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.ask().await?.keys().await
    }
    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool, StoreError> {
        self.ask().await?.revoke_key(id, now).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.ask().await?.ping().await
    }
}
