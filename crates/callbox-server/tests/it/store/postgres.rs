//! What only PostgreSQL can do, or can do wrong.

use std::time::Duration;

use callbox_core::{EndCode, EventKind, Outcome, Time};
use callbox_server::store::{Filter, Inserted, NewSession, Replica, StartKey, Store};
use tokio::{sync::broadcast::error::RecvError, time::timeout};

use crate::app::SOON;

use super::{after, contract, database::Database, end, leases::told, new, session};

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
    let began = timeout(Duration::from_secs(10), changes.recv()).await.unwrap();
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
    let lag = timeout(Duration::from_secs(10), async {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn that_we_live_is_said_whoever_waits_for_a_connection() {
    let Some(database) = Database::fresh().await else { return };
    let store = database.open().await;
    let us = Replica { id: "us".into(), place: String::new(), url: String::new() };
    store.beat(&us).await.unwrap();
    // A transaction sees for ever who waited when it first looked.
    let (locking, looking) = (database.pool(), database.pool());
    let mut hold_up = locking.begin().await.unwrap();
    sqlx::query("lock table session").execute(&mut *hold_up).await.unwrap();
    let waiting = (0..30).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.living().await.map(drop) })
    });
    let waiting: Vec<_> = waiting.collect();
    let all_wait = async {
        loop {
            let count: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(&looking)
            .await
            .unwrap();
            if count >= 10 {
                return;
            }
        }
    };
    timeout(SOON, all_wait).await.expect("they wait for the table");
    timeout(Duration::from_secs(2), store.beat(&us)).await.expect("it waits for nobody").unwrap();
    hold_up.rollback().await.unwrap();
    for one in waiting {
        let _ = one.await.unwrap();
    }
}

/// How often a table was read from its beginning to its end, and its rows were found by an index.
async fn reads(database: &Database) -> (i64, i64) {
    let sql = "select sum(seq_scan)::bigint, sum(idx_scan)::bigint from pg_stat_user_tables
               where relname in ('session', 'start_key', 'label')";
    sqlx::query_as(sql).fetch_one(&database.pool()).await.unwrap()
}

/// A start and a save must not become slower with every session that ever ended, nor a list with
/// those that are not on it.
#[tokio::test]
async fn nothing_reads_all_that_ever_ended() {
    let Some(database) = Database::fresh().await else { return };
    let store = database.open().await;
    let old = session("old", 1);
    store.insert(&new(&old, None)).await.unwrap();
    let row = store.get(old.id).await.unwrap().unwrap();
    end(&store, row, EndCode::Stopped).await;
    let fill = "insert into session (id, version, place, bot, state, created_at, deadline_at,
                                     ended_at, end_code, outcome, doc)
         select gen_random_uuid(), 1, '', 'bot-' || (n % 3), 'ended', n, n, n, 'stopped', 'completed', doc
         from generate_series(1, 20000) n, (select doc from session limit 1) one";
    sqlx::query(fill).execute(&database.pool()).await.unwrap();
    sqlx::query("insert into start_key select 's', 'key-' || id, 'h', id from session")
        .execute(&database.pool())
        .await
        .unwrap();
    sqlx::query("insert into label select id, 'tenant', id::text, created_at from session where id not in (select session_id from label)")
        .execute(&database.pool())
        .await
        .unwrap();
    sqlx::query("vacuum analyze").execute(&database.pool()).await.unwrap();
    let (scans, found) = reads(&database).await;
    // More often than it takes PostgreSQL to make a plan for good.
    for at in 20_000..20_012 {
        one_life(&store, at).await;
    }
    // Its connections say what they did when they end, at the latest.
    drop(store);
    let after = timeout(Duration::from_secs(30), async {
        loop {
            let now = reads(&database).await;
            if now.1 > found {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let (scans_after, _) = after.await.expect("the numbers come");
    assert_eq!(scans_after, scans, "some table was read as a whole");
}

async fn one_life(store: &dyn Store, at: i64) {
    let one = session(&format!("bot-{at}"), at);
    let key = StartKey { scope: "s".into(), key: at.to_string(), body_hash: "h".into() };
    let Inserted::Created(row) = store.insert(&new(&one, Some(key.clone()))).await.unwrap() else {
        panic!("no cap yet")
    };
    let again = store.insert(&new(&session("bot", at), Some(key))).await.unwrap();
    assert!(matches!(again, Inserted::Existing(_)));
    let next = after(&row.session, EventKind::Admitted);
    store.save(&next, row.version).await.unwrap();
    let us = Replica { id: "us".into(), place: String::new(), url: String::new() };
    store.take_over(&us, Duration::ZERO, Duration::ZERO, 5).await.unwrap();
    store.driven("us").await.unwrap();
    store.living().await.unwrap();
    store.versions(&[one.id]).await.unwrap();
    for filter in [
        Filter { limit: 5, ..Filter::default() },
        Filter { living: true, limit: 5, ..Filter::default() },
        Filter { outcome: Some(Outcome::Failed), limit: 5, ..Filter::default() },
        Filter { code: Some(EndCode::RoomFailed), limit: 5, ..Filter::default() },
        Filter { bot: Some("nobody".into()), limit: 5, ..Filter::default() },
        Filter { labels: vec![("tenant".into(), "x".into())], limit: 5, ..Filter::default() },
    ] {
        store.list(&filter).await.unwrap();
    }
    let row = store.get(one.id).await.unwrap().unwrap();
    end(store, row, EndCode::Stopped).await;
    store.prune(Time::from_micros(100), 5).await.unwrap();
}
