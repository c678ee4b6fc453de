//! A store in memory, which ends with its process: for the simulation, which runs several
//! dispatchers on one, in a time of its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use callbox_core::{EndCode, Session, SessionId, State, StateKind, Time};
use tokio::{sync::broadcast, time::Instant};

use super::{
    Deployment, Filter, Inserted, KeyRecord, NewSession, Replica, Saved, StartKey, Store,
    StoreError, Versioned,
    caps::{Living, in_the_way},
    types::HINTS,
};

/// See the module's documentation. Its clock is tokio's.
#[derive(Clone, Debug)]
pub struct Memory {
    tables: Arc<Mutex<Tables>>,
    changes: broadcast::Sender<SessionId>,
}

#[derive(Debug, Default)]
struct Tables {
    sessions: BTreeMap<SessionId, Row>,
    /// By scope and key: what was asked for, and what it bought.
    start_keys: BTreeMap<(String, String), (String, SessionId)>,
    replicas: BTreeMap<String, (Replica, Instant)>,
    keys: BTreeMap<String, KeyRecord>,
}

#[derive(Debug)]
struct Row {
    row: Versioned,
    /// When its driver retired.
    left_at: Option<Instant>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { tables: Arc::default(), changes: broadcast::Sender::new(HINTS) }
    }
}

impl Memory {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("no panic while held")
    }

    /// Says that this session was saved. Nobody may be listening.
    fn tell(&self, id: SessionId) {
        let _ = self.changes.send(id);
    }
}

fn ended(session: &Session) -> bool {
    matches!(session.state, State::Ended { .. })
}

/// Whether a list with this filter has the session.
fn fits(filter: &Filter, session: &Session) -> bool {
    let accepted = session.moments.accepted;
    let code = session.state.why().map(|why| why.code);
    let outcome = code.filter(|_| ended(session)).map(EndCode::outcome);
    let labelled = |(key, value): &(String, String)| session.labels.get(key) == Some(value);
    filter.bot.as_ref().is_none_or(|bot| *bot == session.bot)
        && filter.state.is_none_or(|state| state == session.state.kind())
        && !(filter.living && ended(session))
        && filter.outcome.is_none_or(|wanted| outcome == Some(wanted))
        && filter.code.is_none_or(|wanted| code == Some(wanted))
        && filter.since.is_none_or(|since| accepted >= since)
        && filter.until.is_none_or(|until| accepted < until)
        && filter.labels.iter().all(labelled)
        && filter.before.is_none_or(|before| place_in_list(session) < before)
}

/// From the newest to the oldest.
fn place_in_list(session: &Session) -> (Time, SessionId) {
    (session.moments.accepted, session.id)
}

impl Tables {
    fn living(&self) -> impl Iterator<Item = &Versioned> {
        self.sessions.values().map(|row| &row.row).filter(|row| !ended(&row.session))
    }

    fn insert(&mut self, new: &NewSession) -> Inserted {
        let key = new.start_key.as_ref().map(|key| (key.scope.clone(), key.key.clone()));
        let earlier = key.as_ref().and_then(|key| self.start_keys.get(key));
        if let (Some((body_hash, id)), Some(key)) = (earlier, &new.start_key) {
            if *body_hash != key.body_hash {
                return Inserted::KeyReused;
            }
            return Inserted::Existing(self.sessions[id].row.clone());
        }
        let count = |which: &dyn Fn(&Session) -> bool| -> i64 {
            self.living().filter(|row| which(&row.session)).count().try_into().unwrap_or(i64::MAX)
        };
        let living = Living {
            total: count(&|_| true),
            of_bot: count(&|session| session.bot == new.session.bot),
            queued: count(&|session| session.state.kind() == StateKind::Queued),
        };
        if let Some(refusal) = in_the_way(new, living) {
            return refusal;
        }
        let replica = Some(new.replica.clone()).filter(|id| !id.is_empty());
        let row = Versioned { session: new.session.clone(), version: 1, replica };
        let id = row.session.id;
        self.sessions.insert(id, Row { row: row.clone(), left_at: None });
        if let (Some(key), Some(StartKey { body_hash, .. })) = (key, &new.start_key) {
            self.start_keys.insert(key, (body_hash.clone(), id));
        }
        Inserted::Created(row)
    }

    /// Whether `taker` may take this session over.
    fn without_driver(&self, row: &Row, taker: &Replica, patience: [Duration; 2]) -> bool {
        let [silence, lost] = patience;
        let Row { row: Versioned { session, replica, .. }, left_at } = row;
        if ended(session) || replica.as_deref() == Some(taker.id.as_str()) {
            return false;
        }
        let beat = replica.as_ref().and_then(|id| Some(self.replicas.get(id)?.1));
        // Nothing is known: for longer than anything is remembered.
        let silent = |since: Option<Instant>, span| since.is_none_or(|at| at.elapsed() >= span);
        let near = session.place.is_empty() || session.place == taker.place;
        (near && (replica.is_none() || silent(beat, silence))) || silent(beat.or(*left_at), lost)
    }
}

#[async_trait]
impl Store for Memory {
    async fn insert(&self, new: &NewSession) -> Result<Inserted, StoreError> {
        let inserted = self.tables().insert(new);
        if let Inserted::Created(row) = &inserted {
            self.tell(row.session.id);
        }
        Ok(inserted)
    }

