//! Which sessions were saved, told from replica to replica by NOTIFY.
//!
//! Beside the saves and not within them: a transaction that notifies holds a lock of the whole
//! server at its commit. What was saved in a few milliseconds goes out together.
//!
//! Whoever listens is told when something may have been missed, by a lag: connections break, and
//! some break without a word, so everybody listens for his own voice as well.

use std::{sync::Arc, time::Duration};

use callbox_core::SessionId;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::{broadcast, mpsc},
    task::AbortHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::super::types::HINTS;
use super::connection;

const CHANNEL: &str = "callbox_session";

/// How many ids one notification carries; it may have 8000 bytes.
const TOGETHER: usize = 200;

/// For how long ids are gathered.
const GATHER: Duration = Duration::from_millis(10);

/// How often something is said, if only that we are there.
const HEARD_EVERY: Duration = Duration::from_secs(5);

/// When nothing was heard for so long, not even ourselves, the connection is dead.
const DEAF: Duration = Duration::from_secs(12);

/// How long a connection may take to be made, and a notification to be sent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells the others, and hears them.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    changes: broadcast::Sender<SessionId>,
    outbox: mpsc::Sender<SessionId>,
    _tasks: Arc<Tasks>,
}

/// Ends with the store.
#[derive(Debug)]
struct Tasks([AbortHandle; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Hints {
    /// Begins to tell and to listen, with a connection for each.
    pub(super) fn begin(options: &PgConnectOptions) -> Hints {
        let one = |options: &PgConnectOptions| {
            PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(PATIENCE)
                .after_connect(|connection, _| Box::pin(connection::begin(connection)))
                .connect_lazy_with(options.clone())
        };
        let changes = broadcast::Sender::new(HINTS);
        let (outbox, heard) = mpsc::channel(HINTS);
        let us = Uuid::new_v4().simple().to_string();
        let speak = tokio::spawn(speak(one(options), us.clone(), heard));
        let listen = tokio::spawn(listen(one(options), us, changes.clone()));
        let tasks = Tasks([speak.abort_handle(), listen.abort_handle()]);
        Hints { changes, outbox, _tasks: Arc::new(tasks) }
    }

    /// This session was saved here.
    pub(super) fn tell(&self, id: SessionId) {
        // Nobody here may be listening.
        let _ = self.changes.send(id);
        // Full: the database does not answer, and those who listen to it know.
        let _ = self.outbox.try_send(id);
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<SessionId> {
        self.changes.subscribe()
    }
}

/// Says what was saved here, and that we are there.
async fn speak(pool: PgPool, us: String, mut outbox: mpsc::Receiver<SessionId>) {
    let mut missed = false;
    loop {
        let mut ids = Vec::new();
        match timeout(HEARD_EVERY, outbox.recv_many(&mut ids, TOGETHER)).await {
            // The store is gone.
            Ok(0) => return,
            Ok(_) => {
                sleep(GATHER).await;
                while ids.len() < TOGETHER
                    && let Ok(id) = outbox.try_recv()
                {
                    ids.push(id);
                }
            }
            Err(_) => {}
        }
        ids.sort_unstable();
        ids.dedup();
        let mut text = us.clone();
        if missed {
            text.push_str(" *");
        }
        for id in &ids {
            text.push(' ');
            text.push_str(&id.0.simple().to_string());
        }
        let say = sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(&text);
        let said = timeout(PATIENCE, say.execute(&pool)).await;
        missed = !matches!(said, Ok(Ok(_)));
        if missed {
            tracing::debug!("the other replicas could not be told what was saved here");
            sleep(AGAIN).await;
        }
    }
}

/// Hears what was saved elsewhere, on one connection after the other.
async fn listen(pool: PgPool, us: String, changes: broadcast::Sender<SessionId>) {
    loop {
        let connected = timeout(PATIENCE, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        });
        if let Ok(Ok(listener)) = connected.await {
            // From here on we hear all; what was before, we do not know.
            miss(&changes);
            hear(listener, &us, &changes).await;
            tracing::warn!("the connection on which other replicas are heard was lost");
        }
        sleep(AGAIN).await;
    }
}

/// Until nothing is heard any more.
async fn hear(mut listener: PgListener, us: &str, changes: &broadcast::Sender<SessionId>) {
    listener.eager_reconnect(false);
    while let Ok(Ok(Some(said))) = timeout(DEAF, listener.try_recv()).await {
        let mut words = said.payload().split(' ');
        if words.next() == Some(us) {
            continue;
        }
        for word in words {
            match SessionId::parse(word) {
                Some(id) => drop(changes.send(id)),
                None => miss(changes),
            }
        }
    }
}

/// Everybody who listens learns that something may have been missed: so many hints at once, of a
/// session that nobody has, are a lag for all.
fn miss(changes: &broadcast::Sender<SessionId>) {
    for _ in 0..=HINTS {
        let _ = changes.send(SessionId(Uuid::nil()));
    }
}
