//! What only PostgreSQL can do, or can do wrong.

use std::time::Duration;

use callbox_core::EventKind;
use callbox_server::store::{Inserted, NewSession, Store};
use tokio::sync::broadcast::error::RecvError;

use super::{after, contract, database::Database, leases::told, new, session};

#[tokio::test]
async fn postgres_keeps_the_contract() {
    let Some(database) = Database::fresh().await else { return };
    contract(&database.open().await).await;
}

#[tokio::test]
async fn replicas_hear_of_each_others_saves_and_of_what_they_may_have_missed() {
    let Some(database) = Database::fresh().await else { return };
    let (one, other) = (database.open().await, database.open().await);
    let first = session("a", 1);
    let mut changes = other.changes();
    // It listens as soon as it can, and says by a lag that it did not before.
    let began = tokio::time::timeout(Duration::from_secs(10), changes.recv()).await.unwrap();
    assert!(matches!(began, Err(RecvError::Lagged(_))), "{began:?}");
    let mut changes = other.changes();
    let Inserted::Created(row) = one.insert(&new(&first, None)).await.unwrap() else {
        panic!("no cap yet")
    };
    told(&mut changes, first.id).await;

    let pool = database.pool();
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid() and query ilike 'listen%'";
    let (cut,): (i64,) = sqlx::query_as(cut).fetch_one(&pool).await.unwrap();
    assert_eq!(cut, 2, "both listened");
    let lag = tokio::time::timeout(Duration::from_secs(10), async {
        while !matches!(changes.recv().await, Err(RecvError::Lagged(_))) {}
    });
    lag.await.expect("a gap is told");
    let mut changes = other.changes();
    let next = after(&row.session, EventKind::Admitted);
    one.save(&next, row.version).await.unwrap();
    told(&mut changes, first.id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_replicas_cannot_both_take_the_last_place() {
    let Some(database) = Database::fresh().await else { return };
    let stores = [database.open().await, database.open().await];
    let starts = (0..40).map(|n| {
        let store = stores[n % 2].clone();
        let new = NewSession { total_cap: 7, bot_cap: 100, ..new(&session("a", 1), None) };
        tokio::spawn(async move { store.insert(&new).await.unwrap() })
    });
    let mut created = 0;
    for start in starts.collect::<Vec<_>>() {
        created += usize::from(matches!(start.await.unwrap(), Inserted::Created(_)));
    }
    assert_eq!((created, stores[0].living().await.unwrap().len()), (7, 7));
}
