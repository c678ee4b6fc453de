//! What the living sessions claim of the world, for those who remove what nobody claims.

use std::collections::HashSet;

use callbox_core::{SessionId, machine_name};

use crate::store::{Store, StoreError, each_living};

/// The claims of all sessions that live.
#[derive(Debug, Default)]
pub struct Claims {
    sessions: HashSet<SessionId>,
    machines: HashSet<String>,
    /// What their providers call these. Whose name a machine of a reserve does not have yet has it
    /// by its id.
    ids: HashSet<String>,
    /// What the names of machines begin with whose sessions cannot be read: which of them it is
    /// that they have, nobody can tell, so all are claimed.
    unread: Vec<String>,
}

impl Claims {
    /// As they are now. What was made for a session that is accepted later is not among them, so
    /// whoever removes something has listed it before.
    ///
    /// # Errors
    /// When the store does not answer. A session that cannot be read is none.
    pub async fn of(store: &dyn Store) -> Result<Claims, StoreError> {
        let mut claims = Claims::default();
        let mut unread: HashSet<SessionId> = store.living().await?.into_iter().collect();
        claims.sessions.clone_from(&unread);
        each_living(store, None, |session| {
            unread.remove(&session.id);
            claims.sessions.insert(session.id);
            claims.machines.extend(session.machine_name());
            claims.ids.extend(session.machine_id);
        })
        .await?;
        // Some of these have ended meanwhile; the next look tells.
        claims.unread = unread.into_iter().map(every_machine_of).collect();
        Ok(claims)
    }

    /// Whether this session lives.
    pub fn session(&self, id: SessionId) -> bool {
        self.sessions.contains(&id)
    }

    /// Whether a living session has the machine that its provider calls so.
    pub fn machine_id(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Whether a living session has, or may have, the machine of this name.
    pub fn machine(&self, name: &str) -> bool {
        self.machines.contains(name) || self.unread.iter().any(|of| name.starts_with(of))
    }
}

/// What all its machines' names begin with.
fn every_machine_of(session: SessionId) -> String {
    machine_name(session, 0).trim_end_matches('0').to_owned()
}
