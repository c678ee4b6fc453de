//! What has ended: how it is found, and how it is forgotten.

use std::time::{Duration, SystemTime};

use callbox_core::SessionId;
use callbox_machines::Script;
use callbox_protocol::api::SessionList;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tokio::runtime::Handle;

use crate::{
    app::{SOON, TestApp, config},
    restart::{doomed, doomed_app},
};

async fn start(app: &TestApp, bot: &str, labels: Value) -> String {
    app.start(json!({ "bot": bot, "labels": labels })).await.0
}

#[tokio::test]
async fn sessions_are_found_by_what_became_of_them_and_by_labels() {
    let app = TestApp::new().await;
    let first = start(&app, "parrot", json!({ "tenant": "a:b", "kind": "x" })).await;
    app.wait(&first, "ready").await;
    app.request(Method::DELETE, &format!("/v1/sessions/{first}"), &app.private)
        .send()
        .await
        .unwrap();
    app.wait(&first, "ended").await;
    app.provider.set(|script| script.ensure_held = true);
    let second = start(&app, "hasty", json!({ "tenant": "a:b" })).await;
    app.wait(&second, "ended").await;
    app.provider.set(|script| script.ensure_held = false);
    app.provider.release();
    let third = start(&app, "parrot", json!({})).await;
    let accepted = app.wait(&third, "ready").await.moments.accepted.unwrap();

    let list = async |query: String| -> Vec<String> {
        let answer = app.get(&format!("/v1/sessions{query}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{query}");
        let list: SessionList = answer.json().await.unwrap();
        list.sessions.into_iter().map(|session| session.id).collect()
    };
    for (query, expected) in [
        ("", vec![&third]),
        ("?all=true", vec![&third, &second, &first]),
        ("?outcome=failed", vec![&second]),
        ("?outcome=completed&bot=parrot", vec![&first]),
        ("?code=start-timeout", vec![&second]),
        ("?code=stopped&state=ended", vec![&first]),
        ("?all=true&label=tenant:a:b", vec![&second, &first]),
        ("?all=true&label=tenant:a:b&label=kind:x", vec![&first]),
        ("?label=tenant:a:b", vec![]),
        ("?all=true&label=tenant:", vec![]),
        (&*format!("?all=true&since={accepted}"), vec![&third]),
        (&*format!("?all=true&until={accepted}&limit=1"), vec![&second]),
        ("?all=true&since=2999-01-01T00:00:00%2B01:00", vec![]),
        ("?all=true&unknown=passed-over", vec![&third, &second, &first]),
    ] {
        let expected: Vec<String> = expected.into_iter().cloned().collect();
        assert_eq!(list(query.to_owned()).await, expected, "{query}");
    }
    for query in [
        "?outcome=fine",
        "?code=unknown",
        "?state=asleep",
        "?since=yesterday",
        "?until=17",
        "?label=tenant",
        "?all=perhaps",
    ] {
        let answer = app.get(&format!("/v1/sessions{query}")).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{query}");
        let error: Value = answer.json().await.unwrap();
        let named = query[1..].split('=').next().unwrap();
        assert!(error["error"].as_str().unwrap().contains(named), "{query}: {error}");
    }
    let colon = json!({ "bot": "parrot", "labels": { "a:b": "c" } });
    assert_eq!(app.start_raw(colon).await.status(), StatusCode::BAD_REQUEST);
    app.finish().await;
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_with_its_log_and_its_key() {
    let runtime = doomed();
    let app = doomed_app(Script::default(), &runtime).await;
    let bought = async |app: &TestApp| {
        let start = app.request(Method::POST, "/start", &app.public);
        let start = start.header("Idempotency-Key", "k").json(&json!({ "bot": "parrot" }));
        let answer = start.send().await.unwrap();
        answer.headers()["x-callbox-session-id"].to_str().unwrap().to_owned()
    };
    let old = bought(&app).await;
    assert_eq!(bought(&app).await, old);
    let fresh = start(&app, "parrot", json!({})).await;
    for id in [&old, &fresh] {
        app.wait(id, "ready").await;
        let end = app.request(Method::DELETE, &format!("/v1/sessions/{id}"), &app.private);
        end.send().await.unwrap();
        app.wait(id, "ended").await;
    }
    let (dir, provider) = app.crash();
    tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    let options = SqliteConnectOptions::new().filename(dir.path().join("callbox.db"));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let age = sqlx::query("update session set ended_at = ended_at - 61000000 where id = ?");
    age.bind(&old).execute(&pool).await.unwrap();
    // The log of a session that another replica has forgotten.
    let log = |id: &str| dir.path().join(format!("logs/{id}.ndjson"));
    let elsewhere = "0b1c5c1e-0d84-4c7c-9b0b-6f1f6a6a5f7e";
    let file = std::fs::File::create(log(elsewhere)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(61)).unwrap();
    assert!(log(&old).exists() && log(&fresh).exists() && SessionId::parse(elsewhere).is_some());
    let logs = [log(&old), log(elsewhere)];
    let kept = log(&fresh);

    let config = config("[history]\nkeep_s = 60");
    let front = provider.clone();
    let app = TestApp::configured(config, dir, provider, front, &Handle::current()).await;
    let forgotten = tokio::time::timeout(SOON, async {
        while logs.iter().any(|log| log.exists()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    forgotten.await.expect("the logs go");
    let show = async |id: &str| app.get(&format!("/v1/sessions/{id}")).await.status();
    assert_eq!(show(&old).await, StatusCode::NOT_FOUND);
    assert_eq!(show(&fresh).await, StatusCode::OK);
    assert!(kept.exists());
    assert_ne!(bought(&app).await, old, "its key buys again");
    app.finish().await;
}
