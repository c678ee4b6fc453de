//! Bad luck: rows that cannot be read, newer tables, a database that is away.

use std::time::Duration;

use callbox_core::{Session, SessionId};
use callbox_machines::Script;
use callbox_server::{
    claims::Claims,
    store::{Filter, Inserted, Replica, Sqlite, Store, StoreError},
    sweep,
};
use reqwest::Method;
use serde_json::json;
use sqlx::SqlitePool;

use super::{database::Database, new, session};
use crate::{
    app::{SOON, TestApp},
    restart::{crash, doomed, doomed_app},
};

const AGES: Duration = Duration::from_secs(1_000_000);

async fn sqlite(path: &std::path::Path) -> SqlitePool {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    SqlitePool::connect_with(options).await.unwrap()
}

/// Makes the row of a session something that no version ever wrote.
const SPOIL: &str = "update session set doc = '{ half' where created_at = 72";

async fn one_bad_row_is_passed_over(store: &dyn Store, spoil: impl AsyncFnOnce()) {
    let mut ids = Vec::new();
    for at in [71, 72, 73, 74] {
        let session = Session { place: String::new(), ..session(&format!("of-{at}"), at) };
        assert!(matches!(store.insert(&new(&session, None)).await.unwrap(), Inserted::Created(_)));
        ids.push(session.id);
    }
    spoil().await;
    let error = store.get(ids[1]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::BadRow { id, .. } if *id == ids[1].to_string()),
        "{error}"
    );
    assert_eq!(store.living().await.unwrap().len(), 4, "it lives, whatever it is");

    let of = |rows: Vec<callbox_server::store::Versioned>| -> Vec<SessionId> {
        rows.iter().map(|row| row.session.id).collect()
    };
    let page = Filter { limit: 3, ..Filter::default() };
    assert_eq!(of(store.list(&page).await.unwrap()), [ids[3], ids[2], ids[0]], "a full page");
    let page = Filter { limit: 2, ..Filter::default() };
    assert_eq!(of(store.list(&page).await.unwrap()), [ids[3], ids[2]]);

    let claims = Claims::of(store).await.unwrap();
    let machine = |id, n| callbox_core::machine_name(id, n);
    assert!(claims.session(ids[1]) && claims.machine(&machine(ids[1], 17)), "it may have any");
    assert!(!claims.machine(&machine(ids[0], 1)), "this one is known to have none");

    let us = Replica { id: "us".into(), place: String::new(), url: String::new() };
    let taken = store.take_over(&us, AGES, AGES, 3).await.unwrap();
    assert_eq!(of(taken), [ids[0], ids[2], ids[3]], "the bad one does not stand before others");
    assert_eq!(store.take_over(&us, AGES, AGES, 3).await.unwrap(), []);
    assert!(!store.driven("us").await.unwrap().contains(&ids[1]), "it is left to who can read it");
}