    async fn get(&self, id: SessionId) -> Result<Option<Versioned>, StoreError> {
        Ok(self.tables().sessions.get(&id).map(|row| row.row.clone()))
    }

    async fn save(&self, session: &Session, expected: i64) -> Result<Saved, StoreError> {
        match self.tables().sessions.get_mut(&session.id) {
            Some(Row { row, .. }) if row.version == expected => {
                row.session = session.clone();
                row.version += 1;
            }
            _ => return Ok(Saved::Conflict),
        }
        self.tell(session.id);
        Ok(Saved::Saved(expected + 1))
    }

    async fn living(&self) -> Result<Vec<SessionId>, StoreError> {
        Ok(self.tables().living().map(|row| row.session.id).collect())
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Versioned>, StoreError> {
        let tables = self.tables();
        let wanted = |row: &&Versioned| fits(filter, &row.session);
        let mut rows: Vec<Versioned> =
            tables.sessions.values().map(|row| &row.row).filter(wanted).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(place_in_list(&row.session)));
        rows.truncate(filter.limit as usize);
        Ok(rows)
    }

    async fn beat(&self, replica: &Replica) -> Result<(), StoreError> {
        let said = (replica.clone(), Instant::now());
        self.tables().replicas.insert(replica.id.clone(), said);
        Ok(())
    }

    async fn replicas(&self, within: Duration) -> Result<Vec<Replica>, StoreError> {
        let tables = self.tables();
        let living = tables.replicas.values().filter(|(_, beat)| beat.elapsed() < within);
        Ok(living.map(|(replica, _)| replica.clone()).collect())
    }

    async fn take_over(
        &self,
        replica: &Replica,
        silence: Duration,
        lost: Duration,
        limit: u32,
    ) -> Result<Vec<Versioned>, StoreError> {
        let mut tables = self.tables();
        let free = |row: &&Row| tables.without_driver(row, replica, [silence, lost]);
        let mut ids: Vec<_> = tables.sessions.values().filter(free).collect();
        ids.sort_by_key(|row| place_in_list(&row.row.session));
        let ids: Vec<SessionId> =
            ids.iter().take(limit as usize).map(|row| row.row.session.id).collect();
        let mut taken = Vec::new();
        for id in ids {
            let row = tables.sessions.get_mut(&id).expect("it was there, and the lock is held");
            row.row.replica = Some(replica.id.clone());
            row.row.version += 1;
            row.left_at = None;
            taken.push(row.row.clone());
            self.tell(id);
        }
        Ok(taken)
    }

    async fn driven(&self, replica: &str) -> Result<Vec<SessionId>, StoreError> {
        let tables = self.tables();
        let own = tables.living().filter(|row| row.replica.as_deref() == Some(replica));
        Ok(own.map(|row| row.session.id).collect())
    }

    async fn retire(&self, replica: &str) -> Result<(), StoreError> {
        let mut tables = self.tables();
        for row in tables.sessions.values_mut() {
            if row.row.replica.as_deref() == Some(replica) && !ended(&row.row.session) {
                row.row.replica = None;
                row.left_at = Some(Instant::now());
            }
        }
        tables.replicas.remove(replica);
        Ok(())
    }

    fn changes(&self) -> broadcast::Receiver<SessionId> {
        self.changes.subscribe()
    }

    async fn versions(
        &self,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, i64, Option<String>)>, StoreError> {
        let tables = self.tables();
        let rows = ids.iter().filter_map(|id| tables.sessions.get(id)).map(|row| &row.row);
        Ok(rows.map(|row| (row.session.id, row.version, row.replica.clone())).collect())
    }

    async fn prune(&self, before: Time, limit: u32) -> Result<Vec<SessionId>, StoreError> {
        let mut tables = self.tables();
        let sessions = tables.sessions.values().map(|row| &row.row.session);
        let ended = |session: &Session| Some((session.moments.ended?, session.id));
        let mut old: Vec<_> = sessions.filter_map(ended).filter(|(at, _)| *at < before).collect();
        old.sort_unstable();
        old.truncate(limit as usize);
        let old: Vec<SessionId> = old.into_iter().map(|(_, id)| id).collect();
        tables.sessions.retain(|id, _| !old.contains(id));
        tables.start_keys.retain(|_, (_, id)| !old.contains(id));
        Ok(old)
    }

    async fn deployment(&self) -> Result<Deployment, StoreError> {
        // Nobody outside this process can meet it.
        Ok(Deployment { id: "memory".into(), secret: vec![0; 32] })
    }

    async fn add_key(&self, key: &KeyRecord) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if tables.keys.contains_key(&key.id) {
            return Err(StoreError::unanswered("keep an API key"));
        }
        tables.keys.insert(key.id.clone(), key.clone());
        Ok(())
    }

    async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StoreError> {
        Ok(self.tables().keys.get(id).cloned())
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let mut keys: Vec<_> = self.tables().keys.values().cloned().collect();
        keys.sort_by_key(|key| key.created_at);
        Ok(keys)
    }

    async fn revoke_key(&self, id: &str, now: Time) -> Result<bool, StoreError> {
        match self.tables().keys.get_mut(id) {
            Some(key) if key.works() => {
                key.revoked_at = Some(now);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
