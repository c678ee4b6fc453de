//! Connections that never hang.
//!
//! Every call has a bound of its own on our side, because a network that swallows everything gives
//! no error for a quarter of an hour. A connection whose call was cut short is closed: what it
//! would say next answers a question that nobody asks any more. On the database's side there are
//! bounds too, so that a replica that vanished in the middle holds no lock for long.

use std::{
    future::Future,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::timeout;

use super::super::{StoreError, types::doing};

/// How long a call may take, with the wait for a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);

/// How long a connection is waited for.
const ACQUIRE: Duration = Duration::from_secs(3);

/// A connection that was idle for longer is asked whether it still is one.
const DOUBTFUL: Duration = Duration::from_secs(1);

/// After one broke, all others are asked for so long: they often break together.
const SUSPICION: Duration = Duration::from_secs(10);

/// How long that may take.
const ANSWER: Duration = Duration::from_secs(1);

/// What a connection begins with. All are the user's to set. In milliseconds, those of the
/// network in seconds; on a Unix socket these mean nothing.
const BEGIN: &str = "
    set statement_timeout = 5000;
    set lock_timeout = 4000;
    set idle_in_transaction_session_timeout = 5000;
    set default_transaction_isolation = 'read committed';
    set tcp_keepalives_idle = 10;
    set tcp_keepalives_interval = 5;
    set tcp_keepalives_count = 3;
    set tcp_user_timeout = 15000;
";

/// When a connection broke last.
#[derive(Clone, Debug, Default)]
pub(super) struct Broke(Arc<Mutex<Option<Instant>>>);

impl Broke {
    /// Whether a call failed because its connection broke; then it is remembered.
    pub(super) fn by(&self, error: &StoreError) -> bool {
        let broke = matches!(error, StoreError::Database { source: sqlx::Error::Io(_), .. });
        if broke {
            *self.0.lock().expect("no panic while held") = Some(Instant::now());
        }
        broke
    }

    fn of_late(&self) -> bool {
        let last = *self.0.lock().expect("no panic while held");
        last.is_some_and(|at| at.elapsed() < SUSPICION)
    }
}

/// At most so many connections, made as they are needed.
pub(super) fn pool(options: PgConnectOptions, most: u32, broke: Broke) -> PgPool {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(Duration::from_secs(300))
        // Ours is quicker for those that were in use a moment ago.
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(begin(connection)))
        .before_acquire(move |connection, meta| {
            let ask = meta.idle_for > DOUBTFUL || broke.of_late();
            Box::pin(async move {
                if ask {
                    answers(connection).await?;
                }
                Ok(true)
            })
        })
        // What comes after this has no bound: the pool asks again whether it answers.
        .after_release(|connection, _| {
            Box::pin(async move { answers(connection).await.map(|()| true) })
        })
        .connect_lazy_with(options)
}

/// One connection, for work that may last.
pub(super) fn patient(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE)
        .after_connect(|connection, _| {
            let patience = sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = 0");
            Box::pin(async move { patience.execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options)
}

/// Sets what a connection has to have.
pub(super) async fn begin(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(BEGIN).execute(connection).await.map(drop)
}

async fn answers(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    timeout(ANSWER, connection.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
}

/// Waits for `work`, but not for ever.
pub(super) async fn within<T>(
    patience: Duration,
    doing: &'static str,
    work: impl Future<Output = Result<T, StoreError>> + Send,
) -> Result<T, StoreError> {
    let silent = |_| StoreError::Silent { doing, after: patience };
    timeout(patience, work).await.map_err(silent)?
}

/// A connection of the pool's, for one call.
pub(super) struct Lent(Option<PoolConnection<Postgres>>);

/// A connection, as soon as there is one.
pub(super) async fn lend(pool: &PgPool, what: &'static str) -> Result<Lent, StoreError> {
    pool.acquire().await.map(|connection| Lent(Some(connection))).map_err(doing(what))
}

impl Lent {
    /// The call is over: the connection can be used again.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Cut short, else it would have been given back.
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("there until it is given back")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("there until it is given back")
    }
}