#[tokio::test]
async fn one_bad_row_is_passed_over_in_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("callbox.db");
    let store = Sqlite::open(&path).await.unwrap();
    one_bad_row_is_passed_over(&store, async || {
        sqlx::query(SPOIL).execute(&sqlite(&path).await).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn one_bad_row_is_passed_over_in_postgres() {
    let Some(database) = Database::fresh().await else { return };
    let store = database.open().await;
    one_bad_row_is_passed_over(&store, async || {
        sqlx::query(SPOIL).execute(&database.pool()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_machine_of_a_session_that_cannot_be_read_is_left_alone() {
    let runtime = doomed();
    let app = doomed_app(Script::default(), &runtime).await;
    let (readable, _) = app.start(json!({ "bot": "parrot" })).await;
    let (bad, _) = app.start(json!({ "bot": "parrot" })).await;
    for id in [&readable, &bad] {
        app.wait(id, "ready").await;
    }
    let machines = app.provider.names();
    let pool = sqlite(&app.data_dir().join("callbox.db")).await;
    let doc = sqlx::query_as("select doc from session where id = ?").bind(&bad);
    let (doc,): (String,) = doc.fetch_one(&pool).await.unwrap();
    let set = async |doc: &str| {
        let set = sqlx::query("update session set doc = ? where id = ?").bind(doc).bind(&bad);
        set.execute(&pool).await.unwrap();
    };
    set("").await;

    // The next dispatcher begins, goes on with the other, and sweeps nothing.
    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    let runtime = doomed();
    let app = TestApp::on(dir, provider, runtime.handle()).await;
    driven(&app, &readable).await;
    assert_eq!(sweep::once(&app.plane).await.unwrap(), 0);
    assert_eq!(app.provider.names(), machines);
    let list: serde_json::Value = app.get("/v1/sessions").await.json().await.unwrap();
    assert_eq!(list["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(app.get(&format!("/v1/sessions/{bad}")).await.status(), 500);

    // Whoever can read it goes on with it.
    set(&doc).await;
    let app = crash(app, runtime).await;
    driven(&app, &bad).await;
    app.finish().await;
}

#[tokio::test]
async fn what_a_newer_dispatcher_wrote_is_carried_through() {
    let runtime = doomed();
    let app = doomed_app(Script::default(), &runtime).await;
    let (id, _) = app.start(json!({ "bot": "parrot" })).await;
    app.wait(&id, "ready").await;
    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    let pool = sqlite(&dir.path().join("callbox.db")).await;
    let newer = "update session set doc = json_set(doc, '$.from_tomorrow', json('{\"x\":[1,2]}'))";
    sqlx::query(newer).execute(&pool).await.unwrap();
    let app = TestApp::on(dir, provider, &tokio::runtime::Handle::current()).await;
    app.request(Method::DELETE, &format!("/v1/sessions/{id}"), &app.private).send().await.unwrap();
    app.wait(&id, "ended").await;
    let kept = "select json_extract(doc, '$.from_tomorrow') from session where id = ?";
    let (kept,): (String,) = sqlx::query_as(kept).bind(&id).fetch_one(&pool).await.unwrap();
    assert_eq!(kept, r#"{"x":[1,2]}"#);
    app.finish().await;
}

/// Waits until this dispatcher drives the session.
async fn driven(app: &TestApp, id: &str) {
    let id = SessionId::parse(id).unwrap();
    let taken_up = tokio::time::timeout(SOON, async {
        while app.plane.handle(id).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    taken_up.await.expect("it is taken up");
}

async fn newer_tables_are_refused(error: StoreError) {
    let said = error.to_string();
    assert!(matches!(error, StoreError::Newer { found: 9000, .. }), "{said}");
    assert!(said.contains("9000") && said.contains("newer callbox"), "{said}");
}

/// What a newer version leaves beside its tables.
const NEWER: &str = "insert into _sqlx_migrations
    (version, description, success, checksum, execution_time)
    values (9000, 'from the future', true, '', 0)";

#[tokio::test]
async fn newer_tables_are_refused_in_sqlite_and_who_runs_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("callbox.db");
    let running = Sqlite::open(&path).await.unwrap();
    sqlx::query(NEWER).execute(&sqlite(&path).await).await.unwrap();
    newer_tables_are_refused(Sqlite::open(&path).await.unwrap_err()).await;
    assert!(matches!(
        running.insert(&new(&session("a", 1), None)).await.unwrap(),
        Inserted::Created(_)
    ));
}

#[tokio::test]
async fn newer_tables_are_refused_in_postgres_and_who_runs_goes_on() {
    let Some(database) = Database::fresh().await else { return };
    let running = database.open().await;
    sqlx::query(NEWER).execute(&database.pool()).await.unwrap();
    let again = callbox_server::store::Postgres::open(database.options()).await;
    newer_tables_are_refused(again.unwrap_err()).await;
    assert!(matches!(
        running.insert(&new(&session("a", 1), None)).await.unwrap(),
        Inserted::Created(_)
    ));
}
